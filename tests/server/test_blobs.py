"""The blob plane over gRPC: every method, every refusal with its reason."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from deviceops.common.v1.label_pb2 import Label
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from domains.memory.blobs.quotas import BlobLimits
from domains.memory.blobs.store import BlobStore
from tests.domains.memory.blobs import MIB, sha, some_bytes
from tests.server.blob_host import hosted
from tests.server.harness import running_server

pb = memory_service_pb2


class Host:
    """A server and a stub to talk to it."""

    def __init__(self, memory: Any, store: BlobStore, root: Path) -> None:
        self.memory = memory
        self.store = store
        self.root = root

    async def get(self, name: str) -> blob_pb2.Blob:
        return (await self.memory.GetBlob(pb.GetBlobRequest(blob_id=name))).blob

    async def read(self, name: str, **more: Any) -> bytes:
        call = self.memory.ReadBlob(pb.ReadBlobRequest(blob_id=name, **more))
        return b"".join([part.data async for part in call])

    async def upload(self, messages: Iterable[pb.UploadBlobRequest]) -> blob_pb2.Blob:
        return (await self.memory.UploadBlob(iter(messages))).blob


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    root, state = tmp_path / "root", tmp_path / "state"
    root.mkdir()
    state.mkdir()
    limits = BlobLimits(max_count=20)
    async with (
        hosted(state, [root], limits) as (address, store),
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Host(MemoryServiceStub(channel), store, root)


def upload_of(data: bytes, begin: int = 0, piece: int = MIB, **first: Any) -> Iterator[pb.UploadBlobRequest]:
    """The messages of an upload, from an offset on."""
    if "blob_id" not in first:
        first.setdefault("blob_spec", blob_pb2.BlobSpec(size_bytes=len(data)))
    yield pb.UploadBlobRequest(**first)
    for offset in range(begin, len(data), piece):
        part = data[offset : offset + piece]
        chunk = blob_pb2.BlobChunk(offset_bytes=offset, data=part, crc32c=google_crc32c.value(part))
        yield pb.UploadBlobRequest(chunk=chunk)


async def refused(call: Awaitable[Any]) -> tuple[str, dict[str, str]]:
    """Reason and facts of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await call
    status = rpc_status.from_call(told.value)  # pyright: ignore[reportArgumentType]  # has what it reads
    assert status is not None, told.value
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason, dict(info.metadata)


async def test_an_upload_is_read_back(host: Host) -> None:
    data = some_bytes(2 * MIB + 9)
    spec = blob_pb2.BlobSpec(
        size_bytes=len(data),
        sha256=sha(data),
        media_type="image/png",
        keep_for=Duration(seconds=60),
        labels=[Label(key="k", value="v")],
    )
    blob = await host.upload(upload_of(data, blob_spec=spec))
    assert blob.state == blob_pb2.BLOB_STATE_READY
    assert blob.tier == blob_pb2.BLOB_TIER_DISK
    assert blob.origin == blob_pb2.BLOB_ORIGIN_UPLOAD
    assert (blob.sha256, blob.written_bytes, blob.media_type) == (sha(data), len(data), "image/png")
    assert 0 < blob.expire_time.ToNanoseconds() - blob.create_time.ToNanoseconds() < 70e9
    assert await host.read(blob.id) == data
    assert await host.read(blob.id, offset_bytes=MIB - 1, length_bytes=5) == data[MIB - 1 : MIB + 4]
    assert await host.read(blob.id, offset_bytes=len(data)) == b""
    assert await host.get(blob.id) == blob_pb2.Blob.FromString((await host.get(blob.id)).SerializeToString())


async def test_the_first_message_tells_the_whole_size_and_an_empty_stretch_gives_one_message(host: Host) -> None:
    blob = await host.upload(upload_of(b"abc"))
    parts = [part async for part in host.memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob.id, offset_bytes=3))]
    assert [(part.offset_bytes, part.data, part.total_bytes) for part in parts] == [(3, b"", 3)]


async def test_a_broken_upload_goes_on_where_it_broke(host: Host) -> None:
    data = some_bytes(3 * MIB)
    reason, facts = await refused(host.upload(list(upload_of(data))[:2]))
    assert (reason, facts["written_bytes"]) == ("INVALID_FIELD", str(MIB))
    written = (await host.get(facts["blob_id"])).written_bytes
    blob = await host.upload(upload_of(data, written, blob_id=facts["blob_id"]))
    assert blob.sha256 == sha(data)
    reason, _ = await refused(host.upload(upload_of(data, blob_id=blob.id)))
    assert reason == "ILLEGAL_STATE"


