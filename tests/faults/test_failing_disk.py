"""The disk under the state folder returns errors that are not "full", or the system has no descriptor left: each call hears
it, and the server goes on."""

import resource
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import grpc
import pytest

from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.processing.v1 import processing_service_pb2, system_status_pb2
from tests.faults.processes import eventually
from tests.server import asking
from tests.server.asking import kind, picture
from tests.server.harness import RunningServer, running_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server("--device", "sim") as running:
        yield running


@contextmanager
def failing_writes(server: RunningServer) -> Generator[None]:
    """Each write to a file beyond its first byte fails with EFBIG. Pipes and sockets work."""
    pid = server.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def no_descriptor(server: RunningServer) -> Generator[None]:
    """Each open of a file fails with EMFILE."""
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def upload(server: RunningServer) -> str:
    """A small blob on the disk."""
    spec = blob_pb2.BlobSpec(size_bytes=4, tier=blob_pb2.BLOB_TIER_DISK)
    chunk = memory_service_pb2.UploadBlobRequest(chunk=blob_pb2.BlobChunk(data=b"abcd"))
    requests = [memory_service_pb2.UploadBlobRequest(blob_spec=spec), chunk]
    return server.memory.UploadBlob(iter(requests), timeout=asking.CALL_S).blob.id


def test_without_a_free_descriptor_reads_are_answered_and_writes_are_refused(server: RunningServer) -> None:
    asking.watch(server, asking.submit(server))
    with no_descriptor(server):
        status = server.status()
        assert status.server_version
        assert not status.workers[0].HasField("resident_bytes"), "it cannot be measured"
        refusal = asking.refused(lambda: upload(server))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        server.processing.ListJobs(processing_service_pb2.ListJobsRequest(), timeout=asking.CALL_S)
    assert server.status().workers[0].resident_bytes > 0
    assert upload(server)
    assert kind(asking.watch(server, asking.submit(server, picture(seed=3)))[-1]) == "succeeded"


def processing(server: RunningServer) -> system_status_pb2.DomainReadiness:
    return server.status().domains[-1]


def test_writes_that_fail_are_refused_and_make_the_server_degraded_until_they_work(server: RunningServer) -> None:
    kept = asking.submit(server)
    assert kind(asking.watch(server, kept)[-1]) == "succeeded"
    with failing_writes(server):
        refusals = {asking.refused(lambda: asking.submit(server)).reason for _ in range(3)}
        assert refusals == {"STORAGE_FAILED"}
        assert asking.job_of(server, kept).id == kept, "what is there can be read"
        eventually(lambda: processing(server).readiness == system_status_pb2.READINESS_DEGRADED)
        status = server.status()
        assert status.storage.failed_checkpoint_count >= 3
        assert status.domains[-1].last_failure.message == status.storage.last_failure.message
    eventually(lambda: processing(server).readiness == system_status_pb2.READINESS_READY)
    assert server.status().storage.failed_checkpoint_count == 0
    assert kind(asking.watch(server, asking.submit(server, picture(seed=3)))[-1]) == "succeeded"
    assert server.process.poll() is None
    server.kill()
    server.start()
    assert asking.job_of(server, kept).id == kept
