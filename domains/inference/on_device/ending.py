"""Ends jobs. The last report has one function a kind; each frees the job's tensors before it measures."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

import torch
from structlog.contextvars import bound_contextvars

from domains.errors import DeviceOpsError
from domains.inference.on_device.families.family import Abandoned
from domains.inference.on_device.groups import Turns
from domains.inference.on_device.hardware import Hardware
from domains.inference.on_device.load_run import LoadRun
from domains.inference.outcome import Report, RunFailed, RunFinished, RunStopped
from domains.model.on_device import translate
from domains.stop import Stop


class Ends:
    """Removes jobs from the turns of a device, each with its last report."""

    def __init__(
        self, turns: Turns, device: torch.device, hardware: Hardware, report: Callable[[str, Report], None]
    ) -> None:
        self._turns = turns
        self._device = device
        self._hardware = hardware
        self._report = report

    @contextmanager
    def answering(self, *jobs: LoadRun) -> Generator[None]:
        """Turns an error into the end of those of the jobs that still run, here only."""
        try:
            yield
        except Abandoned:
            return  # Cancelled jobs end in the next tick.
        except Exception as error:
            for job in [job for job in jobs if job in self._turns]:
                with bound_contextvars(job_id=job.id):
                    told = translate(error, self._device, str(job.stage))
                self._end(job, lambda job, told=told: failed(job, told))

    def end_stopped(self) -> None:
        """End the jobs that were asked to stop and can stop now."""
        for job in [job for job in self._turns if job.stop is not None and (job.stop.final or job.pausable)]:
            self.end_as_asked(job)

    def end_as_asked(self, job: LoadRun) -> None:
        """End a job: finished, or stopped if it was asked to stop. A job that continues later reports its progress."""
        stop = job.stop
        if stop is None or (job.done and not stop.final):
            self._end(job, finished)
            return
        if not stop.final:
            with self.answering(job):
                if (kept := job.keep()) is not None:
                    self._report(job.id, kept)
        if job in self._turns:
            self._end(job, lambda job: stopped(job, stop))

    def _end(self, job: LoadRun, last: Callable[[LoadRun], Report]) -> None:
        """Remove a job and send its last report."""
        self._turns.remove(job)
        report = last(job)
        self._hardware.after_job(job.id)
        self._report(job.id, report)


def finished(job: LoadRun) -> RunFinished:
    """The report after every picture was reported."""
    job.release()
    return RunFinished(receipt=job.meter.receipt())


def failed(job: LoadRun, error: DeviceOpsError) -> RunFailed:
    """The report after an error."""
    # A corrupted context raises even on a wait; the end of its process frees everything.
    with suppress(RuntimeError):
        _free(job)
    return RunFailed(reason=error.reason, message=error.message, facts=dict(error.facts), receipt=job.meter.receipt())


def stopped(job: LoadRun, stop: Stop) -> RunStopped:
    """The report after a request to stop. The latency ends when the device has freed the job's tensors."""
    stage = job.told_stage
    freed = _free(job)
    latency_s = time.perf_counter() - job.stop_asked_at
    return RunStopped(stop=stop, stage=stage, latency_s=latency_s, freed_bytes=freed, receipt=job.meter.receipt())


def _free(job: LoadRun) -> int:
    """Release a job's tensors: the allocator's difference on CUDA, the sum of their sizes elsewhere."""
    if job.device.type == "cuda":
        before = torch.cuda.memory_allocated(job.device)
        job.release()
        return before - torch.cuda.memory_allocated(job.device)
    held = job.held_bytes()
    job.release()
    return held
