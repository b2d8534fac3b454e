"""GetInferenceCapabilities: what a client needs to know before it asks, and only when it has changed."""

import pytest
import torch

from deviceops.common.v1 import field_capability_pb2
from deviceops.inference.v1 import capability_pb2, conditioning_pb2, generation_pb2, inference_service_pb2
from deviceops.model.v1 import model_service_pb2
from domains import limits as sizes
from domains.device.on_device.features import can_compile
from domains.imaging.control_maps import KINDS
from domains.inference import limits
from domains.inference.fields import FIELDS, SECOND, THIRD
from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES
from domains.inference.size_conditioning import AS_MADE
from domains.model.families import COMPUTED, FAMILIES
from domains.model.weight_quantization import OTHER_QUANTIZATIONS, QUANTIZATIONS
from server.model.quantization_messages import to_quantizations
from tests.server import asking
from tests.server.harness import RunningServer

Answer = inference_service_pb2.GetInferenceCapabilitiesResponse


def capabilities(server: RunningServer, **fields: object) -> Answer:
    request = inference_service_pb2.GetInferenceCapabilitiesRequest(**fields)  # pyright: ignore[reportArgumentType]
    return server.inference.GetInferenceCapabilities(request, timeout=asking.CALL_S)


@pytest.fixture(scope="module")
def told(server: RunningServer) -> Answer:
    # A device is listed once its worker has tried it.
    asking.watch(server, asking.submit(server))
    return capabilities(server)


def test_the_embedded_model_is_the_default_and_tells_its_names_when_asked(server: RunningServer, told: Answer) -> None:
    (model,) = told.models
    assert (model.model_id, model.is_default, model.family) == ("emoji-sd", True, "sd1")
    assert model.ready_device_ids == ["cpu"]
    assert not model.known_prompts
    (full,) = capabilities(server, model_id="emoji-sd", include_known_prompts=True).models
    assert {"rocket", "thinking face", "cactus"} <= set(full.known_prompts)
    assert len(full.known_prompts) > 1000


def test_what_it_takes_by_itself_is_what_a_job_gets(server: RunningServer, told: Answer) -> None:
    (model,) = told.models
    generation = generation_pb2.Generation(prompt="a rocket")
    job_id = asking.submit(server, generation)
    resolved = asking.watch(server, job_id)[-1].generation_result.resolved
    chosen, size = resolved.generation, model.native_size
    assert (chosen.sampling.sampler, chosen.sampling.steps) == (model.default_sampler, model.default_steps)
    assert chosen.sampling.sigma_schedule == model.default_sigma_schedule
    assert chosen.sampling.guidance_scale == model.default_guidance_scale
    assert (chosen.width_px, chosen.height_px) == (size.width_px, size.height_px)


def test_the_samplers_are_all_there_with_what_they_take(told: Answer) -> None:
    assert [sampler.id for sampler in told.samplers] == list(SAMPLERS)
    for sampler in told.samplers:
        known = SAMPLERS[sampler.id]
        assert tuple(sampler.sigma_schedules) == known.sigma_schedules
        assert list(sampler.families) == [name for name in COMPUTED if known.flow_schedules or not FAMILIES[name].flow]
        assert sampler.evaluations_per_step == SAMPLERS[sampler.id].evaluations_per_step
    options = {one.id: {option.field: option.default_value for option in one.options} for one in told.samplers}
    assert {name: one["eta"] for name, one in options.items() if "eta" in one} == {"ddim": "0", "tcd": "0.3"}
    assert {name for name, one in options.items() if "solver_order" in one} == {"deis", "unipc"}
    assert {name for name, one in options.items() if "timestep_spacing" not in one} == {"lcm", "tcd"}
    assert {name for name, one in options.items() if "sigmas" not in one} == {"ddim", "ddpm", "pndm", "lcm", "tcd"}
    stochastic = {name for name, one in SAMPLERS.items() if one.stochastic}
    assert {one.id for one in told.samplers if one.stochastic} == stochastic >= {"euler_a", "dpmpp_sde", "lcm"}
    assert [schedule.id for schedule in told.sigma_schedules] == list(SIGMA_SCHEDULES)


def fields(capability: capability_pb2.GenerationCapability) -> dict[str, field_capability_pb2.FieldCapability]:
    return {field.field: field for field in capability.fields}


