"""Asking a running server for pictures, and reading what it tells."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from deviceops.common.v1 import job_event_pb2
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.memory.v1 import memory_service_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from tests.server.harness import RunningServer

CALL_S = 120.0
"""No call of a test waits longer than this."""
LONG_STEPS = 1000
"""More steps than any test waits for: such a job runs until it is stopped."""
ENDINGS = {"succeeded", "partially_succeeded", "failed", "cancelled"}
NEWEST_ONLY = {"progress", "preview"}
UNFINISHED = (
    job_event_pb2.JOB_STATE_QUEUED,
    job_event_pb2.JOB_STATE_RUNNING,
    job_event_pb2.JOB_STATE_PAUSING,
    job_event_pb2.JOB_STATE_PAUSED,
    job_event_pb2.JOB_STATE_CANCELLING,
    job_event_pb2.JOB_STATE_INTERRUPTED,
)

Update = processing_service_pb2.WatchJobResponse


def picture(*, steps: int = 2, seed: int = 1, count: int = 1, previews: int = 0) -> generation_pb2.Generation:
    """A picture as small and quick as there is."""
    return generation_pb2.Generation(
        prompt="a red apple",
        width_px=64,
        height_px=64,
        image_count=count,
        sampling=sampling_pb2.Sampling(steps=steps, seed=seed, sampler="euler"),
        previews=generation_pb2.PreviewOptions(every_steps=previews, max_edge_px=64),
    )


def exact_picture(*, steps: int = 2, seed: int = 1) -> generation_pb2.Generation:
    """A picture whose bytes do not depend on the jobs that run beside it."""
    generation = picture(steps=steps, seed=seed)
    generation.determinism = generation_pb2.DETERMINISM_EXACT
    return generation


def submit(
    server: RunningServer,
    generation: generation_pb2.Generation | None = None,
    options: job_event_pb2.JobOptions | None = None,
    request_id: str = "",
) -> str:
    """SubmitJob; the job's id."""
    spec = job_pb2.JobSpec(generation=generation or picture())
    request = processing_service_pb2.SubmitJobRequest(spec=spec, options=options, request_id=request_id)
    return server.processing.SubmitJob(request, timeout=CALL_S).job.id


def generate(server: RunningServer, generation: generation_pb2.Generation, *, detached: bool = False) -> Any:
    """The Generate door, as a call to iterate or leave."""
    request = inference_service_pb2.GenerateRequest(generation=generation, detached=detached)
    return server.inference.Generate(request, timeout=CALL_S)


def follow(server: RunningServer, job_id: str, after: int = 0) -> Any:
    """WatchJob, as a call to iterate or leave."""
    request = processing_service_pb2.WatchJobRequest(job_id=job_id, after_sequence=after)
    return server.processing.WatchJob(request, timeout=CALL_S)


def watch(server: RunningServer, job_id: str, after: int = 0) -> list[Update]:
    """Everything WatchJob tells, to the job's end; heartbeats belong to no journal and are left out."""
    return journal_of(follow(server, job_id, after))


def journal_of(updates: Iterable[Any]) -> list[Any]:
    """Without heartbeats."""
    return [update for update in updates if kind(update) != "heartbeat"]


def kind(update: Any) -> str:
    """What happened."""
    return str(update.event.WhichOneof("kind"))


def kinds(updates: Iterable[Any]) -> list[str]:
    """What happened, in order."""
    return [kind(update) for update in updates]


def durable(updates: Iterable[Any]) -> list[bytes]:
    """The events that every watcher gets, as bytes."""
    return [update.SerializeToString(deterministic=True) for update in updates if kind(update) not in NEWEST_ONLY]


def job_of(server: RunningServer, job_id: str) -> job_pb2.Job:
    """GetJob."""
    return server.processing.GetJob(processing_service_pb2.GetJobRequest(job_id=job_id), timeout=CALL_S).job


