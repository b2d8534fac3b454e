"""The server dies by SIGKILL and is started again on the same state folder."""

from collections.abc import Iterator
from contextlib import closing

import grpc
import msgspec
import pytest

from deviceops.common.v1 import error_pb2, job_event_pb2
from deviceops.memory.v1 import memory_service_pb2, reservation_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.storage import open_database
from tests.faults.processes import eventually, gone
from tests.server import asking
from tests.server.asking import ENDINGS, Refusal, kind, kinds, picture
from tests.server.harness import RunningServer, running_server


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server("--device", "cpu") as running:
        yield running


def test_jobs_in_every_state_come_through(server: RunningServer) -> None:
    done = asking.submit(server, picture(seed=1), request_id="done")
    before = asking.watch(server, done)
    image = before[-1].generation_result.images[0]
    picture_bytes = asking.blob(server, image.file.blob_id)
    running = asking.submit(server, picture(steps=40, seed=2))
    second = asking.submit(server, picture(steps=asking.LONG_STEPS, seed=3))
    asking.wait_for_step(server, second)
    queued = asking.submit(server, picture(seed=4))
    last_seen = asking.wait_for_step(server, running)
    worker = server.worker_pid
    instance = server.status().server_instance_id

    server.kill()
    eventually(lambda: gone(worker))
    server.start()

    assert server.status().server_instance_id != instance
    # What had ended is as it was, byte for byte.
    assert asking.durable(asking.watch(server, done)) == asking.durable(before)
    assert asking.blob(server, image.file.blob_id) == picture_bytes
    assert asking.submit(server, picture(seed=1), request_id="done") == done
    # What ran goes on above everything that anybody saw.
    assert asking.job_of(server, running).state in (
        job_event_pb2.JOB_STATE_INTERRUPTED,
        job_event_pb2.JOB_STATE_RUNNING,
    )
    rest = asking.watch(server, running, last_seen)
    assert all(update.event.sequence > last_seen for update in rest)
    assert kind(rest[0]) == "interrupted"
    assert [name for name in kinds(rest) if name in ENDINGS] == ["succeeded"]
    assert kind(rest[-1]) == "succeeded"
    # What waited runs.
    asking.cancel(server, second)
    assert kind(asking.watch(server, queued)[-1]) == "succeeded"
    assert kind(asking.watch(server, second)[-1]) == "cancelled"
    jobs = [job_id for job_id in (done, running, second, queued) if asking.job_of(server, job_id).id == job_id]
    assert len(jobs) == 4


def test_a_watcher_of_a_job_that_still_waits_stops_nobody(server: RunningServer) -> None:
    """The server comes back with the job in its queue, and is watched before a worker is ready."""
    job_id = asking.submit(server)
    server.kill()
    server.held = True
    server.start()
    call = asking.follow(server, job_id, after=0)
    assert kind(next(call)) == "queued"
    assert server.status().server_instance_id, "the server answers others meanwhile"
    server.release()
    assert kind(asking.journal_of(call)[-1]) == "succeeded"


def test_reservations_end_with_their_server_and_the_jobs_that_they_were_for_do_not(server: RunningServer) -> None:
    def reserve(size: int) -> str:
        request = memory_service_pb2.CreateReservationRequest(memory_pool_id="host", size_bytes=size)
        return server.memory.CreateReservation(request).reservation.id

    def reserved() -> int:
        pools = memory_service_pb2.GetMemoryPoolRequest(memory_pool_id="host")
        return server.memory.GetMemoryPool(pools).memory_pool.reserved_bytes

    for_nobody, for_one, for_another = (reserve(64 * 2**20) for _ in range(3))
    running = asking.submit(server, picture(steps=40), job_event_pb2.JobOptions(reservation_id=for_one))
    asking.wait_for_step(server, running)
    queued = asking.submit(server, picture(), job_event_pb2.JobOptions(reservation_id=for_another))
    assert reserved() > 0
    server.kill()
    server.start()
    every = reservation_pb2.ReservationFilter(states=[reservation_pb2.RESERVATION_STATE_UNSPECIFIED])
    listed = server.memory.ListReservations(memory_service_pb2.ListReservationsRequest(filter=every))
    assert list(listed.reservations) == []
    # Less than any of them: the jobs may have claimed their weights by now.
    assert reserved() < 64 * 2**20
    with pytest.raises(grpc.RpcError) as told:
        server.memory.RenewReservation(memory_service_pb2.RenewReservationRequest(reservation_id=for_nobody))
    assert Refusal(told.value).reason == "RESERVATION_NOT_FOUND"
    assert [kind(asking.watch(server, job_id)[-1]) for job_id in (running, queued)] == ["succeeded"] * 2


def test_a_job_that_was_to_stop_is_not_started_again(server: RunningServer) -> None:
    import os
    import signal

    job_id = asking.submit(server, picture(steps=asking.LONG_STEPS))
    asking.wait_for_step(server, job_id)
    worker = server.worker_pid
    os.kill(worker, signal.SIGSTOP)
    asking.cancel(server, job_id)
    server.kill()
    eventually(lambda: gone(worker))
    server.start()
    seen = asking.watch(server, job_id)
    assert kind(seen[-1]) == "cancelled"
    assert kinds(seen).count("started") == 1


def test_jobs_that_another_version_stored_fail_by_name_and_stop_nobody(server: RunningServer) -> None:
    """One had ended, the other had not."""
    ended = asking.submit(server, picture(seed=1))
    asking.watch(server, ended)
    waiting = asking.submit(server, picture(steps=asking.LONG_STEPS))
    asking.wait_for_step(server, waiting)
    server.kill()
    with closing(open_database(server.state)) as database:
        database.execute("UPDATE jobs SET work = ?", (msgspec.msgpack.encode({"type": "generate", "sampler": 1}),))
    server.start()
    for job_id in (waiting, ended):
        update = asking.watch(server, job_id)[-1]
        assert kind(update) == "failed"
        assert update.event.failed.failure.reason == error_pb2.ERROR_REASON_INVARIANT_BROKEN
        job = asking.job_of(server, job_id)
        assert (job.state, job.kind) == (job_event_pb2.JOB_STATE_FAILED, job_pb2.JOB_KIND_GENERATION)
        assert job.failure == update.event.failed.failure
    listed = server.processing.ListJobs(processing_service_pb2.ListJobsRequest()).jobs
    assert [(job.id, job.state) for job in listed] == [
        (job_id, job_event_pb2.JOB_STATE_FAILED) for job_id in (waiting, ended)
    ]
    for job_id in (waiting, ended):
        server.processing.DeleteJob(processing_service_pb2.DeleteJobRequest(job_id=job_id))
    assert not server.processing.ListJobs(processing_service_pb2.ListJobsRequest()).jobs
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
