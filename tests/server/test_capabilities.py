"""GetInferenceCapabilities: what a client needs to know before it asks, and only when it has changed."""

import pytest

from deviceops.common.v1 import field_capability_pb2
from deviceops.inference.v1 import capability_pb2, generation_pb2, inference_service_pb2, resolved_generation_pb2
from domains.inference import limits
from domains.inference.schedulers import SCHEDULERS
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
    assert (resolved.scheduler, resolved.steps) == (model.default_scheduler, model.default_steps)
    assert resolved.guidance_scale == model.default_guidance_scale
    assert (resolved.width_px, resolved.height_px) == (model.native_size.width_px, model.native_size.height_px)


def test_the_schedulers_are_all_there_with_their_options(told: Answer) -> None:
    assert [scheduler.id for scheduler in told.schedulers] == list(SCHEDULERS)
    options = {scheduler.id: {option.field for option in scheduler.options} for scheduler in told.schedulers}
    assert "sampling.eta" in options["ddim"]
    assert "sampling.karras_sigmas" in options["dpmpp_2m"]
    assert {one.id for one in told.schedulers if one.stochastic} == {"euler_a"}


def fields(capability: capability_pb2.GenerationCapability) -> dict[str, field_capability_pb2.FieldCapability]:
    return {field.field: field for field in capability.fields}


def test_fields_tell_their_ranges_and_only_those_that_are_served(told: Answer) -> None:
    (capability,) = told.capabilities
    assert (capability.device_id, capability.family) == ("cpu", "sd1")
    assert capability.task == resolved_generation_pb2.GENERATION_TASK_TEXT_TO_IMAGE
    known = fields(capability)
    steps, width = known["generation.sampling.steps"], known["generation.width_px"]
    assert (steps.minimum, steps.maximum) == limits.STEPS
    assert (width.minimum, width.maximum, width.multiple_of) == (*limits.EDGE_PX, limits.EDGE_MULTIPLE_PX)
    assert list(known["generation.sampling.scheduler"].allowed_values) == list(SCHEDULERS)
    assert "generation.loras" not in known


def test_the_limits_are_those_of_the_checks(told: Answer) -> None:
    assert (told.limits.max_prompt_bytes, told.limits.max_steps) == (limits.PROMPT_BYTES, limits.STEPS[1])
    assert (told.limits.min_edge_px, told.limits.max_edge_px) == limits.EDGE_PX
    assert told.limits.max_image_count == limits.IMAGES[1]
    assert list(told.output_media_types) == list(limits.MEDIA_TYPES)


def test_a_known_etag_is_answered_with_nothing_new(server: RunningServer, told: Answer) -> None:
    again = capabilities(server, known_etag=told.etag)
    assert (again.unchanged, again.etag, len(again.models)) == (True, told.etag, 0)
    other = capabilities(server, known_etag="old")
    assert (other.unchanged, other.etag) == (False, told.etag)


def test_unknown_models_and_devices_are_named(server: RunningServer, told: Answer) -> None:
    assert asking.refused(lambda: capabilities(server, model_id="none")).reason == "MODEL_NOT_FOUND"
    assert asking.refused(lambda: capabilities(server, device_ids=["cuda:9"])).reason == "DEVICE_NOT_FOUND"
