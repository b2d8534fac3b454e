"""Measures a model: loads and runs that the step loop carries out one after the other, alone on the device.

A benchmark is done in parts, so that the worker reads its commands between two units of work as for any job. It leaves the
device as it was: a model that was not there is unloaded at the end, also after a failure or a request to stop.
"""

import time
from collections.abc import Callable, Generator
from contextlib import suppress

from domains.errors import DeviceOpsError, ErrorReason
from domains.failure import Failure
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.on_device import StepLoop
from domains.inference.outcome import ModelLoaded, ModelUnloaded, RunFailed, RunFinished, RunStopped
from domains.measurement import LatencySummary
from domains.model.benchmark import BenchmarkCase, ModelBenchmarkReport
from domains.model.execution import AS_USUAL
from domains.model.loaded import LoadedModel
from domains.model.model import Model
from domains.processing.on_device.served_device import ServedDevice
from domains.processing.workers.worker import ModelBenchmarked, ModelBenchmarkOrder, Report
from domains.progress import Progressed, Receipt, Stage, StageStarted, StageTiming, Unit
from domains.stop import Stop, stronger

_UNSTEADY = 1.25
"""Ratio of the longest to the shortest run above which a case gets a warning."""

Last = RunFinished | RunFailed | RunStopped
Parts = Generator[Callable[[], None], None, ModelBenchmarkReport]
"""Yields the function that begins each part; resumes when the part has ended."""


class PartEnded(Exception):
    """A part ended the whole benchmark."""

    def __init__(self, last: RunFailed | RunStopped) -> None:
        super().__init__()
        self.last = last


