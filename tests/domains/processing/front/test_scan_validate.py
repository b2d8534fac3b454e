"""Work of the front process reports how far it is, and stops when its job is to stop."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from domains.errors import DeviceOpsError, ErrorReason, NotFound
from domains.model.catalogue import Catalogue
from domains.model.finding import ModelFinding
from domains.model.model import Model
from domains.model.roots import Roots
from domains.model.validation import Depth, Validation, ValidationReport
from domains.processing.attempts.front_task import FrontTask
from domains.processing.front.execute import Executed
from domains.processing.front.scan import ScanRunner
from domains.processing.front.validate import ValidateRunner
from domains.processing.jobs.event import ScanResult, ValidationResult
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.kinds import ScanWork, ValidateWork, Work
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.jobs.state import JobState
from domains.processing.memory.estimates import Shape
from domains.progress import Progressed, Stage, StageStarted
from domains.reasons import Severity
from tests.domains.model.folders import age, write_model
from tests.domains.model.headers import write_header, write_published
from tests.domains.processing.dispatch_bench import NO_RUNNERS
from tests.domains.processing.scripted_worker import Floor


class Front(Floor):
    """A server's front process with one root."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        for name in ("one", "two"):
            write_model(self.root / name)
        age(self.root)
        self.told: list[StageStarted | Progressed] = []
        self.cancels = False
        """Whether each job is cancelled as it begins."""
        self.tried: list[str] = []
        """Models that were tried on a device."""
        self.problem: DeviceOpsError | None = None
        """Why no device is found."""
        self.findings: list[ModelFinding] | None = None
        """What speaks against a load on the device. None: nothing is known of it."""
        self.shapes: list[Shape] = []
        """Sizes that were asked about."""
        self.answer: Executed | None = Executed(device_id="sim-0")
        """What a try tells. None: it was stopped."""
        super().__init__(folder, msgspec.structs.replace(NO_RUNNERS, scan=self._scan, validate=self._validate))
        self.catalogue = Catalogue(self.database, Roots([self.root]), "emoji-sd")

    async def _scan(self, work: ScanWork, task: FrontTask) -> Done | Halted:
        return await ScanRunner(self.catalogue).run(work, self._heard(task))

    async def _validate(self, work: ValidateWork, task: FrontTask) -> Done | Halted:
        estimates: Any = SimpleNamespace(of=self._estimates)
        execution: Any = SimpleNamespace(of=self._executed)
        return await ValidateRunner(self.catalogue, estimates, execution).run(work, self._heard(task))

    async def _estimates(
        self, model: object, execution: object, names: object, shape: Shape, *, allow_cpu: bool
    ) -> Any:
        self.shapes.append(shape)
        if self.problem is not None:
            raise self.problem
        return [] if self.findings is None else [SimpleNamespace(findings=lambda: self.findings)]

    async def _executed(self, model: Model, *asked: object) -> Executed | None:
        self.tried.append(model.id)
        return self.answer

    def _heard(self, task: FrontTask) -> FrontTask:
        """The task, whose reports the test hears."""
        tell = task.tell

        def heard(report: StageStarted | Progressed) -> None:
            self.told.append(report)
            tell(report)
            if self.cancels and isinstance(report, StageStarted):
                self.jobs.cancel(task.job.id)

        task.tell = heard
        return task

    async def done(self, work: Work) -> Job:
        """The job at its end."""
        self.told.clear()
        live = self.jobs.live(self.jobs.submit(work, JobOptions())[0].id)
        while not live.job.state.ended:
            await live.journal.more(live.journal.last_sequence, 5.0)
        await self.dispatcher.idle()
        return live.job

    def counts(self) -> list[tuple[float, float | None]]:
        return [(each.completed, each.total) for each in self.told if isinstance(each, Progressed)]


@pytest.fixture
async def front(tmp_path: Path) -> Any:
    front = Front(tmp_path)
    yield front
    await front.close()


async def test_a_scan_reports_its_stage_its_progress_and_what_it_found(front: Front) -> None:
    job = await front.done(ScanWork())
    assert isinstance(job.result, ScanResult)
    assert job.result.report.added == ("one", "two")
    assert front.told[0] == StageStarted(stage=Stage.SCANNING)
    assert front.counts() == [(0, 2), (1, 2), (2, 2)]
    assert job.receipt is not None
    assert [each.stage for each in job.receipt.work.timings] == [Stage.SCANNING]
    assert 0 < job.receipt.work.timings[0].wall_s < 60


async def test_a_scan_looks_only_where_it_is_told(front: Front) -> None:
    job = await front.done(ScanWork(roots=(str(front.root / "one"),)))
    assert isinstance(job.result, ScanResult)
    assert job.result.report.added == ("one",)


