"""InferenceService: PlanGeneration."""

from collections.abc import Iterator
from typing import Any

import grpc

from deviceops.common.v1 import error_pb2
from deviceops.inference.v1 import generation_plan_pb2, inference_service_pb2
from domains.amounts import bytes_told
from domains.errors import DeviceOpsError, ErrorReason
from domains.inference.checks.details import path_of
from domains.inference.checks.request import Checked
from domains.inference.pass_plan import redraws_of
from domains.inference.prompt_plan import prompt_plan
from domains.model.ways import AS_THE_SERVER_CHOOSES
from domains.processing.jobs.event import GenerationResult
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.memory.generation_plan import GenerationForecast, GenerationPlans
from domains.processing.submit import Submissions
from server import convert
from server.inference.generation_messages import from_generation, to_resolved
from server.scrub import scrubbed

Context = grpc.aio.ServicerContext[Any, Any]
_EVICTIONS = 256


class PlanMethods:
    """The method for plans."""

    def __init__(self, submissions: Submissions, plans: GenerationPlans) -> None:
        self._submissions = submissions
        self._plans = plans

    async def PlanGeneration(
        self, request: inference_service_pb2.PlanGenerationRequest, context: Context
    ) -> inference_service_pb2.PlanGenerationResponse:
        """Say what Generate would do with the request, and do nothing."""
        errors: list[DeviceOpsError] = []
        generation, options = _read(request, errors)
        work = None if generation is None else await self._work(request, generation, options or JobOptions(), errors)
        if errors or work is None or options is None:
            findings = [finding for error in errors for finding in convert.to_findings(error)]
            return inference_service_pb2.PlanGenerationResponse(findings=findings)
        forecast = await self._plans.of(work.resolved, options)
        device = None if forecast is None else forecast.estimate.device
        precisions = (
            () if forecast is None else tuple((one.component, one.precision) for one in forecast.estimate.parts)
        )
        result = GenerationResult(
            images=(),
            resolved=work.resolved,
            precisions=precisions,
            quantization=forecast.estimate.execution.quantization if forecast else "",
            offload=forecast.estimate.execution.offload if forecast else "",
            offload_budget_bytes=forecast.estimate.execution.offload_budget_bytes if forecast else 0,
            ways=forecast.estimate.execution.ways if forecast else AS_THE_SERVER_CHOOSES,
            libraries=device.libraries if device else (),
        )
        return inference_service_pb2.PlanGenerationResponse(
            resolved=to_resolved(result, device.id if device else ""),
            findings=[*_worth_knowing(forecast), *_without_effect(work), *_finds(work)],
            estimate=None if forecast is None else to_estimate(work, forecast),
        )

    async def _work(
        self,
        request: inference_service_pb2.PlanGenerationRequest,
        generation: Checked,
        options: JobOptions,
        errors: list[DeviceOpsError],
    ) -> GenerateWork | None:
        """The work that the request would submit. None: it would be refused, and the error is added to `errors`."""
        loaded = request.generation.require_loaded_model
        try:
            job = await self._submissions.submit_generation(
                generation, options, must_be_loaded=loaded, validate_only=True
            )
        except DeviceOpsError as error:
            errors.append(error)
            return None
        return job.work if isinstance(job.work, GenerateWork) else None


def _without_effect(work: GenerateWork) -> Iterator[error_pb2.Finding]:
    """Parts of the prompts that change nothing."""
    for one in prompt_plan(work.resolved).beyond:
        yield error_pb2.Finding(
            severity=error_pb2.SEVERITY_WARNING,
            reason=convert.to_reason(ErrorReason.INVALID_FIELD),
            field=one.field,
            message=scrubbed(one.message),
        )


