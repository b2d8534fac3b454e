"""A file of another process becomes a blob without a copy; whatever happens to the file is told and kills nobody."""

import errno
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.errors import (
    AlreadyExists,
    DataLoss,
    DeviceOpsError,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
)
from domains.memory.blobs import mapped_tier, registration_look
from domains.memory.blobs.blob import BlobState, BlobTier, MappedFile, SharedMemorySegment
from domains.memory.blobs.mapped import pages
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.store import BlobStore
from tests.domains.memory.blobs import MIB, content, opened, sha, some_bytes
from tests.open_files import open_within


@pytest.fixture
def shared(tmp_path: Path, blobs: BlobStore) -> Path:
    """The folder whose files may be mapped."""
    return tmp_path / "shared"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def of(path: Path, offset: int = 0, **more: object) -> Registration:
    backing = MappedFile(path=str(path), offset_bytes=offset)
    return Registration(backing=backing, **more)  # pyright: ignore[reportArgumentType]  # fields by name


def touch(path: Path) -> None:
    """A later modification time, whatever the clock's grain."""
    told = path.stat()
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns + 1_000_000))


async def refused(work: object) -> DeviceOpsError:
    with pytest.raises(DeviceOpsError) as told:
        await work  # pyright: ignore[reportGeneralTypeIssues]  # a coroutine
    return told.value


async def test_a_file_is_mapped_hashed_and_read(blobs: BlobStore, shared: Path) -> None:
    data = some_bytes(MIB + 5)
    path = written(shared / "weights", b"skip" + data + b"rest")
    blob = await blobs.requests.register(of(path, 4, blob_id="weights", size_bytes=len(data)))
    assert (blob.id, blob.tier, blob.state, blob.generation) == ("weights", BlobTier.MAPPED, BlobState.READY, 1)
    assert blob.sha256 == sha(data)
    assert await content(blobs, "weights") == data
    blobs.delete("weights")
    assert path.exists()


async def test_without_a_size_it_goes_to_the_end_of_the_file(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"0123456789")
    assert (await blobs.requests.register(of(path, 3))).size_bytes == 7
    assert (await blobs.requests.register(of(path, 10))).size_bytes == 0
    error = await refused(blobs.requests.register(of(path, 11)))
    assert (error.reason, error.facts["size_bytes"], error.facts["needed_bytes"]) == (
        ErrorReason.ILLEGAL_STATE,
        "10",
        "11",
    )
    assert (await refused(blobs.requests.register(of(path, 3, size_bytes=8)))).reason is ErrorReason.ILLEGAL_STATE


async def test_a_given_hash_is_checked_or_believed(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"bytes")
    error = await refused(blobs.requests.register(of(path, sha256=sha(b"other"))))
    assert error.reason is ErrorReason.BLOB_CORRUPT
    believed = await blobs.requests.register(of(path, blob_id="believed", sha256=sha(b"other"), verify=False))
    assert (await refused(content(blobs, believed.id))).reason is ErrorReason.BLOB_CORRUPT
    assert blobs.get(believed.id).state is BlobState.CORRUPT


async def test_a_path_outside_the_roots_is_refused_however_it_is_written(
    blobs: BlobStore, shared: Path, tmp_path: Path
) -> None:
    secret = written(tmp_path / "secret", b"secret")
    (shared / "link").symlink_to(secret)
    (shared / "folder").symlink_to(tmp_path)
    for path in (secret, shared / "link", shared / "folder" / "secret", shared / ".." / "secret"):
        error = await refused(blobs.requests.register(of(path)))
        assert isinstance(error, PermissionDenied)
        assert error.reason is ErrorReason.PATH_OUTSIDE_ROOTS


@pytest.mark.parametrize("path", ["", "relative", "/with\0nul", "~"])
async def test_what_is_no_absolute_path_is_invalid(blobs: BlobStore, path: str) -> None:
    error = await refused(blobs.requests.register(Registration(backing=MappedFile(path=path))))
    assert isinstance(error, InvalidRequest)


