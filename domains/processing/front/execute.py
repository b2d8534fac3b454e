"""Computes one small step with a model, as a job of its own on a device, and says what was wrong."""

import msgspec

from domains.errors import DeviceOpsError, ErrorReason
from domains.failure import Failure
from domains.inference.benchmark import benchmark_cases
from domains.inference.fallback import Fallback
from domains.model.benchmark import ModelBenchmark
from domains.model.finding import ModelFinding
from domains.model.model import Model
from domains.model.validation import Validation
from domains.processing.attempts.front_task import FrontTask
from domains.processing.jobs.event import ModelBenchmarkResult
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ModelBenchmarkWork
from domains.processing.jobs.state import JobState
from domains.progress import Stage, StageStarted
from domains.reasons import Severity

_EDGE_PX = 64
_LABEL = "validation"
"""Label of the job, with the validation's id: a server that dies leaves such a job behind."""
_UNDISTURBED = Fallback(allow_eviction=False, allow_other_device=False, max_attempts=0)
"""The job unloads no other models and moves to no other device."""
_LOOK_S = 60.0


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the step."""

    device_id: str = ""
    """Where it was computed. Empty: nowhere."""
    finding: ModelFinding | None = None
    """What was wrong. None: nothing."""


class Execution:
    """Computes for validations."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def of(self, model: Model, asked: Validation, task: FrontTask) -> Executed | None:
        """Load the model on a device, compute, and unload it if it was not there before. None: the task is to stop."""
        measured = ModelBenchmark(
            model_id=model.id,
            execution=asked.execution,
            sizes=((_EDGE_PX, _EDGE_PX),),
            steps=1,
            warmup_runs=0,
            runs=1,
        )
        try:
            work = ModelBenchmarkWork(asked=measured, cases=tuple(benchmark_cases(measured, model)))
        except DeviceOpsError as error:
            return Executed(finding=_finding(Failure.of(error)))
        task.tell(StageStarted(stage=Stage.MEASURING))
        job, _ = self._jobs.submit(work, _options(asked, task.job))
        try:
            if await task.unless_stopped(self._ended(job.id)) is None:
                return None
            return _executed(self._jobs.get(job.id))
        finally:
            await self._remove(job.id)

    async def _ended(self, job_id: str) -> bool:
        journal, seen = self._jobs.live(job_id).journal, 0
        while not self._jobs.get(job_id).state.ended:
            await journal.more(seen, _LOOK_S)
            seen = max((entry.sequence for entry in journal.after(seen)), default=seen)
        return True

    async def _remove(self, job_id: str) -> None:
        """Cancel the job if it runs, and delete it: the validation reports the result."""
        if not self._jobs.get(job_id).state.ended:
            self._jobs.cancel(job_id, "its validation was stopped")
            await self._ended(job_id)
        self._jobs.delete(job_id)


def _options(asked: Validation, parent: Job) -> JobOptions:
    return msgspec.structs.replace(
        parent.options,
        session_id="",
        reservation_id="",
        device_ids=(asked.device_id,) if asked.device_id else parent.options.device_ids,
        labels=((_LABEL, parent.id),),
        fallback=_UNDISTURBED,
    )


def _executed(job: Job) -> Executed:
    failure = job.failure
    if isinstance(job.result, ModelBenchmarkResult):
        failure = next((case.failure for case in job.result.report.cases if case.failure is not None), failure)
    if failure is not None:
        return Executed(device_id=job.device_id, finding=_finding(failure))
    if job.state is JobState.SUCCEEDED:
        return Executed(device_id=job.device_id)
    text = f"the step was not computed: job {job.id} was {job.state}"
    return Executed(finding=ModelFinding(message=text, severity=Severity.WARNING))


def _finding(failure: Failure) -> ModelFinding:
    return ModelFinding(reason=ErrorReason(failure.reason), message=failure.message, field="execution")