def test_fields_tell_their_ranges_and_only_those_that_are_served(told: Answer) -> None:
    capability, *_ = told.capabilities
    assert (list(capability.device_ids), capability.family) == (["cpu"], "sd1")
    assert capability.task == "text_to_image"
    assert (list(capability.samplers), list(capability.sigma_schedules)) == (list(SAMPLERS), list(SIGMA_SCHEDULES))
    known = fields(capability)
    steps, width = known["sampling.steps"], known["width_px"]
    assert (steps.minimum, steps.maximum, steps.unit, steps.group) == (*limits.STEPS, "steps", "sampling")
    assert (width.minimum, width.maximum, width.multiple_of) == (*limits.EDGE_PX, limits.EDGE_MULTIPLE_PX)
    assert list(known["sampling.sampler"].allowed_values) == list(SAMPLERS)
    assert known["output.media_type"].default_value == "image/png"
    weight = known["controls.weight"]
    assert (weight.minimum, weight.maximum, weight.group) == (*limits.CONTROL_WEIGHT, "control")


OF_EDITORS = ("sampling.image_guidance_scale", *(path for path in FIELDS if path.startswith("reference_images.")))
"""What models made for editing read, which the server's model is not."""
OF_GUIDANCE = ("sampling.distilled_guidance", "sampling.dynamic_threshold_ratio")
OF_REFINER = tuple(path for path in FIELDS if path.startswith("refiner."))
_ABSENT = ("sampling.flow_shift", "controls.control_type")
OF_OTHER_MODELS = (*SECOND, *THIRD, *_ABSENT, *OF_GUIDANCE, *AS_MADE.by_path, *OF_REFINER)
"""The model has one text encoder, no refiner and no union ControlNet, is told no sizes, is no flow model, was not distilled,
and computes in latents."""


def test_a_form_can_be_made_from_the_fields(told: Answer) -> None:
    without, from_picture, in_part, capability, editing = told.capabilities
    groups = {"prompt", "size", "sampling", "input", "adapters", "control", "refine", "execution", "output"}
    read = [path for path in FIELDS if path not in (*OF_OTHER_MODELS, *OF_EDITORS)]
    inputs = ("init_image.", "init_latents.", "mask.", "outpaint.")
    seen = [path for path in FIELDS if path not in OF_OTHER_MODELS and not path.startswith(inputs)]
    assert [field.field for field in editing.fields] == seen
    assert [field.field for field in capability.fields] == [
        path for path in read if not path.startswith("init_latents.")
    ]
    for task, hidden in (
        (without, ("init_image.", "mask.", "outpaint.")),
        (from_picture, ("init_latents.", "mask.", "outpaint.")),
        (in_part, ("init_latents.", "outpaint.")),
    ):
        assert [field.field for field in task.fields] == [path for path in read if not path.startswith(hidden)]
    assert {field.group for field in capability.fields} <= groups
    units = {field.field: field.unit for field in capability.fields if field.unit}
    assert {path: unit for path, unit in units.items() if unit != "px"} == {
        "prompt": "bytes",
        "negative_prompt": "bytes",
        "blended_prompts.prompt": "bytes",
        "regions.prompt": "bytes",
        "regions.negative_prompt": "bytes",
        "sampling.steps": "steps",
        "hires_pass.prompt": "bytes",
        "hires_pass.negative_prompt": "bytes",
        "hires_pass.steps": "steps",
        "detail_passes.prompt": "bytes",
        "detail_passes.negative_prompt": "bytes",
        "detail_passes.steps": "steps",
        "output.bit_depth": "bits",
        "previews.every_steps": "steps",
    }
    assert {path for path, unit in units.items() if unit == "px"} == {
        field.field for field in capability.fields if field.field.endswith("_px")
    }


def test_each_task_of_a_family_has_its_fields(told: Answer) -> None:
    assert [one.task for one in told.capabilities] == [
        *("text_to_image", "image_to_image", "inpainting", "outpainting", "editing")
    ]
    known = fields(told.capabilities[1])
    strength, fit = known["init_image.strength"], known["init_image.fit"]
    assert (strength.minimum, strength.maximum, strength.default_value) == (0.0, 1.0, "0.75")
    assert list(fit.allowed_values) == ["IMAGE_FIT_STRETCH", "IMAGE_FIT_COVER", "IMAGE_FIT_PAD"]


def test_ways_to_make_control_maps_say_what_they_lack(told: Answer) -> None:
    capability = next(one for one in told.capabilities if one.family == "sd1")
    kinds = conditioning_pb2.ControlPreprocessing.DESCRIPTOR.oneofs_by_name["kind"].fields
    assert [one.id for one in capability.control_preprocessors] == [kind.name for kind in kinds]
    assert {one.id for one in capability.control_preprocessors if one.available} == set(KINDS)
    assert all(one.available == (not one.unavailable_message) for one in capability.control_preprocessors)
    assert "canny" in capability.control_types