class ModelBench:
    """One benchmark. Its parts have one id after the other: a load or a run of the step loop."""

    def __init__(
        self,
        order: ModelBenchmarkOrder,
        model: Model,
        steps: StepLoop,
        served: ServedDevice,
        tell: Callable[[Report], None],
    ) -> None:
        """`model`: with its place on this machine. `tell` sends a report of the order."""
        self._order = order
        self._model = model
        self._steps = steps
        self._served = served
        self._tell = tell
        self.part_id = ""
        """Id of the part that runs. Empty: none does."""
        self._count = 0
        self._stop: Stop | None = None
        self._stop_asked_s = 0.0
        self._begin_s = time.perf_counter()
        self._start_time_s = time.time()
        self._loaded: LoadedModel | None = None
        self._last: Last | None = None
        self._marks: list[float] = []
        """Ends of the part's denoising steps."""
        self._steps_done = self._steps_before = 0
        self._was_there = model.id in steps.resources.model_bytes()
        self._parts = self._measure()

    @property
    def _total(self) -> int:
        runs = self._order.asked.warmup_runs + self._order.asked.runs
        return runs * sum(case.steps for case in self._order.cases)

    def stop(self, stop: Stop) -> None:
        """End at the next safe point."""
        if self._stop is None:
            self._stop_asked_s = time.perf_counter()
        self._stop = stronger(self._stop, stop)
        self._steps.stop(self.part_id, stop)

    def take(self, report: Report) -> None:
        """A report of the part that runs."""
        match report:
            case Progressed(stage=Stage.DENOISING):
                if report.completed > len(self._marks) - 1:
                    self._marks.append(time.perf_counter())
                self._progress(report.completed)
            case StageStarted(stage=Stage.DENOISING) if self._marks:
                # Between two steps the denoiser was compiled.
                self._marks[-1] = time.perf_counter()
            case Progressed(stage=Stage.LOADING) | StageStarted(stage=Stage.LOADING):
                self._tell(report)
            case Progressed():
                self._progress(len(self._marks) - 1)
            case ModelLoaded():
                # Each run reports its model, even if the model was loaded before; only the first report is passed on.
                if self._loaded is None:
                    self._tell(report)
                self._loaded = report.loaded
            case ModelUnloaded():
                self._tell(report)
            case RunFinished() | RunFailed() | RunStopped():
                self._last, self.part_id = report, ""
            case _:
                # Pictures and previews are made, and not kept.
                pass

    def advance(self) -> Last | None:
        """Begin the next part if none runs. Returns the order's last report when there is none left."""
        if self.part_id:
            return None
        try:
            if self._stop is not None:
                raise PartEnded(self._stopped(self._stop))
            begin = next(self._parts)
            self._count += 1
            self.part_id, self._marks = f"{self._order.order_id}/{self._count}", []
            begin()
        except StopIteration as end:
            self._tell(ModelBenchmarked(report=end.value))
            return self._ended(RunFinished(receipt=self._receipt()))
        except PartEnded as ended:
            return self._ended(ended.last)
        except DeviceOpsError as error:
            facts = {name: str(value) for name, value in error.facts.items()}
            return self._ended(
                RunFailed(reason=str(error.reason), message=error.message, facts=facts, receipt=self._receipt())
            )
        return None

    def _ended(self, last: Last) -> Last:
        self.part_id = ""
        self._parts.close()
        self._steps.resources.forget_prompts()
        if not self._was_there:
            self._unload()
        if isinstance(last, RunStopped):
            return RunStopped(
                stop=self._stop or last.stop,
                stage=Stage.MEASURING,
                # The request may end a part before the command itself is read.
                latency_s=time.perf_counter() - self._stop_asked_s if self._stop else last.latency_s,
                freed_bytes=last.freed_bytes,
                receipt=self._receipt(),
            )
        return last

    def _stopped(self, stop: Stop) -> RunStopped:
        return RunStopped(stop=stop, stage=Stage.MEASURING, latency_s=0.0, receipt=self._receipt())

    def _receipt(self) -> Receipt:
        timing = StageTiming(stage=Stage.MEASURING, wall_s=time.perf_counter() - self._begin_s)
        return Receipt(timings=(timing,), steps_executed=self._steps_done)

    def _progress(self, completed: int) -> None:
        self._steps_done = self._steps_before + max(0, completed)
        total = self._total
        self._tell(Progressed(stage=Stage.MEASURING, completed=self._steps_done, total=total, unit=Unit.STEPS))

    def _measure(self) -> Parts:
        asked, cases = self._order.asked, list[BenchmarkCase]()
        loads: list[float] = []
        if asked.load_runs and self._was_there:
            message = f"model {self._model.id} is loaded, and loading is to be measured; unload it first"
            raise PartEnded(self._refused(message))
        for _ in range(asked.load_runs):
            self._unload()
            self._steps.resources.forget_host_copies()
            loads.append((yield from self._load()))
        yield from self._load()
        self._tell(StageStarted(stage=Stage.MEASURING))
        for case in self._order.cases:
            cases.append((yield from self._case(case)))
        about = self._served.value
        loaded = self._loaded
        return ModelBenchmarkReport(
            model_id=self._model.id,
            model_sha256=self._model.sha256 if loaded is None else loaded.model_sha256,
            device_id=about.id,
            sampler=self._order.cases[0].sampler if self._order.cases else "",
            precisions=tuple((part.id, part.precision) for part in loaded.components) if loaded else (),
            way=loaded.way if loaded else AS_USUAL,
            cases=tuple(cases),
            load=LatencySummary.of(loads),
            warnings=tuple(filter(None, map(_unsteady, cases))),
            device_name=about.display_name,
            driver_version=about.driver_version,
            libraries=about.libraries,
            start_time_s=self._start_time_s,
            duration_s=time.perf_counter() - self._begin_s,
        )

    def _refused(self, message: str) -> RunFailed:
        return RunFailed(
            reason=str(ErrorReason.ILLEGAL_STATE),
            message=message,
            facts={"model_id": self._model.id},
            receipt=self._receipt(),
        )

    def _load(self) -> Generator[Callable[[], None], None, float]:
        """Load the model, unless it is there; returns the seconds."""
        begin = time.perf_counter()
        yield lambda: self._steps.load(self.part_id, self._model, self._order.asked.execution)
        self._check()
        return time.perf_counter() - begin

    def _case(self, case: ResolvedGeneration) -> Generator[Callable[[], None], None, BenchmarkCase]:
        runs: list[float] = []
        steps: list[float] = []
        peak: int | None = None
        failure: Failure | None = None
        for index in range(self._order.asked.warmup_runs + self._order.asked.runs):
            # The first stage of a run is to encode its prompt.
            self._steps.resources.forget_prompts()
            begin = time.perf_counter()
            yield lambda: self._steps.submit(self.part_id, Given(self._model, case))
            if (failure := self._failure()) is not None:
                break
            self._steps_before += case.steps
            if index < self._order.asked.warmup_runs:
                continue
            runs.append(time.perf_counter() - begin)
            steps += [later - earlier for earlier, later in zip(self._marks, self._marks[1:], strict=False)]
            assert isinstance(self._last, RunFinished)
            peak = _larger(peak, self._last.receipt.peak_device_bytes)
        return BenchmarkCase(
            width_px=case.width_px,
            height_px=case.height_px,
            images=len(case.seeds),
            steps=case.steps,
            run=None if failure else LatencySummary.of(runs),
            step=None if failure else LatencySummary.of(steps),
            peak_device_bytes=None if failure else peak,
            failure=failure,
        )

    def _failure(self) -> Failure | None:
        """Why the last run failed. None: it did not. Raises `PartEnded` if the benchmark cannot go on."""
        if isinstance(self._last, RunFailed) and self._last.reason != ErrorReason.DRIVER_ERROR:
            reason = ErrorReason(self._last.reason)
            return Failure(reason=reason, message=self._last.message, facts=dict(self._last.facts))
        self._check()
        return None

    def _check(self) -> None:
        if isinstance(self._last, RunFailed | RunStopped):
            raise PartEnded(self._last)

    def _unload(self) -> None:
        """Take the model off the device, if it is there."""
        # A driver that failed may refuse even that; the worker then ends.
        with suppress(DeviceOpsError):
            if self._model.id in self._steps.resources.model_bytes():
                freed = self._steps.unload(self._model.id)
                self._loaded = None
                self._tell(ModelUnloaded(model_id=self._model.id, freed_bytes=freed))


def _larger(one: int | None, other: int | None) -> int | None:
    return max((size for size in (one, other) if size is not None), default=None)


def _unsteady(case: BenchmarkCase) -> str:
    """A warning about a case whose runs took unequal times. Empty: none."""
    run = case.run
    if run is None or run.longest_s <= run.shortest_s * _UNSTEADY:
        return ""
    size = f"{case.width_px}×{case.height_px}, {case.images} at once"
    return f"{size}: the runs took {run.shortest_s:.3g} to {run.longest_s:.3g} s; something else used the device"
