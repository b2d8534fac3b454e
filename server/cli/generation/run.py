"""Running generations. A thread follows each one, so that Ctrl-C in the main thread can cancel them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.cli.calls.connection import Connection
from server.cli.calls.following import Cursor, generate_and_follow, is_loss
from server.cli.console.failure import CliError, explain_failure
from server.cli.console.printing import bytes_text, duration_s, notice, seconds_text

if TYPE_CHECKING:
    import grpc

    from deviceops.common.v1.job_event_pb2 import JobCancelled, JobEvent
    from deviceops.inference.v1.generated_image_pb2 import GeneratedImage, GenerationResult
    from deviceops.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse

    Observer = Callable[[GenerateResponse | WatchJobResponse], None]


_STOP_S = 10.0
"""Seconds that the server may take to accept a request to stop a job."""


@dataclass
class Ending:
    """The end of a generation and its pictures."""

    event: JobEvent
    images: dict[int, GeneratedImage] = field(default_factory=dict["int", "GeneratedImage"])
    """Pictures by index, failed ones too."""
    result: GenerationResult | None = None
    """The result; None: the job did not succeed, not even in part."""


class GenerationRun:
    """One generation. `work` follows it to its end in one thread; another thread may `cancel` or `leave` it."""

    def __init__(self, connection: Connection, request: GenerateRequest, observers: Sequence[Observer] = ()) -> None:
        """`observers` receive every message, in the thread of `work`."""
        self._connection, self._request, self._observers = connection, request, observers
        self._cursor, self._calls = Cursor(), list["grpc.Call"]()
        self._known = threading.Event()

    def work(self) -> Ending:
        """Submit the generation and follow it to its end. Raises the gRPC error of a refused call."""
        images: dict[int, GeneratedImage] = {}
        try:
            for message in generate_and_follow(self._connection, self._request, self._cursor, self._calls):
                self._known.set()
                if message.WhichOneof("output") == "image":
                    images[message.image.index] = message.image
                for observer in self._observers:
                    observer(message)
                if self._cursor.ended:
                    return _ending(message, images)
        finally:
            self._known.set()
        raise CliError("the server ended the call before the job had an end")

    @property
    def job_id(self) -> str:
        """The job's id; empty before the first message."""
        return self._cursor.job_id

    def cancel(self) -> None:
        """Request that the job stops; `work` then returns its last event."""
        # The id comes with the first message.
        if not self._known.wait(2.0) or not self.job_id:
            return self.leave()
        if not self._stop_job(self.job_id):
            notice(f"The server cannot be reached: if it comes back, `deviceops cancel {self.job_id}` stops the job.")
            self.leave()
        return None

    def leave(self) -> None:
        """End the call at once. The server cancels a job that belongs to the call; a detached job is cancelled by its id."""
        self._cursor.left.set()
        for call in tuple(self._calls):
            call.cancel()
        if self._request.detached and not self.job_id:
            self._stop_unknown()

    def _stop_unknown(self) -> None:
        """Stop the job if the server has accepted it although no message arrived."""
        import grpc

        from deviceops.processing.v1 import processing_service_pb2 as pb

        chosen = pb.JobFilter(request_id=self._request.request_id)
        with contextlib.suppress(grpc.RpcError):
            answer = self._connection.processing.ListJobs(pb.ListJobsRequest(filter=chosen), timeout=_STOP_S)
            for one in answer.jobs:
                self._stop_job(one.id)

    def _stop_job(self, job_id: str) -> bool:
        """Cancel a job. Returns whether the server answered."""
        import grpc

        from deviceops.processing.v1 import processing_service_pb2 as pb

        try:
            self._connection.processing.CancelJob(pb.CancelJobRequest(job_id=job_id, cause="Ctrl-C"), timeout=_STOP_S)
        except grpc.RpcError as error:
            # A refusal means that the job has just ended; `work` reports that end.
            return not is_loss(error)
        return True


def _ending(message: GenerateResponse | WatchJobResponse, images: dict[int, GeneratedImage]) -> Ending:
    output = message.WhichOneof("output")
    result: GenerationResult | None = getattr(message, output) if output in ("result", "generation_result") else None
    if result is not None:
        images.update({image.index: image for image in result.images})
    return Ending(message.event, images, result)


def run_all(runs: Sequence[GenerationRun]) -> tuple[list[Ending], bool]:
    """Follow all generations to their ends. Returns the ends, and whether Ctrl-C was pressed.

    The first Ctrl-C cancels the jobs; a second one leaves without waiting for their ends. Raises the first error in the
    order of `runs`, after all have ended.
    """
    with concurrent.futures.ThreadPoolExecutor(len(runs)) as pool:
        futures = [pool.submit(run.work) for run in runs]
        interrupted = False
        try:
            try:
                _wait(futures)
            except KeyboardInterrupt:
                interrupted = True
                notice("Cancelling; the server tells when it has stopped. Ctrl-C again does not wait for that.")
                for run in runs:
                    run.cancel()
                _wait(futures)
        except BaseException:
            for run in runs:
                run.leave()
            raise
    try:
        return [future.result() for future in futures], interrupted
    except Exception:
        if interrupted:
            # A generation that was left has no last event.
            raise KeyboardInterrupt from None
        raise


def _wait(futures: Sequence[concurrent.futures.Future[Ending]]) -> None:
    # In slices, because Ctrl-C cannot interrupt an endless wait on Windows.
    while concurrent.futures.wait(futures, timeout=0.5).not_done:
        pass


def proof(cancelled: JobCancelled) -> str:
    """The server's report of how a job stopped, as text."""
    freed = "".join(
        f"; gave back {bytes_text(part.freed_bytes)} on {part.device_id}"
        for part in cancelled.freed
        if part.HasField("freed_bytes")
    )
    return (
        f"Cancelled in stage {cancelled.stage}, {seconds_text(duration_s(cancelled.latency))} after the request{freed}."
    )


def check_ended_well(event: JobEvent) -> None:
    """Raise `CliError` for a job that failed, succeeded only in part, or was cancelled by another client."""
    match event.WhichOneof("kind"):
        case "failed":
            raise CliError(f"job {event.job_id} failed: {explain_failure(event.failed.failure)}")
        case "cancelled":
            raise CliError(f"job {event.job_id}: {proof(event.cancelled)}")
        case "partially_succeeded":
            part = event.partially_succeeded
            raise CliError(f"job {event.job_id} made {part.succeeded_count} pictures, {part.failed_count} failed")
        case _:
            return
