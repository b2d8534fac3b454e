"""Drives a step loop and keeps what it reports."""

from collections import defaultdict
from collections.abc import Callable

from domains.inference.on_device import OnDeviceModel, StepLoop
from domains.inference.outcome import ImageReady, Report, RunFailed, RunFinished, RunStopped
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.ways import AS_THE_SERVER_CHOOSES, Ways
from domains.stop import Stop

BRINGS = "brings"
"""Job id of a load before the test begins."""
LAST = (RunFinished, RunFailed, RunStopped)


def bring(loop: StepLoop, model: Model, precision: str = "", ways: Ways = AS_THE_SERVER_CHOOSES) -> OnDeviceModel:
    """Load a model alone. Raises MODEL_NOT_LOADED if it fails."""
    loop.load(BRINGS, model, Execution(precision=precision, ways=ways))
    while loop.tick():
        pass
    return loop.loaded(model.id)


class Recorder:
    """A step loop on the CPU with a model, and all its reports by job."""

    def __init__(
        self, model: Model, device: str = "cpu", precision: str = "", ways: Ways = AS_THE_SERVER_CHOOSES
    ) -> None:
        self.reports: dict[str, list[Report]] = defaultdict(list)
        self.order: list[str] = []
        """Jobs in the order in which they ended."""
        self.on_report: Callable[[str, Report], None] = lambda job_id, report: None
        self.stop_of: Callable[[str], Stop | None] = lambda job_id: None
        """What the step loop asks within a step."""
        self.loop = StepLoop(device, self._take, stop_of=lambda job_id: self.stop_of(job_id))
        self.loaded: OnDeviceModel = bring(self.loop, model, precision, ways)

    def _take(self, job_id: str, report: Report) -> None:
        if job_id == BRINGS:
            return
        self.reports[job_id].append(report)
        if isinstance(report, LAST):
            self.order.append(job_id)
        self.on_report(job_id, report)

    def run(self) -> None:
        """Tick until nothing is left."""
        while self.loop.tick():
            pass

    def last(self, job_id: str) -> Report:
        """The job's end; exactly one, and nothing after it."""
        reports = self.reports[job_id]
        ends = [report for report in reports if isinstance(report, LAST)]
        assert len(ends) == 1, f"{job_id} ended {len(ends)} times"
        assert reports[-1] is ends[0], f"{job_id} went on after its end"
        return ends[0]

    def of(self, job_id: str, kind: type[Report]) -> list[Report]:
        """The job's reports of a kind."""
        return [report for report in self.reports[job_id] if isinstance(report, kind)]

    def files(self, job_id: str) -> list[bytes]:
        """The job's pictures."""
        return [report.data for report in self.reports[job_id] if isinstance(report, ImageReady)]