async def test_an_upload_with_a_request_id_goes_on_by_itself(host: Host) -> None:
    data = some_bytes(2 * MIB)
    await refused(host.upload(list(upload_of(data, request_id="r"))[:2]))
    blob = await host.upload(upload_of(data, MIB, request_id="r"))
    assert blob.sha256 == sha(data)
    assert (await host.upload(upload_of(data, request_id="r"))).id == blob.id
    other = blob_pb2.BlobSpec(size_bytes=1)
    assert (await refused(host.upload(upload_of(b"x", blob_spec=other, request_id="r"))))[0] == "REQUEST_ID_REUSED"


async def test_bytes_that_are_there_are_answered_at_once(host: Host) -> None:
    data = some_bytes(100)
    blob = await host.upload(upload_of(data))
    spec = blob_pb2.BlobSpec(size_bytes=100, sha256=sha(data))
    assert (await host.upload([pb.UploadBlobRequest(blob_spec=spec)])).id == blob.id


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [pb.UploadBlobRequest(chunk=blob_pb2.BlobChunk(data=b"x"))],
        [pb.UploadBlobRequest(blob_spec=blob_pb2.BlobSpec(size_bytes=1))] * 2,
        [
            pb.UploadBlobRequest(blob_spec=blob_pb2.BlobSpec(size_bytes=1)),
            pb.UploadBlobRequest(chunk=blob_pb2.BlobChunk(data=b"xy")),
        ],
        [
            pb.UploadBlobRequest(blob_spec=blob_pb2.BlobSpec(size_bytes=9)),
            pb.UploadBlobRequest(chunk=blob_pb2.BlobChunk(offset_bytes=1, data=b"y")),
        ],
    ],
    ids=["nothing", "a chunk first", "two firsts", "too many bytes", "a gap"],
)
async def test_a_stream_out_of_order_is_invalid(host: Host, messages: list[pb.UploadBlobRequest]) -> None:
    assert (await refused(host.upload(messages)))[0] == "INVALID_FIELD"


async def test_clients_that_cannot_stream_write_chunk_by_chunk(host: Host) -> None:
    spec = blob_pb2.BlobSpec(size_bytes=6, tier=blob_pb2.BLOB_TIER_HOST)
    blob = (await host.memory.CreateBlob(pb.CreateBlobRequest(blob_spec=spec, request_id="r"))).blob
    assert blob.state == blob_pb2.BLOB_STATE_WRITING
    assert (await host.memory.CreateBlob(pb.CreateBlobRequest(blob_spec=spec, request_id="r"))).blob.id == blob.id

    async def write(offset: int, data: bytes, **more: int) -> blob_pb2.Blob:
        chunk = blob_pb2.BlobChunk(offset_bytes=offset, data=data, **more)  # pyright: ignore[reportArgumentType]
        request = pb.WriteBlobChunkRequest(blob_id=blob.id, chunk=chunk)
        return (await host.memory.WriteBlobChunk(request)).blob

    assert (await write(0, b"abc")).written_bytes == 3
    reason, facts = await refused(write(4, b"e"))
    assert (reason, facts["written_bytes"]) == ("INVALID_FIELD", "3")
    assert (await refused(write(3, b"d", crc32c=1)))[0] == "BLOB_CORRUPT"
    assert (await refused(write(3, bytes(MIB + 1))))[0] == "MESSAGE_TOO_LARGE"
    assert (await write(3, b"def")).state == blob_pb2.BLOB_STATE_READY
    assert (await write(3, b"def")).state == blob_pb2.BLOB_STATE_READY
    assert (await refused(write(3, b"xxx")))[0] == "ILLEGAL_STATE"
    assert await host.read(blob.id) == b"abcdef"


