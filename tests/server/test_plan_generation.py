"""PlanGeneration: what Generate would do, everything that is wrong at once, and nothing done."""

from typing import Any

import pytest

from deviceops.common.v1 import error_pb2, image_pb2, job_event_pb2, label_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.model.v1 import model_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from domains.inference.fields import FIELDS
from tests.server import asking
from tests.server.asking import picture
from tests.server.generation_paths import leaf_paths, put
from tests.server.harness import RunningServer, running_server

ERROR = error_pb2.SEVERITY_ERROR


def plan(
    server: RunningServer, generation: generation_pb2.Generation, options: job_event_pb2.JobOptions | None = None
) -> inference_service_pb2.PlanGenerationResponse:
    request = inference_service_pb2.PlanGenerationRequest(generation=generation, options=options)
    return server.inference.PlanGeneration(request, timeout=asking.CALL_S)


def errors(answer: inference_service_pb2.PlanGenerationResponse) -> dict[str, str]:
    return {
        one.field: error_pb2.ErrorReason.Name(one.reason).removeprefix("ERROR_REASON_")
        for one in answer.findings
        if one.severity == ERROR
    }


def job_count(server: RunningServer) -> int:
    request = processing_service_pb2.ListJobsRequest(page_size=1000)
    return len(server.processing.ListJobs(request, timeout=asking.CALL_S).jobs)


def test_a_plan_resolves_what_a_job_then_gets_and_stores_nothing(server: RunningServer) -> None:
    asking.watch(server, asking.submit(server))
    before = job_count(server)
    asked = picture(steps=3)
    planned = plan(server, asked)
    assert job_count(server) == before
    assert not errors(planned)
    result = asking.watch(server, asking.submit(server, asked))[-1].generation_result
    planned.resolved.generation.model_id = result.resolved.generation.model_id
    assert planned.resolved == result.resolved


def test_a_measured_model_has_a_time_and_a_loaded_one_loads_nothing(server: RunningServer) -> None:
    # Alone on the device: a job that shared it teaches nothing.
    for _ in range(2):
        asking.watch(server, asking.submit(server, picture(steps=4)))
    cost = plan(server, picture(steps=4)).estimate
    assert (cost.device_id, cost.batch_size, list(cost.loads)) == ("cpu", 1, [])
    assert cost.run_time.ToNanoseconds() > 0
    assert cost.sample_count > 0
    assert cost.queue_time.ToNanoseconds() == 0
    assert cost.HasField("queue_time")
    # The allocator of a CPU tells no peak.
    assert not cost.HasField("peak_device_bytes")
    twice = plan(server, picture(steps=8)).estimate
    assert twice.run_time.ToNanoseconds() > cost.run_time.ToNanoseconds()


def test_a_model_that_is_not_loaded_is_told_with_its_bytes(server: RunningServer) -> None:
    everything = model_service_pb2.UnloadModelRequest(all=model_service_pb2.EveryLoadedModel())
    server.model.UnloadModel(everything, timeout=asking.CALL_S)
    (load,) = plan(server, picture()).estimate.loads
    assert load.model_id == "emoji-sd"
    assert load.device_bytes > 1_000_000
    needs_it = picture()
    needs_it.require_loaded_model = True
    assert errors(plan(server, needs_it)) == {"": "MODEL_NOT_LOADED"}


def test_what_cannot_be_predicted_is_told() -> None:
    huge = picture()
    huge.width_px = huge.height_px = 1024
    with running_server("--device", "sim:1") as fresh:  # on the other one, tests have measured several sizes
        asking.watch(fresh, asking.submit(fresh))
        told = plan(fresh, huge)
        # The device counts weights, prompts and latents. Two measured sizes tell the fixed part from that of the pixels: a
        # plan is then within 10 % of what the next job holds.
        asking.watch(fresh, asking.submit(fresh, picture(count=2)))
        large = picture(count=2)
        large.width_px = large.height_px = 256
        planned = plan(fresh, large).estimate.peak_device_bytes
        peak = asking.watch(fresh, asking.submit(fresh, large))[-1].event.succeeded.receipt.peak_device_bytes
    assert peak > 1_000_000
    assert planned == pytest.approx(peak, rel=0.1)
    assert not told.estimate.HasField("run_time")
    said = [one for one in told.findings if "cannot be predicted yet" in one.message]
    assert {one.severity for one in said} == {error_pb2.SEVERITY_INFO}


def test_everything_that_is_wrong_is_told_at_once(server: RunningServer) -> None:
    wrong = generation_pb2.Generation(
        width_px=65,
        height_px=64,
        sampling=sampling_pb2.Sampling(steps=0, sampler="nosuch"),
        init_image=conditioning_pb2.InitImage(image=image_pb2.ImageInput(data=b"x"), strength=2),
    )
    unserved = next(path for path in leaf_paths() if path not in FIELDS)
    put(wrong, unserved, None)
    options = job_event_pb2.JobOptions(labels=[label_pb2.Label(key="", value="x")])
    told = plan(server, wrong, options)
    expected = {"width_px", "sampling.steps", "sampling.sampler", "init_image.strength", unserved}
    assert {f"generation.{name}" for name in expected} <= set(errors(told))
    assert any(field.startswith("options.") for field in errors(told))
    assert not told.HasField("resolved")
    assert not told.HasField("estimate")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"model_id": "nosuch"}, "MODEL_NOT_FOUND"), ({"loaded_model_id": "nosuch@cpu"}, "LOADED_MODEL_NOT_FOUND")],
)
def test_what_does_not_exist_is_a_finding_and_no_failure(
    server: RunningServer, changes: dict[str, Any], reason: str
) -> None:
    asked = picture()
    for name, value in changes.items():
        setattr(asked, name, value)
    assert errors(plan(server, asked)) == {"": reason}


def test_an_edit_beyond_the_steps_is_a_warning(server: RunningServer) -> None:
    asked = picture(steps=3)
    asked.prompt, asked.prompt_syntax = "an [owl:apple:3]", generation_pb2.PROMPT_SYNTAX_A1111
    told = plan(server, asked)
    assert told.HasField("resolved")
    assert "generation.prompt" in {one.field for one in told.findings if one.severity == error_pb2.SEVERITY_WARNING}


def test_a_picture_that_is_none_is_a_finding(server: RunningServer) -> None:
    asked = picture()
    asked.init_image.image.data = b"no picture"
    assert errors(plan(server, asked)) == {"generation.init_image.image": "BAD_IMAGE"}