def cancel(server: RunningServer, job_id: str, cause: str = "") -> job_pb2.Job:
    """CancelJob."""
    request = processing_service_pb2.CancelJobRequest(job_id=job_id, cause=cause)
    return server.processing.CancelJob(request, timeout=CALL_S).job


def end_all(server: RunningServer) -> None:
    """Cancel every job that has not ended, and wait for their ends."""
    request = processing_service_pb2.ListJobsRequest(
        filter=processing_service_pb2.JobFilter(states=UNFINISHED), page_size=1000
    )
    left = [job.id for job in server.processing.ListJobs(request, timeout=CALL_S).jobs]
    # One may end by itself first, and its record may go.
    for job_id in left:
        with suppress(grpc.RpcError):
            cancel(server, job_id)
    for job_id in left:
        with suppress(grpc.RpcError):
            watch(server, job_id)


def delete(server: RunningServer, job_id: str) -> int:
    """DeleteJob; the bytes that it freed."""
    request = processing_service_pb2.DeleteJobRequest(job_id=job_id)
    return server.processing.DeleteJob(request, timeout=CALL_S).freed_bytes


def blob(server: RunningServer, blob_id: str) -> bytes:
    """ReadBlob, joined."""
    request = memory_service_pb2.ReadBlobRequest(blob_id=blob_id)
    return b"".join(part.data for part in server.memory.ReadBlob(request, timeout=CALL_S))


def until(call: Iterable[Any], wanted: Callable[[Any], bool]) -> Any:
    """Read a stream up to the first update that is wanted."""
    for update in call:
        if wanted(update):
            return update
    raise AssertionError("the stream ended before what was waited for")


def denoising(update: Any) -> bool:
    """The job has done at least one step of many."""
    return (
        kind(update) == "progress"
        and update.event.progress.stage == "denoising"
        and update.event.progress.completed > 0
    )


def wait_for_step(server: RunningServer, job_id: str) -> int:
    """Wait until the job denoises; the sequence of the event that said so."""
    call = follow(server, job_id)
    try:
        return until(call, denoising).event.sequence
    finally:
        call.cancel()


@contextmanager
def occupied(server: RunningServer, jobs: int = 2) -> Generator[list[str]]:
    """The device's lanes are full of jobs that run until they are stopped, so that others wait."""
    blockers = [submit(server, picture(steps=LONG_STEPS, seed=n)) for n in range(jobs)]
    try:
        for job_id in blockers:
            wait_for_step(server, job_id)
        yield blockers
    finally:
        for job_id in blockers:
            cancel(server, job_id)
        for job_id in blockers:
            watch(server, job_id)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls side by side; their answers in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(CALL_S) for future in [pool.submit(call) for call in calls]]


class Refusal:
    """What a refused call said, unpacked."""

    def __init__(self, error: grpc.RpcError) -> None:
        assert isinstance(error, grpc.Call)
        self.code: grpc.StatusCode = error.code()
        self.message: str = error.details() or ""
        status: status_pb2.Status | None = rpc_status.from_call(error)
        self._status = status or status_pb2.Status()
        self.info = self._detail(error_details_pb2.ErrorInfo())
        self.reason = self.info.reason
        self.facts = dict(self.info.metadata)
        self.bad_request = self._detail(error_details_pb2.BadRequest())
        self.fields = [violation.field for violation in self.bad_request.field_violations]

    def _detail(self, empty: Any) -> Any:
        for detail in self._status.details:
            if detail.Unpack(empty):
                return empty
        return empty

    def has(self, empty: Any) -> bool:
        """Whether a detail of this type came along."""
        return any(detail.Is(empty.DESCRIPTOR) for detail in self._status.details)


def refused(call: Callable[[], Any]) -> Refusal:
    """The call must be refused; streams are read to the end."""
    with pytest.raises(grpc.RpcError) as told:
        whole(call())
    return Refusal(told.value)


def whole(answer: Any) -> Any:
    """A stream's messages, or the answer itself."""
    return list(answer) if hasattr(answer, "__next__") else answer