async def test_refusals_have_their_reasons(host: Host) -> None:
    async def create(**spec: Any) -> Any:
        return await host.memory.CreateBlob(pb.CreateBlobRequest(blob_spec=blob_pb2.BlobSpec(**spec)))

    half = (await create(size_bytes=2)).blob
    cases = {
        "INVALID_FIELD": create(size_bytes=1, tier=blob_pb2.BLOB_TIER_MAPPED),
        "DEVICE_NOT_FOUND": create(size_bytes=1, tier=blob_pb2.BLOB_TIER_DEVICE, device_id="cuda:9"),
        "STORAGE_FULL": create(size_bytes=1 << 60),
        "HOST_OUT_OF_MEMORY": create(size_bytes=1 << 60, tier=blob_pb2.BLOB_TIER_HOST),
        "SESSION_NOT_FOUND": create(size_bytes=1, session_id="s"),
        "RESERVATION_NOT_FOUND": create(size_bytes=1, reservation_id="r"),
        "BLOB_NOT_FOUND": host.get("none"),
        "ILLEGAL_STATE": host.read(half.id),
        "BLOB_CORRUPT": create(size_bytes=0, sha256="0" * 64),
    }
    for expected, call in cases.items():
        assert (await refused(call))[0] == expected
    assert (await refused(create(size_bytes=1, tier=99)))[0] == "INVALID_FIELD"
    ready = (await create(size_bytes=2, fill_byte=0)).blob
    assert (await refused(host.read(ready.id, expected_generation=2)))[0] == "ETAG_MISMATCH"
    assert (await refused(host.read(ready.id, offset_bytes=3)))[0] == "INVALID_FIELD"
    assert (await refused(host.read(ready.id, chunk_bytes=1)))[0] == "INVALID_FIELD"
    for _ in range(18):
        await create(size_bytes=0)
    assert (await refused(create(size_bytes=0)))[0] == "QUOTA_EXCEEDED"


async def test_a_file_is_registered_read_and_never_touched(host: Host) -> None:
    path = host.root / "weights"
    path.write_bytes(b"....weights")
    file = blob_pb2.MappedFile(path=str(path), offset_bytes=4)
    request = pb.RegisterBlobRequest(blob_id="weights", file=file, media_type="application/x-safetensors")
    blob = (await host.memory.RegisterBlob(request)).blob
    assert blob.tier == blob_pb2.BLOB_TIER_MAPPED
    assert blob.origin == blob_pb2.BLOB_ORIGIN_REGISTRATION
    assert (blob.generation, blob.file.path, blob.file.offset_bytes) == (1, str(path.resolve()), 4)
    assert (blob.sha256, blob.HasField("expire_time")) == (sha(b"weights"), False)
    assert await host.read("weights", expected_generation=1) == b"weights"
    assert not (await host.memory.DeleteBlob(pb.DeleteBlobRequest(blob_id="weights"))).deferred
    assert path.read_bytes() == b"....weights"
    outside = pb.RegisterBlobRequest(file=blob_pb2.MappedFile(path="/etc/passwd"))
    assert (await refused(host.memory.RegisterBlob(outside)))[0] == "PATH_OUTSIDE_ROOTS"
    assert (await refused(host.memory.RegisterBlob(pb.RegisterBlobRequest())))[0] == "INVALID_FIELD"
    segment = pb.RegisterBlobRequest(
        shared_memory=blob_pb2.SharedMemorySegment(name="Local\\deviceops-x"), size_bytes=1
    )
    assert (await refused(host.memory.RegisterBlob(segment)))[0] == "INVALID_FIELD"


async def test_a_delete_waits_for_an_open_read(host: Host) -> None:
    blob = await host.upload(upload_of(some_bytes(8 * MIB)))
    call = aiter(host.memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob.id)))
    first = await anext(call)
    assert (await host.get(blob.id)).reader_count == 1
    unused = pb.DeleteBlobRequest(blob_id=blob.id, only_if_unused=True)
    assert (await refused(host.memory.DeleteBlob(unused)))[0] == "BLOB_IN_USE"
    assert (await host.memory.DeleteBlob(pb.DeleteBlobRequest(blob_id=blob.id))).deferred
    assert (await host.get(blob.id)).state == blob_pb2.BLOB_STATE_DELETING
    rest = [part.data async for part in call]
    assert sha(b"".join([first.data, *rest])) == blob.sha256
    assert (await refused(host.get(blob.id)))[0] == "BLOB_NOT_FOUND"


