"""One denoising step of a group of jobs: one forward, then each job's own. An error of one job ends that job alone."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

import structlog
import torch
from torch import Tensor

from domains.errors import DeviceOpsError
from domains.inference.on_device.compiling import code_permitted, taken_reasons
from domains.inference.on_device.families.family import Abandoned, CodeMissing, KeepOn
from domains.inference.on_device.fence import Fence, to_host
from domains.inference.on_device.hardware import Hardware, Mark
from domains.inference.on_device.ladder import attempt
from domains.inference.on_device.pace import Pace
from domains.inference.on_device.run import Run
from domains.inference.on_device.trajectory import drawn_for, moved, outputs_of

_log = structlog.get_logger()


class Answering(Protocol):
    """Turns an error into the end of the jobs."""

    def __call__(self, *jobs: Run) -> AbstractContextManager[None]:
        """Return a context that ends the jobs if its body raises."""
        ...


class SharedSteps:
    """Does the steps of one device."""

    def __init__(
        self,
        hardware: Hardware,
        pace: Pace,
        answering: Answering,
        keep_on: Callable[[Sequence[Run]], KeepOn],
        waiting: Callable[[Sequence[Run]], KeepOn],
        give_way: Callable[[Run, DeviceOpsError], None],
    ) -> None:
        """`keep_on`: abandons a forward when none of its jobs needs it; `waiting`: a wait for code, on every device.
        `give_way`: lets a job try its step again with less, or raises."""
        self._hardware = hardware
        self._pace = pace
        self._answering = answering
        self._keep_on = keep_on
        self._waiting = waiting
        self._give_way = give_way

    def do(self, group: Sequence[Run]) -> None:
        """Enqueue the next step of each job."""
        begun = [job for job in group if self._may_begin(job)]
        if jobs := [job for job in begun if job.denoising]:
            with self._answering(*jobs):
                self._walk(jobs)

    def _may_begin(self, job: Run) -> bool:
        if not job.denoising:
            # Its model was offloaded for another job of the group.
            return False
        with self._answering(job):
            with attempt(job) as tried:
                # Before the rows of the step are counted.
                job.walking.enter_phase()
                self._hardware.before_step(job.id, job.walking.index + 1, job.held_bytes)
            if tried.shortage is None:
                return True
            self._give_way(job, tried.shortage)
        return False

    def _walk(self, jobs: Sequence[Run]) -> bool:
        """Whether every job has done its step."""
        if len(jobs) > 1:
            return self._walk_together(jobs)
        if not jobs[0].denoising:
            # Its model was offloaded for another job of the group.
            return False
        with self._answering(jobs[0]):
            timer = _Timer(jobs, self._hardware, self._pace)
            outputs: Sequence[Tensor] = ()
            with attempt(jobs[0]) as tried:
                outputs = self._outputs(jobs, timer)
            if tried.shortage is not None:
                self._give_way(jobs[0], tried.shortage)
            else:
                self._finish(jobs, outputs, timer)
                return True
        return False

    def _walk_together(self, jobs: Sequence[Run]) -> bool:
        timer = _Timer(jobs, self._hardware, self._pace)
        try:
            outputs = self._outputs(jobs, timer)
        except Abandoned:
            return False
        except Exception:
            # One job or the size of the forward is at fault: running each job alone shows which.
            _log.warning("a shared step failed", jobs=[job.id for job in jobs], rows=timer.rows, exc_info=True)
            outputs = None
        if outputs is not None:
            self._finish(jobs, outputs, timer)
            return True
        alone = [self._walk([job]) for job in jobs]
        if all(alone):
            timer.did_not_fit()
        return False

    def _outputs(self, jobs: Sequence[Run], timer: "_Timer") -> Sequence[Tensor]:
        walks, keep_on = [job.walking for job in jobs], self._keep_on(jobs)
        try:
            outputs = outputs_of(walks, keep_on)
        except CodeMissing:
            self._compile(jobs)
            # The step is done from its beginning, so that it takes as long as any other.
            timer.begin()
            with code_permitted(self._waiting(jobs)):
                outputs = outputs_of(walks, keep_on)
        for reason, why in taken_reasons(walks[0].family):
            for job in jobs:
                job.computed_without_code(reason, why)
        return outputs

    def _compile(self, jobs: Sequence[Run]) -> None:
        """Make the code that the next step of the jobs lacks. Raises what abandons a forward."""
        with ExitStack() as stages:
            for job in jobs:
                stages.enter_context(job.compiling())
            with code_permitted(self._waiting(jobs)):
                # A whole forward: each block reads what the one before it has found.
                outputs_of([job.walking for job in jobs], self._keep_on(jobs))

    def _finish(self, jobs: Sequence[Run], outputs: Sequence[Tensor], timer: "_Timer") -> None:
        """Follow the outputs, and enqueue what else belongs to the step. One fence ends it for all jobs."""
        walked = [job for job in self._followed(jobs, outputs) if self._arrived(job)]
        if not walked:
            return
        added: list[Callable[[Fence], None]] = []
        for job, finite in zip(walked, _finite(walked), strict=True):
            with self._answering(job):
                added.append(job.stepped(job.walking.rows / timer.rows, finite, timer.passed))
        fence = timer.fence()
        for add in added:
            add(fence)

    def _followed(self, jobs: Sequence[Run], outputs: Sequence[Tensor]) -> Sequence[Run]:
        """The jobs that have followed their outputs."""
        noises = drawn_for([job.walking for job in jobs])
        try:
            moved([job.walking for job in jobs], outputs, noises)
            return jobs
        except Exception:
            # One job or the size of the forward is at fault: each job alone shows which. Noise is not drawn a second time.
            _log.warning("a shared line failed", jobs=[job.id for job in jobs], exc_info=True)
        alone = zip(jobs, outputs, noises, strict=True)
        return [job for job, output, noise in alone if self._followed_alone(job, output, noise)]

    def _followed_alone(self, job: Run, output: Tensor, noise: Tensor | None) -> bool:
        with self._answering(job):
            moved([job.walking], [output], [noise])
            return True
        return False

    def _arrived(self, job: Run) -> bool:
        with self._answering(job):
            job.walking.arrive()
            self._hardware.after_step(job.id, job.walking.index, job.walking.latents)
            return True
        return False


def _finite(jobs: Sequence[Run]) -> Sequence[Tensor]:
    """For each job whether its latents are numbers: (pictures,), on the host once a later fence has passed."""
    latents = [job.walking.latents for job in jobs]
    every = torch.isfinite(latents[0] if len(latents) == 1 else torch.cat(latents)).flatten(1).all(1)
    return to_host(every).split([len(one) for one in latents])


class _Timer:
    """Measures a forward, on the device where it can tell."""

    def __init__(self, jobs: Sequence[Run], hardware: Hardware, pace: Pace) -> None:
        first = jobs[0]
        self._sizes = pace.of(first.family, first.walking.alike)
        self.rows = sum(job.walking.rows for job in jobs)
        """Of all jobs."""
        self._hardware = hardware
        self._fence: Fence | None = None
        self.begin()

    def begin(self) -> None:
        """Begin to measure."""
        self._began: Mark = self._hardware.mark()
        self._began_s = time.perf_counter()

    def fence(self) -> Fence:
        """A fence for all that was enqueued since the beginning."""
        self._fence = self._hardware.fence(self._began)
        return self._fence

    def passed(self) -> None:
        """Note that the device has finished. Only the first call counts."""
        fence, self._fence = self._fence, None
        if fence is not None:
            device_s = fence.device_s()
            took_s = time.perf_counter() - self._began_s if device_s is None else device_s
            self._sizes.took(self.rows, took_s)

    def did_not_fit(self) -> None:
        """Note that each job's forward worked alone after the shared one failed."""
        self._sizes.did_not_fit(self.rows)
