"""The worker process dies by SIGKILL in the middle of a job."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from deviceops.common.v1 import error_pb2, job_event_pb2
from deviceops.processing.v1 import system_status_pb2
from domains.imaging import encode
from tests.faults.processes import eventually, gone, kill
from tests.server import asking
from tests.server.asking import ENDINGS, kind, kinds, picture
from tests.server.harness import RunningServer, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server of our own; each test leaves it with a living worker."""
    with running_server("--device", "cpu") as running:
        yield running


def restarted(server: RunningServer, old_pid: int) -> bool:
    """A new process is there (it may still import torch)."""
    return server.worker_pid not in (0, old_pid)


def test_the_job_runs_again_and_its_watchers_miss_nothing(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=24, count=2))
    early = asking.follow(server, job_id)
    asking.until(early, asking.denoising)
    pid = server.worker_pid
    kill(pid)
    # The promise is 5 s.
    assert eventually(lambda: restarted(server, pid)) < 5
    rest, late = asking.together(lambda: asking.journal_of(early), lambda: asking.watch(server, job_id))
    for seen in (rest, late):
        assert [name for name in kinds(seen) if name in ENDINGS] == ["succeeded"]
        assert kind(seen[-1]) == "succeeded"
        told = [name for name in kinds(seen) if name in ("interrupted", "started", "succeeded")]
        assert told[-3:] == ["interrupted", "started", "succeeded"]
        sequences = [update.event.sequence for update in seen]
        assert sequences == sorted(set(sequences))
    interrupted = next(update.event for update in late if kind(update) == "interrupted")
    assert interrupted.interrupted.reason == error_pb2.ERROR_REASON_WORKER_RESTARTING
    assert interrupted.state == job_event_pb2.JOB_STATE_INTERRUPTED
    assert [update.event.started.attempt for update in late if kind(update) == "started"] == [1, 2]
    assert late[-1].event.succeeded.receipt.attempts == 2
    assert len(late[-1].generation_result.images) == 2
    assert gone(pid)


@pytest.mark.parametrize("start", ["noise", "picture"])
def test_the_second_run_makes_the_same_picture(server: RunningServer, start: str) -> None:
    asked = picture(steps=24, seed=11)
    if start == "picture":
        asked.init_image.image.data = encode(np.full((64, 64, 3), (200, 40, 90), np.uint8), "image/png")
        asked.init_image.strength = 0.9
    job_id = asking.submit(server, asked)
    asking.wait_for_step(server, job_id)
    kill(server.worker_pid)
    after_death = asking.watch(server, job_id)[-1].generation_result.images
    in_peace = asking.watch(server, asking.submit(server, asked))[-1].generation_result.images
    assert [image.file.sha256 for image in after_death] == [image.file.sha256 for image in in_peace]


def test_the_status_tells_of_it(server: RunningServer) -> None:
    asking.watch(server, asking.submit(server))
    before = server.status().workers[0]
    kill(before.process_id)
    asking.watch(server, asking.submit(server))
    after = server.status().workers[0]
    assert after.restart_count == before.restart_count + 1
    assert after.state == system_status_pb2.WORKER_STATE_READY
    assert after.process_id != before.process_id
    assert "exit status -9" in after.last_failure.message


def test_what_was_loaded_is_gone_with_it(server: RunningServer) -> None:
    from deviceops.model.v1 import model_service_pb2

    def loaded() -> list[str]:
        answer = server.model.ListLoadedModels(model_service_pb2.ListLoadedModelsRequest())
        return [model.id for model in answer.loaded_models]

    asking.watch(server, asking.submit(server))
    assert loaded() == ["emoji-sd@cpu"]
    kill(server.worker_pid)
    eventually(lambda: not loaded())


def test_a_job_that_was_to_stop_is_cancelled_by_the_death(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=asking.LONG_STEPS))
    asking.wait_for_step(server, job_id)
    # Nothing can be taken from the pipe of a process that stands still, so the wish is still open when it dies.
    import os
    import signal

    pid = server.worker_pid
    os.kill(pid, signal.SIGSTOP)
    assert asking.cancel(server, job_id, "stop it").state == job_event_pb2.JOB_STATE_CANCELLING
    kill(pid)
    seen = asking.watch(server, job_id)
    assert [name for name in kinds(seen) if name in ENDINGS] == ["cancelled"]
    assert seen[-1].event.cancelled.cause == "stop it"


def test_a_job_that_takes_its_worker_down_three_times_fails() -> None:
    with running_server("--device", "cpu") as server:
        job_id = asking.submit(server, picture(steps=asking.LONG_STEPS))
        call = asking.follow(server, job_id)
        for attempt in (1, 2, 3):
            asking.until(
                call, lambda update, n=attempt: kind(update) == "started" and update.event.started.attempt == n
            )
            asking.until(call, asking.denoising)
            kill(server.worker_pid)
        seen = asking.journal_of(call)
        assert [name for name in kinds(seen) if name in ENDINGS] == ["failed"]
        failure = seen[-1].event.failed.failure
        assert failure.reason == error_pb2.ERROR_REASON_DEVICE_LOST
        assert failure.status_code == grpc.StatusCode.ABORTED.value[0]
        assert {fact.name: fact.value for fact in failure.facts} == {"attempts": "3", "device_id": "cpu"}
        assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