@given(path=st.text(max_size=30))
async def test_no_path_leads_out_or_fails_without_a_type(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        real = BlobRoots([root]).inside(f"{root}/{path}", "file.path")
    except (InvalidRequest, PermissionDenied):
        return
    assert real.is_relative_to(root.resolve())


async def test_what_is_no_regular_file_is_refused_and_blocks_nobody(blobs: BlobStore, shared: Path) -> None:
    os.mkfifo(shared / "pipe")
    assert isinstance(await refused(blobs.requests.register(of(shared / "pipe"))), InvalidRequest)
    assert isinstance(await refused(blobs.requests.register(of(shared))), InvalidRequest)
    for nowhere in (shared / "nothing", shared / "nothing" / "below"):
        error = await refused(blobs.requests.register(of(nowhere)))
        assert (type(error), error.reason) == (NotFound, ErrorReason.PATH_NOT_FOUND)


class FakeView:
    """Shared memory with these bytes."""

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self.data = data
        self.closed = 0

    def read(self, offset: int, size: int) -> bytes:
        assert not self.closed
        return self.data[offset : offset + size]

    def close(self) -> None:
        self.closed += 1


async def test_a_view_of_shared_memory_is_closed_with_its_blob_or_when_it_is_not_used(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[FakeView] = []

    def open_view(name: str) -> FakeView:
        views.append(FakeView(b"skip" + b"data"))
        return views[-1]

    monkeypatch.setattr(registration_look, "open_shared_memory", open_view)
    segment = SharedMemorySegment(name="Local\\deviceops-x", offset_bytes=4)

    def asked(size: int = 4, sha256: str = "", **more: object) -> Registration:
        return Registration(backing=segment, blob_id="it", size_bytes=size, sha256=sha256, **more)  # pyright: ignore[reportArgumentType]  # fields by name

    blob = await blobs.requests.register(asked())
    assert (blob.sha256, await content(blobs, "it"), views[0].closed) == (sha(b"data"), b"data", 0)
    assert (await blobs.requests.register(asked())).generation == 1
    assert [view.closed for view in views] == [0, 1], "the same again is not looked at twice"
    for wrong in (asked(size=5), asked(sha256=sha(b"other"))):
        await refused(blobs.requests.register(wrong))
    async with blobs.reading("it"):
        await refused(blobs.requests.register(asked(size=3)))
    assert [view.closed for view in views] == [0, 1, 1, 1, 1]
    believed = await blobs.requests.register(asked(size=3, sha256=sha(b"other"), verify=False))
    assert (believed.generation, believed.sha256, believed.place) == (2, sha(b"other"), blob.place)
    assert [view.closed for view in views] == [1, 1, 1, 1, 1, 0]
    blobs.delete("it")
    assert [view.closed for view in views] == [1] * 6


async def test_a_file_that_the_system_does_not_open_is_named_with_what_it_says(
    blobs: BlobStore, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(shared / "file", b"bytes")
    kept = await blobs.requests.register(of(path))

    def refuse(path: Path, roots: BlobRoots) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(registration_look, "open_file", refuse)
    monkeypatch.setattr(mapped_tier, "open_file", refuse)
    error = await refused(blobs.requests.register(of(path)))
    assert isinstance(error, FailedPrecondition)
    assert error.message == f"{path} cannot be opened: Permission denied; let the server read it"
    assert f"{path} cannot be opened (Permission denied)" in (await refused(content(blobs, kept.id))).message


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
async def test_a_file_that_is_refused_is_closed(
    blobs: BlobStore, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(shared / "file", b"bytes")
    for wrong in (of(path, 6), of(path, size_bytes=6), of(path, sha256=sha(b"other"))):
        await refused(blobs.requests.register(wrong))
    kept = await blobs.requests.register(of(path))

    def refuse(roots: BlobRoots, opened: os.stat_result, path: Path) -> None:
        raise PermissionDenied("not yours", ErrorReason.PATH_OUTSIDE_ROOTS)

    with monkeypatch.context() as patched:
        patched.setattr(BlobRoots, "check_owner", refuse)
        await refused(blobs.requests.register(of(path)))
    assert blobs.look(kept.id).state is BlobState.READY
    path.write_bytes(b"byte")
    assert blobs.look(kept.id).state is BlobState.LOST
    other = written(shared / "other", b"bytes")
    again = await blobs.requests.register(of(other))
    other.write_bytes(b"after")
    touch(other)
    await refused(content(blobs, again.id))
    assert not open_within(shared)


async def test_named_shared_memory_is_only_on_windows(blobs: BlobStore) -> None:
    asked = Registration(backing=SharedMemorySegment(name="Local\\deviceops-x"), size_bytes=1)
    error = await refused(blobs.requests.register(asked))
    assert isinstance(error, InvalidRequest)
    assert "/dev/shm" in str(error)


@pytest.mark.parametrize(
    "name", ["", "x", "Local\\x", "deviceops-", "deviceops-a\\b", "Session\\1\\deviceops-x", "xdeviceops-y"]
)
async def test_shared_memory_of_other_programs_is_refused_by_its_name(blobs: BlobStore, name: str) -> None:
    error = await refused(blobs.requests.register(Registration(backing=SharedMemorySegment(name=name), size_bytes=1)))
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.violations] == ["shared_memory.name"]


async def test_a_folder_that_becomes_a_link_before_the_file_is_opened_is_noticed(
    blobs: BlobStore, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "folder"
    folder.mkdir()
    path = written(folder / "file", b"bytes")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    written(elsewhere / "file", b"secret")
    really_open = os.open

    def swap_and_open(name: object, *more: object) -> int:
        if name == path and not folder.is_symlink():
            folder.rename(shared / "moved")
            folder.symlink_to(elsewhere)
        return really_open(name, *more)  # pyright: ignore[reportArgumentType]  # as they came

    monkeypatch.setattr(os, "open", swap_and_open)
    error = await refused(blobs.requests.register(of(path)))
    assert folder.is_symlink()
    assert (type(error), error.reason) == (PermissionDenied, ErrorReason.PATH_OUTSIDE_ROOTS)


@pytest.mark.parametrize("use", ["a registration", "a read"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
async def test_a_file_of_another_user_is_not_read_for_a_caller(blobs: BlobStore, shared: Path, use: str) -> None:
    path = written(shared / "file", b"bytes")
    if use == "a read":
        await blobs.requests.register(of(path, blob_id="blob"))
    os.chown(path, 12345, -1)
    if use == "a read":
        assert (await refused(content(blobs, "blob"))).reason is ErrorReason.ILLEGAL_STATE
        assert blobs.look("blob").state is BlobState.LOST
        return
    error = await refused(blobs.requests.register(of(path)))
    assert (type(error), error.reason) == (PermissionDenied, ErrorReason.PATH_OUTSIDE_ROOTS)
    assert "blob_owners" in error.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_a_named_user_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "file", b"bytes")
    os.chown(path, 12345, -1)
    with pages(path, 0, 5, BlobRoots([tmp_path], owners=[12345])) as view:
        assert bytes(view) == b"bytes"
    with pytest.raises(PermissionDenied), pages(path, 0, 5, BlobRoots([tmp_path], owners=[54321])):
        pass


@pytest.mark.parametrize("harm", ["shrunk", "gone", "replaced", "a link"])
async def test_a_file_that_is_no_longer_there_whole_is_lost(blobs: BlobStore, shared: Path, harm: str) -> None:
    path = written(shared / "file", b"bytes")
    await blobs.requests.register(of(path, blob_id="blob"))
    if harm == "shrunk":
        os.truncate(path, 4)
    elif harm == "replaced":
        # Both files exist at once, so the second has an inode of its own: file systems give those of deleted files again.
        written(shared / "other", b"bytes").replace(path)
    else:
        path.unlink()
    if harm == "a link":
        path.symlink_to(written(shared / "other", b"bytes"))
    assert (await refused(content(blobs, "blob"))).reason is ErrorReason.ILLEGAL_STATE
    assert blobs.look("blob").state is BlobState.LOST


async def test_a_look_notices_a_lost_file_without_a_read(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"bytes")
    await blobs.requests.register(of(path, blob_id="blob"))
    path.unlink()
    assert blobs.look("blob").state is BlobState.LOST


async def test_a_file_that_shrinks_during_a_read_ends_the_read_and_kills_nobody(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", bytes(3 * MIB))
    await blobs.requests.register(of(path, blob_id="blob"))

    async def read_while_it_shrinks() -> None:
        async with blobs.reading("blob") as reader:
            assert await reader.read(0, MIB, len) == MIB
            os.truncate(path, MIB + 1)
            await reader.read(MIB, MIB, len)

    with pytest.raises(FailedPrecondition) as told:
        await read_while_it_shrinks()
    assert told.value.reason is ErrorReason.ILLEGAL_STATE
    assert blobs.get("blob").state is BlobState.LOST


async def test_bytes_that_were_written_after_hashing_are_corrupt(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"bytes")
    await blobs.requests.register(of(path, blob_id="blob"))
    path.write_bytes(b"other")
    touch(path)
    with pytest.raises(DataLoss) as told:
        async with blobs.reading("blob"):
            pass
    assert told.value.reason is ErrorReason.BLOB_CORRUPT
    assert blobs.get("blob").state is BlobState.CORRUPT


async def test_a_newer_file_with_the_same_bytes_is_as_good(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"bytes")
    await blobs.requests.register(of(path, blob_id="blob"))
    touch(path)
    assert await content(blobs, "blob") == b"bytes"


async def test_a_write_that_moves_no_time_is_found_by_a_read_of_the_whole(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", bytes(MIB + 1))
    await blobs.requests.register(of(path, blob_id="blob"))
    told = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert (await refused(content(blobs, "blob"))).reason is ErrorReason.BLOB_CORRUPT


async def test_the_same_registration_changes_nothing_and_other_content_is_a_generation_more(
    blobs: BlobStore, shared: Path
) -> None:
    path = written(shared / "file", b"one")
    first = await blobs.requests.register(of(path, blob_id="blob"))
    assert await blobs.requests.register(of(path, blob_id="blob")) == first
    path.write_bytes(b"two")
    touch(path)
    second = await blobs.requests.register(of(path, blob_id="blob"))
    assert (second.generation, second.sha256) == (2, sha(b"two"))
    assert (await blobs.requests.register(of(path, blob_id="blob", generation=7))).generation == 7
    assert await content(blobs, "blob") == b"two"


async def test_a_file_that_is_not_hashed_is_the_same_while_nobody_has_written_it(
    blobs: BlobStore, shared: Path
) -> None:
    path = written(shared / "file", b"one")
    first = await blobs.requests.register(of(path, blob_id="blob", verify=False))
    assert first.sha256 == ""
    assert await blobs.requests.register(of(path, blob_id="blob", verify=False)) == first
    touch(path)
    assert (await blobs.requests.register(of(path, blob_id="blob", verify=False))).generation == 2


async def test_other_content_without_a_higher_generation_is_refused(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"one")
    await blobs.requests.register(of(path, blob_id="blob", generation=3))
    path.write_bytes(b"two")
    touch(path)
    for generation in (1, 3):
        error = await refused(blobs.requests.register(of(path, blob_id="blob", generation=generation)))
        assert isinstance(error, AlreadyExists)
    assert blobs.get("blob").generation == 3


async def test_another_place_is_other_content_though_its_bytes_are_the_same(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"same")
    await blobs.requests.register(of(path, blob_id="blob", generation=3))
    for other in (
        of(written(shared / "other", b"same"), blob_id="blob", generation=3),
        of(path, 2, blob_id="blob", generation=3),
    ):
        assert isinstance(await refused(blobs.requests.register(other)), AlreadyExists)


async def test_a_generation_that_is_read_is_not_replaced(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"one")
    await blobs.requests.register(of(path, blob_id="blob"))
    async with blobs.reading("blob"):
        error = await refused(blobs.requests.register(of(path, blob_id="blob", generation=2)))
        assert error.reason is ErrorReason.BLOB_IN_USE
    assert (await blobs.requests.register(of(path, blob_id="blob", generation=2))).generation == 2


async def test_a_lost_blob_is_registered_again(blobs: BlobStore, shared: Path) -> None:
    path = written(shared / "file", b"one")
    await blobs.requests.register(of(path, blob_id="blob"))
    path.unlink()
    assert blobs.look("blob").state is BlobState.LOST
    written(path, b"one again")
    again = await blobs.requests.register(of(path, blob_id="blob"))
    assert (again.state, again.generation) == (BlobState.READY, 2)


async def test_an_id_of_another_kind_of_blob_is_taken_and_the_servers_own_prefix_refused(
    blobs: BlobStore, shared: Path
) -> None:
    path = written(shared / "file", b"one")
    for name in ("b-mine", "UPPER", "a" * 64, "slash/"):
        assert isinstance(await refused(blobs.requests.register(of(path, blob_id=name))), InvalidRequest)


async def test_registrations_end_with_the_server(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        await store.requests.register(of(written(tmp_path / "shared" / "file", b"one"), blob_id="blob"))
    with opened(tmp_path) as store, pytest.raises(NotFound):
        store.get("blob")


_WRITER = """
import mmap, os, sys
path, size = sys.argv[1], int(sys.argv[2])
descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, size)
with mmap.mmap(descriptor, size) as memory:
    for offset in range(0, size, 65536):
        memory[offset : offset + 8] = offset.to_bytes(8, "little")
    print("written", flush=True)
    sys.stdin.read()
"""


@contextmanager
def owned_by_another_process(path: Path, size: int) -> Generator[None]:
    """The file is written through a mapping by a process that lives until this is left."""
    command = [sys.executable, "-c", _WRITER, str(path), str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == b"written\n"
            yield
        finally:
            path.unlink(missing_ok=True)
            owner.stdin.close()


def copied_bytes_of(path: Path) -> int:
    """How many bytes of a mapping are copies of its pages (anonymous memory), by the kernel's account."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Anonymous:"):
            total += int(line.split()[1]) * 1024
    return total


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs /dev/shm and /proc")
async def test_the_pages_of_another_process_are_used_without_a_second_copy(tmp_path: Path) -> None:
    size = 64 * MIB
    path = Path("/dev/shm") / f"deviceops-test-{os.getpid()}-{time.monotonic_ns()}"
    (tmp_path / "shared").symlink_to("/dev/shm")
    with owned_by_another_process(path, size), opened(tmp_path) as store:
        before = resident_bytes()
        await store.requests.register(of(path, blob_id="weights"))
        async with store.reading("weights") as reader:
            for offset in range(0, size, MIB):
                assert await reader.read(offset, MIB, lambda data: data[:8]) == offset.to_bytes(8, "little")
        assert resident_bytes() - before < size // 4
        with pages(path, 65536, size - 65536, BlobRoots([Path("/dev/shm")])) as view:
            last = bytes(view[-65536:-65528])
            touched = bytes(view[:: mmap.PAGESIZE])
            copied = copied_bytes_of(path)
        assert last == (size - 65536).to_bytes(8, "little")
        assert len(touched) == (size - 65536) // mmap.PAGESIZE
        assert copied == 0


def test_pages_are_those_of_the_file_at_any_offset(tmp_path: Path) -> None:
    path = written(tmp_path / "file", b"0123456789")
    with pages(path, 3, 4, BlobRoots([tmp_path])) as view:
        assert bytes(view) == b"3456"
        assert view.readonly
    with pytest.raises(EOFError, match="shorter than 11 bytes"), pages(path, 3, 8, BlobRoots([tmp_path])):
        pass


def test_a_file_that_shrinks_while_it_is_mapped_shows_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "file", b"0123456789")
    mapped = mmap.mmap

    def shrinking(*given: int, **how: int) -> mmap.mmap:
        mapping = mapped(*given, **how)
        os.truncate(path, 4)
        return mapping

    monkeypatch.setattr(mmap, "mmap", shrinking)
    with pytest.raises(EOFError, match="shrank"), pages(path, 3, 4, BlobRoots([tmp_path])):
        pass


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.EMFILE, ErrorReason.QUOTA_EXCEEDED), (errno.ENOMEM, ErrorReason.HOST_OUT_OF_MEMORY)],
    ids=["no descriptor", "no memory"],
)
async def test_a_file_that_nothing_is_left_to_open_with_is_not_at_fault(
    blobs: BlobStore, shared: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: ErrorReason
) -> None:
    path = written(shared / "file", b"0123456789")

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.open", refuse)
    assert (await refused(blobs.requests.register(of(path)))).reason is reason


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_mapped_pages_keep_no_file_open(tmp_path: Path) -> None:
    path = written(tmp_path / "file", b"0123456789")
    with pages(path, 3, 4, BlobRoots([tmp_path])):
        pass
    assert not open_within(path)
