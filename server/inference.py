"""InferenceService: generation, and what can be generated where."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from deviceops.common.v1 import field_capability_pb2, image_pb2
from deviceops.inference.v1 import capability_pb2, inference_service_pb2, resolved_generation_pb2
from domains.device.devices import Devices
from domains.inference import limits
from domains.inference.schedulers import SCHEDULERS, Scheduler
from domains.limits import INLINE_BYTES
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModels
from domains.model.model import Model, ModelState
from domains.processing.submit import Submissions
from server import convert
from server.generation_messages import from_generation, served_fields
from server.watch import door

Context = grpc.aio.ServicerContext[Any, Any]

CONTRACT_VERSION = "1.0.0"

_RANGES: dict[str, tuple[float, float]] = {
    "width_px": limits.EDGE_PX,
    "height_px": limits.EDGE_PX,
    "image_count": limits.IMAGES,
    "sampling.steps": limits.STEPS,
    "sampling.guidance_scale": limits.GUIDANCE,
    "sampling.seed": limits.SEED,
    "sampling.eta": limits.ETA,
}


class InferenceServicer:
    """Makes pictures."""

    def __init__(
        self,
        submissions: Submissions,
        catalogue: Catalogue,
        loaded: LoadedModels,
        devices: Devices,
        jobs_per_device: int,
    ) -> None:
        self._submissions = submissions
        self._catalogue = catalogue
        self._loaded = loaded
        self._devices = devices
        self._jobs_per_device = jobs_per_device

    def Generate(  # yields the bytes of its responses, see `register`
        self, request: inference_service_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Submit and follow in one call."""
        asked, options = convert.both(
            lambda: from_generation(request.generation), lambda: convert.from_options(request.options)
        )
        job = self._submissions.generate(
            asked,
            options,
            request_id=request.request_id,
            detached=request.detached,
            must_be_loaded=request.generation.require_loaded_model,
        )
        return door(self._submissions, job.id, context, detached=request.detached)

    async def GetInferenceCapabilities(
        self, request: inference_service_pb2.GetInferenceCapabilitiesRequest, context: Context
    ) -> inference_service_pb2.GetInferenceCapabilitiesResponse:
        """What can run where, from the devices and models that there are."""
        models = [self._catalogue.get(request.model_id)] if request.model_id else self._catalogue.list()
        usable = [model for model in models if model.state is ModelState.AVAILABLE]
        wanted = [self._devices.get(name).device.id for name in request.device_ids]
        probed = [view for view in self._devices.list() if view.device.probe_time_s]
        views = [view for view in probed if not wanted or view.device.id in wanted]
        answer = inference_service_pb2.GetInferenceCapabilitiesResponse(
            capabilities=[
                self._capability(view.device.id, family, view.device.precisions)
                for view in views
                for family in sorted({model.family for model in usable})
            ],
            schedulers=[to_scheduler(scheduler) for scheduler in SCHEDULERS.values()],
            models=[self._model(model, request.include_known_prompts) for model in usable],
            limits=_limits(),
            output_media_types=limits.MEDIA_TYPES,
            contract_version=CONTRACT_VERSION,
        )
        answer.etag = hashlib.sha256(answer.SerializeToString(deterministic=True)).hexdigest()[:16]
        if request.known_etag == answer.etag:
            return inference_service_pb2.GetInferenceCapabilitiesResponse(etag=answer.etag, unchanged=True)
        return answer

    def _capability(
        self, device_id: str, family: str, precisions: tuple[str, ...]
    ) -> capability_pb2.GenerationCapability:
        return capability_pb2.GenerationCapability(
            device_id=device_id,
            family=family,
            task=resolved_generation_pb2.GENERATION_TASK_TEXT_TO_IMAGE,
            precisions=[convert.PRECISIONS[word] for word in precisions],
            fields=[_field(path) for path in served_fields()],
            schedulers=list(SCHEDULERS),
            batch_size=limits.IMAGES[1],
            max_concurrent_jobs=self._jobs_per_device,
            prompt_window_tokens=_CLIP_WINDOW_TOKENS,
        )

    def _model(self, model: Model, with_prompts: bool) -> capability_pb2.GenerationModel:
        scheduler = model.default_scheduler or next(iter(SCHEDULERS))
        return capability_pb2.GenerationModel(
            model_id=model.id,
            display_name=model.display_name,
            family=model.family,
            ready_device_ids=[one.device_id for one in self._loaded.list() if one.model_id == model.id],
            is_default=model.id == self._catalogue.default().id,
            native_size=image_pb2.ImageSize(width_px=model.native_width_px, height_px=model.native_height_px)
            if model.native_width_px
            else None,
            default_scheduler=scheduler,
            default_steps=SCHEDULERS[scheduler].recommended_steps,
            default_guidance_scale=limits.DEFAULT_GUIDANCE,
            known_prompts=model.known_prompts if with_prompts else (),
        )


_CLIP_WINDOW_TOKENS = 77
"""CLIP's context (Radford et al. 2021), its two markers included."""


def to_scheduler(scheduler: Scheduler) -> capability_pb2.SchedulerInfo:
    """One line of the table."""
    able = (("sampling.karras_sigmas", scheduler.karras, "false"), ("sampling.eta", scheduler.eta, "0"))
    return capability_pb2.SchedulerInfo(
        id=scheduler.id,
        display_name=scheduler.display_name,
        recommended_steps=scheduler.recommended_steps,
        options=[capability_pb2.SchedulerOption(field=field, default_value=value) for field, on, value in able if on],
        families=["sd1"],
        stochastic=scheduler.stochastic,
    )


def _field(path: str) -> field_capability_pb2.FieldCapability:
    field = field_capability_pb2.FieldCapability(field=f"generation.{path}")
    if path in _RANGES:
        field.minimum, field.maximum = _RANGES[path]
    if path in ("width_px", "height_px"):
        field.multiple_of = limits.EDGE_MULTIPLE_PX
    if path == "sampling.scheduler":
        field.allowed_values.extend(SCHEDULERS)
    return field


def _limits() -> capability_pb2.GenerationLimits:
    return capability_pb2.GenerationLimits(
        min_edge_px=limits.EDGE_PX[0],
        max_edge_px=limits.EDGE_PX[1],
        edge_multiple_px=limits.EDGE_MULTIPLE_PX,
        max_area_px=limits.AREA_PX,
        max_steps=limits.STEPS[1],
        max_image_count=limits.IMAGES[1],
        max_prompt_bytes=limits.PROMPT_BYTES,
        max_inline_bytes=INLINE_BYTES,
    )
