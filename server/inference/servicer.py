"""InferenceService: generation and its capabilities."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc

from deviceops.common.v1 import field_capability_pb2, image_pb2
from deviceops.inference.v1 import capability_pb2, inference_service_pb2
from domains.device.devices import Devices
from domains.device.record import DeviceView
from domains.inference import limits
from domains.inference.control_types import control_types_of
from domains.inference.family_fields import Task, fields_of, tasks_of
from domains.inference.fields import Field
from domains.inference.guidance import default_guidance
from domains.inference.resolution.resolve import recommended_steps
from domains.inference.samplers import (
    SAMPLERS,
    SIGMA_SCHEDULES,
    SamplerEntry,
    sampler_of,
    schedule_of,
    schedules_for,
    schedules_of,
    walkers_of,
)
from domains.limits import CAPABLE_MODELS, INLINE_BYTES, REQUEST_INLINE_BYTES
from domains.model.catalogue import Catalogue
from domains.model.device_fit import compiles, kernels_of
from domains.model.families import COMPUTED, CONTROLLED, FAMILIES
from domains.model.kind import ModelKind
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model, ModelState
from domains.processing.conditioning_preview import ConditioningPreviews
from domains.processing.jobs.job import Job
from domains.processing.memory.generation_plan import GenerationPlans
from domains.processing.reproduction import Reproducing
from domains.processing.submit import Submissions
from domains.requests import Asked
from server import convert
from server.heartbeat import Followed
from server.inference.conditioning_preview import ConditioningMethods
from server.inference.control_messages import to_preprocessors
from server.inference.generation_messages import from_generation
from server.inference.plan import PlanMethods
from server.inference.reproduction_messages import from_reproduction
from server.model.quantization_messages import to_quantizations
from server.model.way_messages import to_compile, to_kernels
from server.processing.watch import submit_later_and_follow

Context = grpc.aio.ServicerContext[Any, Any]

CONTRACT_VERSION = "1.0.0"


class InferenceServicer(PlanMethods, ConditioningMethods):
    """Implements InferenceService."""

    def __init__(
        self,
        submissions: Submissions,
        catalogue: Catalogue,
        loaded: LoadedModels,
        devices: Devices,
        plans: GenerationPlans,
        conditioning: ConditioningPreviews,
        reproducing: Reproducing,
    ) -> None:
        self._reproducing = reproducing
        PlanMethods.__init__(self, submissions, plans)
        ConditioningMethods.__init__(self, conditioning)
        self._submissions = submissions
        self._catalogue = catalogue
        self._loaded = loaded
        self._devices = devices

    async def Generate(  # yields the bytes of its responses, see `register`
        self, request: inference_service_pb2.GenerateRequest, context: Context
    ) -> Followed[bytes]:
        """Submit a generation and follow its job."""

        async def submit(asked: Asked) -> Job:
            generation, options = convert.both(
                lambda: from_generation(request.generation), lambda: convert.from_options(request.options)
            )
            loaded = request.generation.require_loaded_model
            return await self._submissions.submit_generation(
                generation, options, asked, detached=request.detached, must_be_loaded=loaded
            )

        return await submit_later_and_follow(self._submissions, request, context, submit)

    async def ReproduceImage(  # yields the bytes of its responses, see `register`
        self, request: inference_service_pb2.ReproduceImageRequest, context: Context
    ) -> Followed[bytes]:
        """Make a picture again from its file, and follow the job."""

        async def submit(asked: Asked) -> Job:
            reproduction, options = convert.both(
                lambda: from_reproduction(request.reproduction), lambda: convert.from_options(request.options)
            )
            return await self._reproducing.submit(reproduction, options, asked, detached=request.detached)

        return await submit_later_and_follow(self._submissions, request, context, submit)

    async def GetInferenceCapabilities(
        self, request: inference_service_pb2.GetInferenceCapabilitiesRequest, context: Context
    ) -> inference_service_pb2.GetInferenceCapabilitiesResponse:
        """Return the capabilities of the probed devices and the available models."""
        models = [self._catalogue.get(request.model_id)] if request.model_id else self._catalogue.list()
        able = [model for model in models if model.state is ModelState.AVAILABLE]
        usable = [model for model in able if model.kind is ModelKind.CHECKPOINT]
        wanted = {self._devices.get(name).device.id for name in request.device_ids}
        probed = [view for view in self._devices.list() if view.device.probe_time_s]
        views = [view for view in probed if not wanted or view.device.id in wanted]
        answer = inference_service_pb2.GetInferenceCapabilitiesResponse(
            capabilities=[
                _capability(device_ids, family, computing, task)
                for computing, device_ids in _alike(views).items()
                for family in sorted({model.family for model in usable})
                for task in tasks_of(FAMILIES[family])
            ],
            samplers=[to_sampler(sampler) for sampler in SAMPLERS.values()],
            sigma_schedules=[
                capability_pb2.SigmaScheduleInfo(id=schedule, display_name=name)
                for schedule, name in SIGMA_SCHEDULES.items()
            ],
            models=[self._model(model, request.include_known_prompts) for model in self._shown_first(usable)],
            limits=_limits(),
            output_media_types=limits.MEDIA_TYPES,
            input_media_types=limits.MEDIA_TYPES,
            contract_version=CONTRACT_VERSION,
        )
        answer.etag = hashlib.sha256(answer.SerializeToString(deterministic=True)).hexdigest()[:16]
        if request.known_etag == answer.etag:
            return inference_service_pb2.GetInferenceCapabilitiesResponse(etag=answer.etag, unchanged=True)
        return answer

    def _shown_first(self, usable: list[Model]) -> list[Model]:
        """The first `CAPABLE_MODELS` models: the default model, then the loaded ones, then the others."""
        default, loaded = self._catalogue.default().id, {one.model_id for one in self._loaded.list() if one.device_id}
        ranked = sorted(usable, key=lambda model: (model.id != default, model.id not in loaded))
        return ranked[:CAPABLE_MODELS]

    def _model(self, model: Model, with_prompts: bool) -> capability_pb2.GenerationModel:
        sampler = sampler_of(model)
        return capability_pb2.GenerationModel(
            model_id=model.id,
            display_name=model.display_name,
            family=model.family,
            ready_device_ids=[
                one.device_id for one in self._loaded.list() if one.model_id == model.id and one.device_id
            ],
            is_default=model.id == self._catalogue.default().id,
            native_size=image_pb2.ImageSize(width_px=model.native_width_px, height_px=model.native_height_px)
            if model.native_width_px
            else None,
            default_sampler=sampler,
            default_sigma_schedule=schedule_of(model, sampler),
            default_steps=recommended_steps(model, sampler),
            default_guidance_scale=default_guidance(model),
            known_prompts=model.known_prompts if with_prompts else (),
        )


class _Computing(NamedTuple):
    """The capabilities that differ between devices."""

    precisions: tuple[str, ...]
    quantizations: tuple[str, ...]
    kernels: tuple[str, ...]
    compiles: bool


def _alike(views: Sequence[DeviceView]) -> dict[_Computing, list[str]]:
    """Device ids by what differs between devices."""
    found: dict[_Computing, list[str]] = {}
    for view in views:
        device = view.device
        computing = _Computing(device.precisions, device.quantizations, kernels_of(device), compiles(device))
        found.setdefault(computing, []).append(view.device.id)
    return found


def _capability(
    device_ids: list[str], family: str, computing: _Computing, task: Task
) -> capability_pb2.GenerationCapability:
    return capability_pb2.GenerationCapability(
        device_ids=device_ids,
        family=family,
        task=task,
        precisions=[convert.PRECISIONS[word] for word in computing.precisions],
        fields=[to_field(field) for field in fields_of(FAMILIES[family], task)],
        samplers=walkers_of(flow=FAMILIES[family].flow),
        sigma_schedules=schedules_of(flow=FAMILIES[family].flow),
        control_types=control_types_of(family),
        control_preprocessors=to_preprocessors(served=family in CONTROLLED),
        quantizations=to_quantizations(computing.quantizations),
        attention_kernels=to_kernels(computing.kernels),
        compile=to_compile(available=computing.compiles),
        prompt_window_tokens=FAMILIES[family].prompt_tokens,
    )


def to_sampler(sampler: SamplerEntry) -> capability_pb2.SamplerInfo:
    """One line of the table."""
    defaults = {"eta": f"{sampler.default_eta:g}"}
    return capability_pb2.SamplerInfo(
        id=sampler.id,
        display_name=sampler.display_name,
        recommended_steps=sampler.recommended_steps,
        options=[
            capability_pb2.SamplerOption(field=name, default_value=defaults.get(name, "")) for name in sampler.options
        ],
        sigma_schedules=sampler.sigma_schedules,
        families=[name for name in COMPUTED if schedules_for(sampler.id, flow=FAMILIES[name].flow)],
        stochastic=sampler.stochastic,
        evaluations_per_step=sampler.evaluations_per_step,
    )


def to_field(field: Field) -> field_capability_pb2.FieldCapability:
    """One line of the table."""
    low, high = field.bounds or (None, None)
    return field_capability_pb2.FieldCapability(
        field=field.path,
        minimum=low,
        maximum=high,
        multiple_of=field.multiple_of,
        default_value=field.default,
        allowed_values=field.allowed,
        unit=field.unit,
        group=field.group,
    )


def _limits() -> capability_pb2.GenerationLimits:
    return capability_pb2.GenerationLimits(
        min_edge_px=limits.EDGE_PX[0],
        max_edge_px=limits.EDGE_PX[1],
        edge_multiple_px=limits.EDGE_MULTIPLE_PX,
        max_area_px2=limits.AREA_PX2,
        max_steps=limits.STEPS[1],
        max_image_count=limits.IMAGES[1],
        max_prompt_bytes=limits.PROMPT_BYTES,
        max_controls=limits.CONTROLS,
        max_loras=limits.LORAS,
        max_inline_bytes=INLINE_BYTES,
        max_request_inline_bytes=REQUEST_INLINE_BYTES,
    )
