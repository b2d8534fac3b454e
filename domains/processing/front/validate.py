"""A validation of a model's files."""

import asyncio
import time

from msgspec.structs import replace

from domains.errors import DeviceOpsError, ErrorReason
from domains.model.base_fit import base_findings
from domains.model.catalogue import Catalogue
from domains.model.finding import ModelFinding
from domains.model.fingerprint import HashCancelled
from domains.model.kind import ModelKind
from domains.model.validation import Depth, Validation, ValidationReport, with_findings
from domains.processing.attempts.front_task import FrontTask
from domains.processing.front.execute import Execution
from domains.processing.jobs.event import ValidationResult
from domains.processing.jobs.kinds import ValidateWork
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.memory.estimates import Estimates, Shape
from domains.progress import Progressed, Stage, StageStarted
from domains.reasons import Severity

_DEVICE = "device_id"
_LEAST_PX = 64
_LOADED = (ModelKind.CHECKPOINT, ModelKind.REFINER)


class ValidateRunner:
    """Carries out validations."""

    def __init__(self, catalogue: Catalogue, estimates: Estimates, execution: Execution) -> None:
        self._catalogue = catalogue
        self._estimates = estimates
        self._execution = execution

    async def run(self, work: ValidateWork, task: FrontTask) -> Done | Halted:
        """Validate until the end or a request to stop, which changes nothing."""
        loop = asyncio.get_running_loop()

        def tell(report: Progressed) -> None:
            loop.call_soon_threadsafe(task.tell, report)

        task.tell(StageStarted(stage=Stage.VERIFYING))
        begin = time.monotonic()
        try:
            report = await self._catalogue.validate(_of_files(work.asked), tell, task.is_stopping)
        except HashCancelled:
            return Halted()
        report = with_findings(report, [*self._of_base(work, report), *await self._of_device(work, report)])
        if work.asked.depth is Depth.EXECUTE:
            executed = await self._executed(work, report, task)
            if executed is None:
                return Halted()
            report = executed
        return Done.in_one_stage(ValidationResult(report=report), Stage.VERIFYING, time.monotonic() - begin)

    async def _executed(self, work: ValidateWork, report: ValidationReport, task: FrontTask) -> ValidationReport | None:
        """The report with what one step on a device has shown. None: the task is to stop."""
        model = report.model
        if not report.valid or model.fault is not None:
            return report  # Nothing else is to be expected of it.
        if model.kind is not ModelKind.CHECKPOINT:
            text = f"a {model.kind} computes nothing by itself; its files were checked"
            return with_findings(report, [ModelFinding(severity=Severity.INFO, message=text)])
        executed = await self._execution.of(model, work.asked, task)
        if executed is None:
            return None
        report = with_findings(report, [] if executed.finding is None else [executed.finding])
        depth = Depth.EXECUTE if executed.device_id else report.depth
        return replace(report, depth=depth, device_id=executed.device_id)

    def _of_base(self, work: ValidateWork, report: ValidationReport) -> list[ModelFinding]:
        base = self._catalogue.find(work.asked.base_model_id) if work.asked.base_model_id else None
        return [] if base is None else list(base_findings(report.model, base))

    async def _of_device(self, work: ValidateWork, report: ValidationReport) -> list[ModelFinding]:
        """Reasons against a load on the device. Empty for a model that no device can load: the report says so already."""
        asked, model = work.asked, report.model
        if not asked.device_id or model.fault is not None or model.kind not in _LOADED:
            return []
        shape = Shape(width_px=model.native_width_px or _LEAST_PX, height_px=model.native_height_px or _LEAST_PX)
        try:
            found = await self._estimates.of(model, asked.execution, [asked.device_id], shape, allow_cpu=True)
        except DeviceOpsError as error:
            return [ModelFinding(reason=ErrorReason(error.reason), message=error.message, field=_DEVICE)]
        if not found:
            text = f"{asked.device_id} takes no work now, so that nothing was found out about it"
            return [ModelFinding(severity=Severity.WARNING, message=text, field=_DEVICE)]
        return [replace(one, field=_DEVICE) for one in found[0].findings()]


def _of_files(asked: Validation) -> Validation:
    """The validation, with its depth limited to what the files alone can show."""
    return replace(asked, depth=min(asked.depth, Depth.VALUES))