def _finds(work: GenerateWork) -> Iterator[error_pb2.Finding]:
    """How many steps detail passes can add: how many they do, the pictures alone tell."""
    resolved = work.resolved
    for place, (one, detail) in enumerate(zip(redraws_of(resolved), resolved.detail_passes, strict=True)):
        count, pictures, steps = detail.wanted.max_count, len(resolved.seeds), one.computed_steps
        size = f"{detail.width_px}×{detail.height_px} px"
        text = f"makes up to {count} finds a picture anew, each in {steps} steps of {size}: up to"
        yield error_pb2.Finding(
            severity=error_pb2.SEVERITY_INFO,
            field=path_of(place),
            message=f"{text} {count * pictures * steps} steps more; how many, the pictures tell",
        )


def _read(
    request: inference_service_pb2.PlanGenerationRequest, errors: list[DeviceOpsError]
) -> tuple[Checked | None, JobOptions | None]:
    """Both parts of a request. A part that is wrong is None, and its error is added to `errors`."""
    generation: Checked | None = None
    options: JobOptions | None = None
    try:
        generation = from_generation(request.generation)
    except DeviceOpsError as error:
        errors.append(error)
    try:
        options = convert.from_options(request.options)
    except DeviceOpsError as error:
        errors.append(error)
    return generation, options


def to_estimate(work: GenerateWork, forecast: GenerationForecast) -> generation_plan_pb2.GenerationEstimate:
    """The message of a forecast."""
    estimate, run = forecast.estimate, forecast.run
    load = generation_plan_pb2.GenerationLoad(
        model_id=work.resolved.runs_as, device_bytes=estimate.weights_bytes, load_time=_time(estimate.load_s)
    )
    return generation_plan_pb2.GenerationEstimate(
        device_id=estimate.device.id,
        peak_device_bytes=forecast.peak_bytes,
        available_device_bytes=estimate.available_bytes,
        queue_time=_time(0.0 if forecast.starts_at_once else None),
        load_time=_time(estimate.load_s),
        run_time=_time(run.run_s),
        run_time_low=_time(run.low_s),
        run_time_high=_time(run.high_s),
        # The request's own pictures: how many jobs will share a batch depends on what else runs then.
        batch_size=len(work.resolved.seeds),
        sample_count=run.sample_count,
        loads=[*([load] if estimate.weights_bytes else []), *_later(forecast)],
        evictions=[
            generation_plan_pb2.GenerationEviction(loaded_model_id=name, freed_bytes=size)
            for name, size in estimate.evictions[:_EVICTIONS]
        ],
    )


def _later(forecast: GenerationForecast) -> Iterator[generation_plan_pb2.GenerationLoad]:
    """The loads of models of later passes that are not on the device."""
    for model_id, size in forecast.later_bytes:
        if size:
            yield generation_plan_pb2.GenerationLoad(model_id=model_id, device_bytes=size)


def _time(seconds: float | None) -> Any:
    return None if seconds is None else convert.to_duration(seconds)


def _worth_knowing(forecast: GenerationForecast | None) -> Iterator[error_pb2.Finding]:
    """Findings that do not stop the request."""
    warning, info = error_pb2.SEVERITY_WARNING, error_pb2.SEVERITY_INFO
    if forecast is None:
        text = "no device that may run it takes work now; it would wait"
        yield error_pb2.Finding(severity=warning, message=text)
        return
    estimate, device_id = forecast.estimate, forecast.estimate.device.id
    if estimate.shortfall_bytes:
        reason = ErrorReason.HOST_OUT_OF_MEMORY if device_id == "cpu" else ErrorReason.DEVICE_OUT_OF_MEMORY
        text = f"{device_id} lacks {bytes_told(estimate.shortfall_bytes)}, although all unused models were unloaded"
        yield error_pb2.Finding(severity=warning, reason=convert.to_reason(reason), message=text)
    if text := estimate.execution.told_offload(device_id):
        yield error_pb2.Finding(severity=warning, message=text)
    if forecast.peak_bytes is None:
        text = f"the peak of memory cannot be predicted yet: no generation of this model was measured on {device_id}"
        yield error_pb2.Finding(severity=info, message=text)
    if forecast.run.run_s is None:
        at_least = " of this size" if forecast.run.low_s is not None else ""
        text = f"the time cannot be predicted yet: no generation{at_least} of this model was measured on {device_id}"
        yield error_pb2.Finding(severity=info, message=text)