async def test_lists_have_pages_and_filters(host: Host) -> None:
    for size in range(1, 6):
        await host.upload(upload_of(b"x" * size))
    request = pb.ListBlobsRequest(page_size=2)
    seen: list[int] = []
    while True:
        page = await host.memory.ListBlobs(request)
        assert page.total_bytes == 15
        seen += [blob.size_bytes for blob in page.blobs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [5, 4, 3, 2, 1]
    wanted = blob_pb2.BlobFilter(tiers=[blob_pb2.BLOB_TIER_DISK], sha256=sha(b"xx"))
    page = await host.memory.ListBlobs(pb.ListBlobsRequest(filter=wanted))
    assert [blob.size_bytes for blob in page.blobs] == [2]
    for bad in (
        pb.ListBlobsRequest(page_size=-1),
        pb.ListBlobsRequest(page_token="none of ours"),
        pb.ListBlobsRequest(filter=blob_pb2.BlobFilter(tiers=[99])),  # pyright: ignore[reportArgumentType]
    ):
        assert (await refused(host.memory.ListBlobs(bad)))[0] == "INVALID_FIELD"


@contextmanager
def host_process(state: Path, *roots: str) -> Generator[tuple[subprocess.Popen[str], MemoryServiceStub]]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.server.blob_host", str(state), *roots]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with grpc.insecure_channel(process.stdout.readline().strip()) as channel:
                yield process, MemoryServiceStub(channel)
        finally:
            process.kill()


def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    data = some_bytes(4 * MIB)
    spec = blob_pb2.BlobSpec(size_bytes=len(data), sha256=sha(data))
    with host_process(tmp_path / "state") as (process, memory):
        blob = memory.CreateBlob(pb.CreateBlobRequest(blob_spec=spec)).blob
        for offset in (0, MIB):
            chunk = blob_pb2.BlobChunk(offset_bytes=offset, data=data[offset : offset + MIB])
            memory.WriteBlobChunk(pb.WriteBlobChunkRequest(blob_id=blob.id, chunk=chunk))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with host_process(tmp_path / "state") as (_, memory):
        written = memory.GetBlob(pb.GetBlobRequest(blob_id=blob.id)).blob.written_bytes
        assert written == 2 * MIB
        done = memory.UploadBlob(upload_of(data, written, blob_id=blob.id)).blob
        assert done.state == blob_pb2.BLOB_STATE_READY
        parts = memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob.id))
        assert sha(b"".join(part.data for part in parts)) == sha(data)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs /dev/shm and /proc")
def test_the_server_holds_no_copy_of_what_it_maps(tmp_path: Path) -> None:
    size = 64 * MIB
    path = Path("/dev/shm") / f"deviceops-test-{os.getpid()}"
    path.write_bytes(some_bytes(MIB) * 64)
    try:
        with host_process(tmp_path / "state", "/dev/shm") as (process, memory):
            warm = memory.CreateBlob(pb.CreateBlobRequest(blob_spec=blob_pb2.BlobSpec(size_bytes=MIB, fill_byte=1)))
            list(memory.ReadBlob(pb.ReadBlobRequest(blob_id=warm.blob.id)))
            before = private_bytes_of(process.pid)
            file = blob_pb2.MappedFile(path=str(path))
            blob = memory.RegisterBlob(pb.RegisterBlobRequest(blob_id="weights", file=file)).blob
            read = sum(len(part.data) for part in memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob.id)))
            assert (blob.size_bytes, read) == (size, size)
            assert private_bytes_of(process.pid) - before < size // 3
    finally:
        path.unlink()


def private_bytes_of(pid: int) -> int:
    """What a process holds for itself alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private"))


def test_the_whole_server_keeps_an_upload_through_a_kill() -> None:
    """The same plane as it is wired in the real server."""
    data = some_bytes(2 * MIB)
    with running_server("--device", "cpu") as server:
        half = server.memory.CreateBlob(pb.CreateBlobRequest(blob_spec=blob_pb2.BlobSpec(size_bytes=len(data)))).blob
        chunk = blob_pb2.BlobChunk(data=data[:MIB])
        server.memory.WriteBlobChunk(pb.WriteBlobChunkRequest(blob_id=half.id, chunk=chunk))
        server.kill()
        server.start()
        blob = server.memory.UploadBlob(upload_of(data, MIB, blob_id=half.id)).blob
        assert (blob.state, blob.sha256) == (blob_pb2.BLOB_STATE_READY, sha(data))
        parts = server.memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob.id))
        assert b"".join(part.data for part in parts) == data