async def test_a_validation_reports_its_stage_its_progress_and_its_findings(front: Front) -> None:
    await front.done(ScanWork())
    job = await front.done(ValidateWork(asked=Validation(model_id="one")))
    assert isinstance(job.result, ValidationResult)
    assert job.result.report.valid
    size = job.result.report.read_bytes
    assert front.told[0] == StageStarted(stage=Stage.VERIFYING)
    assert front.counts()[-1] == (size, size)
    assert job.receipt is not None
    assert [each.stage for each in job.receipt.work.timings] == [Stage.VERIFYING]
    assert 0 < job.receipt.work.timings[0].wall_s < 60


async def test_work_that_is_cancelled_as_it_begins_ends_cancelled_and_changes_nothing(front: Front) -> None:
    await front.done(ScanWork())
    before = front.catalogue.list()
    write_model(front.root / "three")
    front.cancels = True
    for work in (ScanWork(), ValidateWork(asked=Validation(model_id="one"))):
        assert (await front.done(work)).state is JobState.CANCELLED
        assert front.catalogue.list() == before


async def test_a_whole_model_is_tried_on_a_device_and_a_damaged_one_is_not(front: Front) -> None:
    await front.done(ScanWork())
    asked = Validation(model_id="one", depth=Depth.EXECUTE)
    whole = await report(front, asked)
    assert (whole.valid, whole.depth, whole.device_id) == (True, Depth.EXECUTE, "sim-0")
    front.problem = NotFound("there is no such device", ErrorReason.DEVICE_NOT_FOUND)
    absent = await report(front, msgspec.structs.replace(asked, device_id="sim-9"))
    assert (absent.valid, absent.device_id) == (False, "")
    assert [one.message for one in absent.findings] == ["there is no such device"]
    for file in (front.root / "one").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    damaged = await report(front, asked)
    assert (damaged.valid, damaged.device_id) == (False, "")
    assert front.tried == ["one"], "only the whole model"


async def report(front: Front, asked: Validation) -> ValidationReport:
    job = await front.done(ValidateWork(asked=asked))
    assert isinstance(job.result, ValidationResult)
    return job.result.report


async def test_a_device_is_asked_about_models_that_it_can_load_alone(front: Front) -> None:
    await front.done(ScanWork())
    asked = Validation(model_id="one", device_id="sim-0")
    quiet = await report(front, asked)
    assert [(one.severity, one.field) for one in quiet.findings] == [(Severity.WARNING, "device_id")]
    assert quiet.findings[0].message == "sim-0 takes no work now, so that nothing was found out about it"
    front.findings = [ModelFinding(reason=ErrorReason.DEVICE_OUT_OF_MEMORY, message="it lacks 1 B")]
    lacking = await report(front, asked)
    assert [(one.reason, one.message, one.field) for one in lacking.findings] == [
        (ErrorReason.DEVICE_OUT_OF_MEMORY, "it lacks 1 B", "device_id")
    ]
    assert front.shapes[-1] == Shape(width_px=512, height_px=512)
    write_published(front.root / "vae.safetensors", "sd_ldm_vae")
    await front.done(ScanWork())
    part = await report(front, Validation(model_id="vae", device_id="sim-0", depth=Depth.HEADER))
    assert [one.field for one in part.findings if "device" in one.field] == []
    assert len(front.shapes) == 2


async def test_what_computes_nothing_by_itself_is_not_tried(front: Front) -> None:
    adapter = {"lora_unet_mid_block_x.lora_down.weight": (4, 8), "lora_unet_mid_block_x.lora_up.weight": (8, 4)}
    write_header(front.root / "style.safetensors", adapter)
    await front.done(ScanWork())
    found = await report(front, Validation(model_id="style", depth=Depth.EXECUTE))
    assert (found.valid, found.depth, found.device_id, front.tried) == (True, Depth.VALUES, "", [])
    assert [one.message for one in found.findings if one.severity is Severity.INFO][-1] == (
        "a lora computes nothing by itself; its files were checked"
    )


async def test_a_try_that_finds_no_device_keeps_the_depth_of_the_files(front: Front) -> None:
    await front.done(ScanWork())
    front.answer = Executed(finding=ModelFinding(severity=Severity.WARNING, message="no device"))
    told = await report(front, Validation(model_id="one", depth=Depth.EXECUTE))
    assert (told.depth, told.device_id, [one.message for one in told.findings]) == (Depth.VALUES, "", ["no device"])


async def test_a_try_that_is_stopped_tells_nothing(front: Front) -> None:
    await front.done(ScanWork())
    front.answer = None
    estimates: Any = SimpleNamespace(of=front._estimates)  # pyright: ignore[reportPrivateUsage]
    execution: Any = SimpleNamespace(of=front._executed)  # pyright: ignore[reportPrivateUsage]
    task: Any = SimpleNamespace(tell=lambda report: None, is_stopping=lambda: False)  # pyright: ignore[reportUnknownLambdaType]
    runner = ValidateRunner(front.catalogue, estimates, execution)
    work = ValidateWork(asked=Validation(model_id="one", depth=Depth.EXECUTE))
    assert isinstance(await runner.run(work, task), Halted)
    assert front.tried == ["one"]
