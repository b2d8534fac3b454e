"""MemoryService: blobs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from domains import limits
from domains.device.devices import Devices
from domains.draining import Draining
from domains.errors import ErrorReason, InvalidRequest, NotFound, Violation
from domains.memory.blobs.blob import Blob, BlobState
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.uploads import BlobWriter
from domains.processing.jobs.unread import Unread
from server import paging
from server.memory.blob_messages import from_filter, from_registration, from_spec, to_blob
from server.memory.blob_pieces import extent_of, read_ahead
from server.once import asked_of, keeps_its_answers

Context = grpc.aio.ServicerContext[Any, Any]


class BlobMethods:
    """The methods for blobs."""

    def __init__(
        self,
        blobs: BlobStore,
        devices: Devices | None = None,
        unread: Unread | None = None,
        draining: Draining | None = None,
    ) -> None:
        """`devices`, `unread`, `draining`: None on a server of blobs alone."""
        self._blobs = blobs
        self._devices_of_blobs = devices
        self._unread = unread or Unread()
        self._draining = draining or Draining()

    @keeps_its_answers
    async def RegisterBlob(
        self, request: memory_service_pb2.RegisterBlobRequest, context: Context
    ) -> memory_service_pb2.RegisterBlobResponse:
        """Make a blob of a file or shared memory of the caller."""
        asked = asked_of(request)
        blob = self._blobs.requests.again(asked)
        if blob is None:
            self._draining.check()
            blob = await self._blobs.requests.register(from_registration(request), asked)
        return memory_service_pb2.RegisterBlobResponse(blob=to_blob(blob))

    @keeps_its_answers
    async def CreateBlob(
        self, request: memory_service_pb2.CreateBlobRequest, context: Context
    ) -> memory_service_pb2.CreateBlobResponse:
        """Make a blob and allocate its memory."""
        asked = asked_of(request)
        blob = self._blobs.requests.again(asked)
        if blob is None:
            self._draining.check()
            blob = await self._blobs.requests.create(from_spec(request.blob_spec, self._device_id), asked)
        return memory_service_pb2.CreateBlobResponse(blob=to_blob(blob))

    async def UploadBlob(
        self, requests: AsyncIterator[memory_service_pb2.UploadBlobRequest], context: Context
    ) -> memory_service_pb2.UploadBlobResponse:
        """Write a blob in one stream. The bytes that arrived stay if the stream breaks."""
        name, complete = await self._begin(await anext(aiter(requests), None))
        if not complete:
            with self._blobs.writing(name) as writer:
                await _write_all(writer, requests)
        return memory_service_pb2.UploadBlobResponse(blob=to_blob(self._blobs.get(name)))

    async def _begin(self, first: memory_service_pb2.UploadBlobRequest | None) -> tuple[str, bool]:
        """The blob of the first message, and whether an earlier upload has completed it."""
        match first and first.WhichOneof("part"):
            case "blob_spec" if first:
                asked = asked_of(first)
                blob = self._blobs.requests.again(asked)
                if blob is None:
                    self._draining.check()
                    blob = await self._blobs.requests.begin_upload(from_spec(first.blob_spec, self._device_id), asked)
                return blob.id, blob.state is BlobState.READY
            case "blob_id" if first:
                return first.blob_id, False
            case _:
                message = "the first message says which blob: set `blob_spec` or `blob_id`"
                raise InvalidRequest([Violation(field="part", message=message)])

    async def WriteBlobChunk(
        self, request: memory_service_pb2.WriteBlobChunkRequest, context: Context
    ) -> memory_service_pb2.WriteBlobChunkResponse:
        """Write one chunk."""
        chunk = request.chunk
        blob = await self._blobs.write_chunk(request.blob_id, chunk.offset_bytes, chunk.data, _crc32c(chunk))
        return memory_service_pb2.WriteBlobChunkResponse(blob=to_blob(blob))

    async def ReadBlob(self, request: memory_service_pb2.ReadBlobRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream the bytes in chunks, each read while the one before it is sent (yields serialised responses)."""
        async with self._blobs.reading(request.blob_id) as reader:
            begin, end, chunk = extent_of(request, reader.blob)
            with self._unread.reading():
                ahead = read_ahead(reader, begin, end, chunk, reader.blob.size_bytes)
                try:
                    for following in range(begin + chunk, end, chunk):
                        message = await ahead
                        ahead = read_ahead(reader, following, end, chunk, None)
                        yield message
                    yield await ahead
                    if end == reader.blob.size_bytes:
                        self._unread.read(reader.blob.id)
                finally:
                    # The thread may still read from the content that is closed next.
                    await asyncio.wait([ahead])

    async def GetBlob(
        self, request: memory_service_pb2.GetBlobRequest, context: Context
    ) -> memory_service_pb2.GetBlobResponse:
        """Return one blob."""
        return memory_service_pb2.GetBlobResponse(blob=to_blob(self._blobs.look(request.blob_id)))

    async def ListBlobs(
        self, request: memory_service_pb2.ListBlobsRequest, context: Context
    ) -> memory_service_pb2.ListBlobsResponse:
        """List the blobs that pass the filter, newest first."""
        place, size = paging.place_of(request.page_token), paging.size_of(request.page_size)
        wanted = from_filter(request.filter, self._device_id)
        page = self._blobs.page(wanted, place, size)

        def read(count: int) -> tuple[Sequence[Blob], int | None]:
            # The page is read again only if the message size cuts it.
            part = page if count == size else self._blobs.page(wanted, place, count)
            return part.blobs, part.next_place

        blobs, following = paging.fill(read, size, to_blob)
        total = await self._blobs.total_bytes(wanted)
        return memory_service_pb2.ListBlobsResponse(blobs=blobs, next_page_token=following, total_bytes=total)

    async def DeleteBlob(
        self, request: memory_service_pb2.DeleteBlobRequest, context: Context
    ) -> memory_service_pb2.DeleteBlobResponse:
        """Delete a blob now, or when it is no longer in use."""
        deleted = self._blobs.delete(request.blob_id, only_if_unused=request.only_if_unused)
        return memory_service_pb2.DeleteBlobResponse(
            deferred=deleted.deferred, holder_ids=deleted.holder_ids[: limits.NAMED_IDS]
        )

    def _device_id(self, name: str) -> str:
        """The id of a device by id or alias. An empty name stays empty."""
        if name and self._devices_of_blobs is None:
            message = f"there is no device {name!r}: this server has none"
            raise NotFound(message, ErrorReason.DEVICE_NOT_FOUND, device_id=name)
        return self._devices_of_blobs.get(name).device.id if name and self._devices_of_blobs else ""


async def _write_all(writer: BlobWriter, requests: AsyncIterator[memory_service_pb2.UploadBlobRequest]) -> None:
    """Write the chunks of the stream, which must end with the blob."""
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            message = "after the first message only chunks may follow"
            raise InvalidRequest([Violation(field="part", message=message)])
        await writer.write(request.chunk.offset_bytes, request.chunk.data, _crc32c(request.chunk))
    blob = writer.blob
    if blob.state is BlobState.WRITING and not blob.missing_bytes:
        blob = await writer.finish()
    _check_whole(blob)


def _check_whole(blob: Blob) -> None:
    if blob.missing_bytes:
        message = f"the stream ended after {blob.written_bytes} of {blob.size_bytes} bytes; go on with `blob_id`"
        violation = Violation(field="chunk", message=message)
        raise InvalidRequest([violation], blob_id=blob.id, written_bytes=blob.written_bytes)


def _crc32c(chunk: blob_pb2.BlobChunk) -> int | None:
    return chunk.crc32c if chunk.HasField("crc32c") else None
