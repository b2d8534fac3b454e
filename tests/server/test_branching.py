"""A job that continues from another one's checkpoint: as that was asked for, or with another request."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from deviceops.device.v1 import device_work_pb2
from deviceops.inference.v1 import generation_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, kind
from tests.server.harness import RunningServer
from tests.server.test_job_pause import STEPS, checkpoints, paused_at_a_step, picture, resume, sha256_of


@pytest.fixture(scope="module")
def source(server: RunningServer) -> tuple[str, int]:
    """A job that is paused at a step, and the step."""
    job_id = asking.submit(server, picture(seed=77))
    return job_id, paused_at_a_step(server, job_id).completed


def branch(server: RunningServer, job_id: str, generation: Any = None, *, validate_only: bool = False) -> Any:
    spec = job_pb2.JobSpec(generation=generation) if generation else None
    request = processing_service_pb2.SubmitJobRequest(continue_job_id=job_id, spec=spec, validate_only=validate_only)
    return server.processing.SubmitJob(request, timeout=CALL_S)


def steps_of(server: RunningServer, job_id: str) -> int:
    end = asking.watch(server, job_id)[-1]
    assert kind(end) == "succeeded", end
    return end.event.succeeded.receipt.steps_executed


def test_a_branch_with_nothing_changed_ends_with_the_same_picture_and_leaves_its_source_as_it_was(
    server: RunningServer,
) -> None:
    whole = sha256_of(server, asking.submit(server, picture(seed=78)))
    job_id = asking.submit(server, picture(seed=78))
    step = paused_at_a_step(server, job_id).completed
    # One leaves everything open, one says everything again.
    found = [branch(server, job_id, spec).job for spec in (None, picture(seed=78))]
    assert [job.continued_job_id for job in found] == [job_id] * 2
    assert [sha256_of(server, job.id) for job in found] == [whole] * 2
    assert [steps_of(server, job.id) for job in found] == [STEPS - step] * 2
    assert "degraded" not in asking.kinds(asking.watch(server, found[0].id))
    assert checkpoints(server, job_id) == 1
    resume(server, job_id)
    assert sha256_of(server, job_id) == whole
    assert steps_of(server, job_id) == STEPS
    assert checkpoints(server, job_id) == 0


def test_prompt_guidance_and_output_of_a_branch_hold_from_the_checkpoints_step_on(
    server: RunningServer, source: tuple[str, int]
) -> None:
    job_id, step = source
    plain = sha256_of(server, branch(server, job_id).job.id)
    other = generation_pb2.Generation(prompt="a blue whale", determinism=generation_pb2.DETERMINISM_EXACT)
    other.sampling.guidance_scale = 9
    changed = branch(server, job_id, other).job
    assert sha256_of(server, changed.id) != plain
    assert steps_of(server, changed.id) == STEPS - step
    resolved = asking.watch(server, changed.id)[-1].generation_result.resolved.generation
    assert (resolved.prompt, resolved.sampling.guidance_scale, resolved.sampling.steps) == ("a blue whale", 9, STEPS)
    # A branch of a branch, after its source has ended and is deleted.
    again = asking.submit(server, picture(seed=79))
    paused_at_a_step(server, again)
    kept = branch(server, again).job.id
    asking.cancel(server, again)
    asking.delete(server, again)
    assert kind(asking.watch(server, kept)[-1]) == "succeeded"


CHANGES: dict[str, Callable[[generation_pb2.Generation], Any]] = {
    "sampling.seeds": lambda one: setattr(one.sampling, "seed", 1),
    "sampling.sampler": lambda one: setattr(one.sampling, "sampler", "euler"),
    "sampling.steps": lambda one: setattr(one.sampling, "steps", STEPS + 1),
    "width_px": lambda one: setattr(one, "width_px", 128),
    "sampling.sigma_schedule": lambda one: setattr(one.sampling, "sigma_schedule", "karras"),
}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("validate_only", [True, False])
def test_what_the_latents_are_made_with_cannot_differ_and_is_named(
    server: RunningServer, source: tuple[str, int], field: str, validate_only: bool
) -> None:
    generation = picture(seed=77)
    CHANGES[field](generation)
    if validate_only:
        findings = branch(server, source[0], generation, validate_only=True).findings
        assert [finding.field for finding in findings] == [f"spec.generation.{field}"]
        return
    refusal = asking.refused(lambda: branch(server, source[0], generation))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [f"spec.generation.{field}"])
    assert source[0] in refusal.bad_request.field_violations[0].description


def test_other_work_cannot_continue_a_generation(server: RunningServer, source: tuple[str, int]) -> None:
    spec = job_pb2.JobSpec(device_benchmark=device_work_pb2.DeviceBenchmark(device_id="cpu"))
    request = processing_service_pb2.SubmitJobRequest(continue_job_id=source[0], spec=spec)
    refusal = asking.refused(lambda: server.processing.SubmitJob(request, timeout=CALL_S))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["spec.device_benchmark"])


def test_a_job_without_a_checkpoint_and_one_that_runs_or_was_completed_cannot_be_continued(
    server: RunningServer,
) -> None:
    def reason(job_id: str) -> str:
        return asking.refused(lambda: branch(server, job_id)).reason

    assert reason("job-none") == "JOB_NOT_FOUND"
    done = asking.submit(server)
    asking.watch(server, done)
    assert reason(done) == "ILLEGAL_STATE"
    running = asking.submit(server, picture(steps=asking.LONG_STEPS))
    asking.wait_for_step(server, running)
    assert reason(running) == "ILLEGAL_STATE"
    asking.cancel(server, running)
    asking.watch(server, running)
    assert reason(running) == "CHECKPOINT_CORRUPT"