def test_attention_kernels_are_told_with_whether_the_device_has_them(told: Answer) -> None:
    for one in told.capabilities:
        kernels = {kernel.id: kernel.available for kernel in one.attention_kernels}
        # The device is a CPU.
        assert kernels == {"flash": True, "memory_efficient": False, "cudnn": False, "math": True}
        assert all(bool(kernel.unavailable_message) is not kernel.available for kernel in one.attention_kernels)


def test_compiling_is_told_with_what_it_needs(told: Answer) -> None:
    for one in told.capabilities:
        assert one.compile.id == "compile"
        # The same trial as the worker's: a small build.
        assert one.compile.available is can_compile(torch.device("cpu"))
        assert bool(one.compile.unavailable_message) is not one.compile.available


def test_the_limits_are_those_of_the_checks(told: Answer) -> None:
    assert (told.limits.max_prompt_bytes, told.limits.max_steps) == (limits.PROMPT_BYTES, limits.STEPS[1])
    assert (told.limits.min_edge_px, told.limits.max_edge_px) == limits.EDGE_PX
    assert told.limits.max_image_count == limits.IMAGES[1]
    assert (told.limits.max_area_px2, told.limits.max_request_inline_bytes) == (16_777_216, 2 * 1024 * 1024)
    assert (told.limits.max_controls, told.limits.max_loras) == (limits.CONTROLS, limits.LORAS)
    assert list(told.output_media_types) == list(told.input_media_types) == list(limits.MEDIA_TYPES)


def test_four_kinds_of_devices_7_families_and_5_tasks_are_told_in_one_answer(told: Answer) -> None:
    """No client has to narrow its first call. Entries grow with each field that is served."""
    (*_, capability, _), (model,) = told.capabilities, told.models
    assert capability.ByteSize() <= sizes.CAPABILITY_BYTES
    large = Answer(capabilities=[capability] * (4 * 7 * 5), models=[model] * sizes.CAPABLE_MODELS)
    large.MergeFrom(Answer(samplers=told.samplers, sigma_schedules=told.sigma_schedules, limits=told.limits))
    assert large.ByteSize() <= sizes.ANSWER_BYTES


def test_a_known_etag_is_answered_with_nothing_new(server: RunningServer, told: Answer) -> None:
    again = capabilities(server, known_etag=told.etag)
    assert (again.unchanged, again.etag, len(again.models)) == (True, told.etag, 0)
    other = capabilities(server, known_etag="old")
    assert (other.unchanged, other.etag) == (False, told.etag)


def test_unknown_models_and_devices_are_named(server: RunningServer, told: Answer) -> None:
    assert asking.refused(lambda: capabilities(server, model_id="none")).reason == "MODEL_NOT_FOUND"
    assert asking.refused(lambda: capabilities(server, device_ids=["cuda:9"])).reason == "DEVICE_NOT_FOUND"


def test_a_model_is_ready_where_it_is_loaded_and_nowhere_else(server: RunningServer) -> None:
    def ready() -> list[str]:
        (model,) = capabilities(server, model_id="emoji-sd").models
        return list(model.ready_device_ids)

    asking.watch(server, asking.submit(server))
    assert ready() == ["cpu"]
    everything = model_service_pb2.UnloadModelRequest(all=model_service_pb2.EveryLoadedModel())
    server.model.UnloadModel(everything, timeout=asking.CALL_S)
    assert ready() == []
    asking.watch(server, asking.submit(server))
    assert ready() == ["cpu"]


def test_quantizations_are_those_that_the_device_can_widen_and_the_others_say_what_to_take(told: Answer) -> None:
    for one in told.capabilities:
        listed = {option.id: (option.available, option.unavailable_message) for option in one.quantizations}
        assert {word for word, (able, _) in listed.items() if able} == {"none", *QUANTIZATIONS}
        assert {word: why for word, (able, why) in listed.items() if not able} == dict.fromkeys(
            OTHER_QUANTIZATIONS, "this server has no code for it; choose fp8_e4m3 or int8"
        )
    lacking = {option.id: option for option in to_quantizations(("int8",))}
    assert not lacking["fp8_e4m3"].available
    assert "choose another one" in lacking["fp8_e4m3"].unavailable_message
