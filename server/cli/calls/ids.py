"""Resolves ids on the command line: whole ids, or prefixes that only one id has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from server.cli.calls.connection import Connection
from server.cli.calls.pages import LARGEST_PAGE, pages
from server.cli.console.failure import USAGE, CliError

if TYPE_CHECKING:
    from deviceops.processing.v1.processing_service_pb2 import JobFilter, ListJobsResponse

_SHOWN = 5


def job(connection: Connection, text: str) -> str:
    """The id of a job from its id or a prefix. Raises `CliError` (usage) for a prefix of several ids."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    return _meant(
        text,
        lambda: connection.processing.GetJob(pb.GetJobRequest(job_id=text)),
        lambda: (one.id for page in job_pages(connection, pb.JobFilter(), None) for one in page.jobs),
    )


def blob(connection: Connection, text: str) -> str:
    """As `job`, for blobs."""
    from deviceops.memory.v1 import memory_service_pb2 as pb

    def page(token: str) -> pb.ListBlobsResponse:
        return connection.memory.ListBlobs(pb.ListBlobsRequest(page_size=LARGEST_PAGE, page_token=token))

    def every() -> Iterator[str]:
        return (one.id for each in pages(page) for one in each.blobs)

    return _meant(text, lambda: connection.memory.GetBlob(pb.GetBlobRequest(blob_id=text)), every)


def session(connection: Connection, text: str) -> str:
    """As `job`, for sessions."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    def page(token: str) -> pb.ListSessionsResponse:
        return connection.processing.ListSessions(pb.ListSessionsRequest(page_size=LARGEST_PAGE, page_token=token))

    def every() -> Iterator[str]:
        return (one.id for each in pages(page) for one in each.sessions)

    return _meant(text, lambda: connection.processing.GetSession(pb.GetSessionRequest(session_id=text)), every)


def device(connection: Connection, text: str) -> str:
    """As `job`, for devices and their aliases."""
    from deviceops.device.v1 import device_service_pb2 as pb

    def every() -> Iterator[str | tuple[str, str]]:
        for one in connection.device.ListDevices(pb.ListDevicesRequest()).devices:
            yield from ((name, one.id) for name in (one.id, *one.aliases))

    return _meant(text, lambda: connection.device.GetDevice(pb.GetDeviceRequest(device_id=text)), every)


def pool(connection: Connection, text: str) -> str:
    """As `job`, for memory pools."""
    from deviceops.memory.v1 import memory_service_pb2 as pb

    return _meant(
        text,
        lambda: connection.memory.GetMemoryPool(pb.GetMemoryPoolRequest(memory_pool_id=text)),
        lambda: (one.id for one in connection.memory.ListMemoryPools(pb.ListMemoryPoolsRequest()).memory_pools),
    )


def model(connection: Connection, text: str) -> str:
    """As `job`, for models."""
    from deviceops.model.v1 import model_service_pb2 as pb

    def page(token: str) -> pb.ListModelsResponse:
        return connection.model.ListModels(pb.ListModelsRequest(page_size=LARGEST_PAGE, page_token=token))

    def every() -> Iterator[str]:
        return (one.id for each in pages(page) for one in each.models)

    return _meant(text, lambda: connection.model.GetModel(pb.GetModelRequest(model_id=text)), every)


def job_pages(connection: Connection, chosen: JobFilter, limit: int | None) -> Iterator[ListJobsResponse]:
    """Pages of jobs, newest first, with at most `limit` jobs in total; None: all."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    token = ""
    while limit is None or limit > 0:
        size = LARGEST_PAGE if limit is None else min(limit, LARGEST_PAGE)
        page = connection.processing.ListJobs(pb.ListJobsRequest(page_size=size, page_token=token, filter=chosen))
        yield page
        limit, token = None if limit is None else limit - len(page.jobs), page.next_page_token
        if not token:
            return


def _meant(text: str, get: Callable[[], Any], every: Callable[[], Iterable[str | tuple[str, str]]]) -> str:
    """The only id that begins with `text`; `text` itself if it is an id or no id begins so, since the server then refuses
    it with a reason."""
    import grpc

    try:
        get()
    except grpc.RpcError as error:
        if not text or not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.NOT_FOUND:
            return text
    else:
        return text
    named = ((one, one) if isinstance(one, str) else one for one in every())
    found = sorted({whole for name, whole in named if name.startswith(text)})
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
        raise CliError(f"{text} begins {len(found)} ids: {shown}; write more of it", USAGE)
    return found[0] if found else text
