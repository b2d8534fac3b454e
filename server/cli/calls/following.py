"""Follows a job to its end through broken connections and restarts of the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from server.cli.calls.connection import Connection
from server.cli.console.failure import CliError
from server.cli.console.printing import notice

if TYPE_CHECKING:
    import grpc

    from deviceops.common.v1.job_event_pb2 import JobEvent
    from deviceops.inference.v1.generation_pb2 import PreviewOptions
    from deviceops.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse

RECONNECT_S = 300.0
"""Seconds to try to reconnect to a server that went away."""

ENDINGS = frozenset({"succeeded", "partially_succeeded", "failed", "cancelled"})
"""Kinds of a job's last event."""

_FLEETING = frozenset({"progress", "preview", "heartbeat"})
"""Events that the journal may drop: after a restart, a cursor at one of them can be beyond the journal."""


class Cursor:
    """A reader's position in a job's journal."""

    def __init__(self, job_id: str = "", after: int = 0) -> None:
        """`after`: the `sequence` of the last event that the reader has seen; 0: none."""
        self.job_id = job_id
        self.after = after
        self.ended = False
        self.left = threading.Event()
        """Set by another thread to end the wait for a lost server."""

    def note(self, event: JobEvent) -> None:
        """Move the position to an event."""
        kind = event.WhichOneof("kind") or ""
        self.job_id = event.job_id
        self.ended = kind in ENDINGS
        if kind not in _FLEETING:
            self.after = max(self.after, event.sequence)


def follow(
    connection: Connection, cursor: Cursor, reconnect_s: float = RECONNECT_S, previews: PreviewOptions | None = None
) -> Iterator[WatchJobResponse]:
    """Every message of a job from the cursor to its end, with reconnections to a lost server. Progress may come twice.

    `previews`: the previews to request; None: the server's default.

    Raises the gRPC error of a refused call, or of the first connection if no server answers within `reconnect_s`. Raises
    `CliError` if a lost server does not come back in time, or comes back without the job.
    """
    import grpc

    from deviceops.processing.v1 import processing_service_pb2

    waiting = _Waiting(connection, reconnect_s, cursor)
    while not cursor.ended:
        request = processing_service_pb2.WatchJobRequest(
            job_id=cursor.job_id, after_sequence=cursor.after, previews=previews
        )
        try:
            for message in connection.processing.WatchJob(request):
                waiting.over()
                cursor.note(message.event)
                yield message
        except grpc.RpcError as error:
            if not is_loss(error):
                raise _forgotten(error, cursor, connection) if waiting.was_lost else error from None
            waiting.for_server(error)
        else:
            # A shutting-down server ends the stream without an error before the job has ended.
            if cursor.ended or _has_ended(connection, cursor.job_id):
                return
            waiting.for_server(None)


def _has_ended(connection: Connection, job_id: str) -> bool:
    """Whether the job has ended, so that no further event comes."""
    import grpc

    from deviceops.processing.v1 import processing_service_pb2

    try:
        job = connection.processing.GetJob(processing_service_pb2.GetJobRequest(job_id=job_id)).job
    except grpc.RpcError:
        return False
    return job.HasField("end_time")


def generate_and_follow(
    connection: Connection, request: GenerateRequest, cursor: Cursor, calls: list[grpc.Call]
) -> Iterator[GenerateResponse | WatchJobResponse]:
    """Submit a generation and follow it to its end. Appends each call to `calls`, so that another thread can end it.

    Repeats a call that is lost before its first message if it has a `request_id`, which finds the same job.
    """
    import grpc

    waiting = _Waiting(connection, RECONNECT_S, cursor)
    while not cursor.job_id:
        call = connection.inference.Generate(request)
        calls.append(call)
        if cursor.left.is_set():
            # The other thread has left between the call and the line above.
            call.cancel()
        try:
            for message in call:
                cursor.note(message.event)
                yield message
            break
        except grpc.RpcError as error:
            if not is_loss(error) or not (cursor.job_id or (request.request_id and not is_refusal(error))):
                raise
            if not cursor.job_id:
                waiting.for_server(error)
    if cursor.job_id and not cursor.ended:
        yield from follow(connection, cursor)


def is_loss(error: grpc.RpcError) -> bool:
    """Whether the connection to the server was lost, so that a reconnection is possible."""
    import grpc

    return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE


def is_refusal(error: grpc.RpcError) -> bool:
    """Whether the server itself refused the call, with a reason such as DRAINING."""
    import grpc
    from grpc_status import rpc_status

    return isinstance(error, grpc.Call) and rpc_status.from_call(error) is not None


def _forgotten(error: grpc.RpcError, cursor: Cursor, connection: Connection) -> Exception:
    import grpc

    if not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.NOT_FOUND:
        return error
    return CliError(
        f"job {cursor.job_id} is lost: the server at {connection.address} answers again and does not know it; it was "
        "deleted, or the server was started on another state folder"
    )


class _Waiting:
    """The attempts to reconnect to one server: announced once, with growing pauses, up to a time limit."""

    def __init__(self, connection: Connection, reconnect_s: float, cursor: Cursor) -> None:
        self._connection, self._reconnect_s, self._cursor = connection, reconnect_s, cursor
        self._heard = bool(cursor.job_id and cursor.after)
        self.was_lost = False
        self._deadline, self._pause_s = None, 0.1

    def over(self) -> None:
        """Record that the server answers again."""
        self._heard = True
        self._deadline, self._pause_s = None, 0.1

    def for_server(self, error: grpc.RpcError | None) -> None:
        """Wait for one pause, and then up to 2 s for the connection; the caller tries its call again.

        Raises after the time limit: `error` if the server never answered, else `CliError` with the command to go on.
        """
        import grpc

        now = time.monotonic()
        if self._deadline is None:
            notice(f"The connection to {self._connection.address} is lost; looking for the server …")
            self._deadline = now + self._reconnect_s
        self.was_lost = self._heard
        left_s = self._deadline - now
        if left_s <= 0 or self._cursor.left.is_set() or not self._connection.is_alive():
            raise self._given_up() if self._heard or error is None else error
        # Without the pause, a server that is still starting would get calls in a busy loop.
        self._cursor.left.wait(min(self._pause_s, left_s))
        self._pause_s = min(2 * self._pause_s, 2.0)
        try:
            grpc.channel_ready_future(self._connection.channel).result(timeout=min(left_s, 2.0))
        except grpc.FutureTimeoutError:
            return

    def _given_up(self) -> CliError:
        if not self._connection.is_alive():
            return CliError("the server went away before the job ended")
        return CliError(
            f"the server at {self._connection.address} cannot be reached; the job goes on when it is back: "
            f"deviceops watch {self._cursor.job_id} --after {self._cursor.after}"
        )
