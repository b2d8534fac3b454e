"""Following a job to its end over broken connections and restarts of the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from server.cli.connection import Connection
from server.cli.failure import CliError
from server.cli.printing import notice

if TYPE_CHECKING:
    import grpc

    from deviceops.common.v1.job_event_pb2 import JobEvent
    from deviceops.inference.v1.generation_pb2 import PreviewOptions
    from deviceops.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse

PATIENCE_S = 300.0
"""How long to look for a server that went away."""

ENDINGS = frozenset({"succeeded", "partially_succeeded", "failed", "cancelled"})
"""The kinds of a job's last event."""

_FLEETING = frozenset({"progress", "preview", "heartbeat"})
"""Events that a server may forget; a cursor at one of them can lie beyond the journal after a restart."""


class Cursor:
    """Where a reader stands in a job's journal."""

    def __init__(self, job_id: str = "", after: int = 0) -> None:
        """`after`: the `sequence` of the last event that was seen; 0: none."""
        self.job_id = job_id
        self.after = after
        self.ended = False
        self.left = threading.Event()
        """Set by another thread: stop waiting for a lost server."""

    def note(self, event: JobEvent) -> None:
        """Count an event as seen."""
        kind = event.WhichOneof("kind") or ""
        self.job_id = event.job_id
        self.ended = kind in ENDINGS
        if kind not in _FLEETING:
            self.after = max(self.after, event.sequence)


def follow(
    connection: Connection, cursor: Cursor, patience_s: float = PATIENCE_S, previews: PreviewOptions | None = None
) -> Iterator[WatchJobResponse]:
    """Every message of a job from the cursor to its end; a lost server is waited for. Newest progress may come twice.

    `previews`: those to ask for; None: what the server gives by itself.

    Raises the gRPC error of a refused call, or of the first contact if no server comes within `patience_s`. Raises
    `CliError` if a server that was lost stays away, or comes back without the job.
    """
    import grpc

    from deviceops.processing.v1 import processing_service_pb2

    waiting = _Waiting(connection, patience_s, cursor)
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
            # A stream that ends well before the job has ended: the server is going down in good order.
            if cursor.ended or _has_ended(connection, cursor.job_id):
                return
            waiting.for_server(None)


def _has_ended(connection: Connection, job_id: str) -> bool:
    """Whether the cursor lay behind the job's last event, so that nothing more comes."""
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
    """Submit a generation and follow it to its end. Each call is appended to `calls`: another thread may end it.

    A call that is lost before its first message is made again if it has a `request_id`: that joins the same job.
    """
    import grpc

    waiting = _Waiting(connection, PATIENCE_S, cursor)
    while not cursor.job_id:
        call = connection.inference.Generate(request)
        calls.append(call)
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
    """Whether the server, or the way to it, went away: worth waiting for."""
    import grpc

    return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE


def is_refusal(error: grpc.RpcError) -> bool:
    """Whether the server itself said no, with its reason: DRAINING, for one."""
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
    """Patience with one server: told once, longer from try to try, and not without end."""

    def __init__(self, connection: Connection, patience_s: float, cursor: Cursor) -> None:
        self._connection, self._patience_s, self._cursor = connection, patience_s, cursor
        self._heard = bool(cursor.job_id and cursor.after)
        self.was_lost = False
        self._deadline, self._pause_s = None, 0.1

    def over(self) -> None:
        """It is back."""
        self._heard = True
        self._deadline, self._pause_s = None, 0.1

    def for_server(self, error: grpc.RpcError | None) -> None:
        """Until the server can be reached, or has had a little time.

        Raises at the end of patience: `error` if the server never answered, else `CliError` with the way back.
        """
        import grpc

        now = time.monotonic()
        if self._deadline is None:
            notice(f"The connection to {self._connection.address} is lost; looking for the server …")
            self._deadline = now + self._patience_s
        self.was_lost = self._heard
        left_s = self._deadline - now
        if left_s <= 0 or self._cursor.left.is_set() or not self._connection.is_alive():
            raise self._given_up() if self._heard or error is None else error
        # A server that answers but is still starting would otherwise be asked without pause.
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
