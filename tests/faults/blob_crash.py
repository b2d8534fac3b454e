"""Kills a process at each point of some work on blobs in turn, and looks at what a new process finds.

    python -m tests.faults.blob_crash WORK      prints how many points there were; says on stderr what was not as promised

A point is each moment before an SQL statement is carried out, or a file is opened, made or removed: there the process
kills itself with SIGKILL. Each run is a fork of this process, which itself starts no thread.
"""

import asyncio
import logging
import os
import signal
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import structlog

from domains.memory.blobs.blob import BlobOrigin, BlobSpec, BlobState
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.transfer_request import NewBlob, TransferRequest
from domains.processing.front.transfer import TransferRunner
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import TransferWork
from domains.processing.jobs.store import JobStore
from domains.requests import Asked
from domains.storage import open_database
from tests.domains.memory.blobs import content, files, sha, some_bytes, uploaded
from tests.domains.processing.front_attempt import attempt

DATA = some_bytes(300)
_EVENTS = ("open", "os.remove", "os.rename", "os.mkdir", "os.truncate", "os.link")
_FAR_S = 1e12


class Told:
    """What the work was told to be done, kept outside the process that dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def add(self, what: str) -> None:
        os.write(self._descriptor, f"{what}\n".encode())

    def all(self) -> list[str]:
        return self._path.read_text().splitlines()


class Process:
    """What a server has of blobs and of the jobs that move them."""

    def __init__(self, database: sqlite3.Connection, folder: Path) -> None:
        self.jobs = Jobs(JobStore(database, folder), keep_s=_FAR_S)
        self.store = BlobStore(database, folder / "blobs")
        self.transfers = TransferRunner(self.jobs, self.store)

    async def finish_transfers(self) -> None:
        for job in self.jobs.unfinished():
            await attempt(self.jobs, job, transfer=self.transfers.run)


REQUEST = Asked(scope="upload", request_id="request", digest="300")


async def set_nothing(process: Process, told: Told) -> None:
    pass


async def upload(process: Process, told: Told) -> None:
    store = process.store
    blob = await store.requests.create(BlobSpec(size_bytes=300, sha256=sha(DATA)), REQUEST)
    told.add(blob.id)
    for end in (100, 200, 300):
        await store.write_chunk(blob.id, end - 100, DATA[end - 100 : end])
        told.add(str(end))


async def check_upload(process: Process, told: list[str]) -> None:
    store = process.store
    known = store.all()
    assert len(known) <= 1
    if told:
        assert [blob.id for blob in known] == told[:1]
        assert known[0].written_bytes >= int(told[-1] if len(told) > 1 else 0)
    blob = await store.requests.create(BlobSpec(size_bytes=300, sha256=sha(DATA)), REQUEST)
    assert not known or blob.id == known[0].id
    for offset in range(blob.written_bytes, 300, 50):
        blob = await store.write_chunk(blob.id, offset, DATA[offset : offset + 50])
    assert blob.state is BlobState.READY
    assert await content(store, blob.id) == DATA


async def set_many(process: Process, told: Told) -> None:
    store = process.store
    store.hold((await uploaded(store, b"held by 1")).id, "job-1")
    store.hold((await uploaded(store, b"held by 2")).id, "job-2")
    await uploaded(store, b"unused")
    half = await store.requests.create(BlobSpec(size_bytes=10))
    await store.write_chunk(half.id, 0, b"half")
    for job in ("job-1", "job-2"):
        await store.keep(b"made by both", "image/png", job)
        await store.keep(f"made by {job}".encode(), "image/png", job)


async def collect(process: Process, told: Told) -> None:
    store = process.store
    (both,) = [blob.id for blob in store.all() if blob.size_bytes == len(b"made by both")]
    store.delete(both)
    told.add("deleted")
    store.collect(_FAR_S)
    told.add("collected")
    store.release("job-2")
    told.add("released")
    await store.keep(b"made by 3", "image/png", "job-1")
    told.add("kept")


async def check_collect(process: Process, told: list[str]) -> None:
    store = process.store
    contents = {await content(store, blob.id) for blob in store.all() if blob.state is BlobState.READY}
    assert {b"held by 1", b"made by job-1"} <= contents
    (both,) = [blob for blob in store.all() if blob.size_bytes == len(b"made by both")]
    assert both.sha256 in files(store)
    if "collected" in told:
        assert b"unused" not in contents
        assert all(blob.state is not BlobState.WRITING for blob in store.all())
    if "released" in told:
        assert b"made by job-2" not in contents
    if "kept" in told:
        assert b"made by 3" in contents
    store.release("job-1")
    store.release("job-2")
    store.collect(_FAR_S)
    assert files(store) == []


async def set_move(process: Process, told: Told) -> None:
    source = await uploaded(process.store, DATA)
    asked = TransferRequest(blob_id=source.id, destination=NewBlob(), move=True)
    process.jobs.submit(TransferWork(request=asked), JobOptions())


async def move(process: Process, told: Told) -> None:
    await process.finish_transfers()
    told.add("moved")


async def check_move(process: Process, told: list[str]) -> None:
    if told:
        assert not process.jobs.unfinished()
    await process.finish_transfers()
    (blob,) = process.store.all()
    assert (blob.origin, blob.state) == (BlobOrigin.TRANSFER, BlobState.READY)
    assert await content(process.store, blob.id) == DATA


Work = Callable[[Process, Told], Awaitable[None]]
Check = Callable[[Process, list[str]], Awaitable[None]]
WORKS: dict[str, tuple[Work, Work, Check]] = {
    "upload": (set_nothing, upload, check_upload),
    "collect": (set_many, collect, check_collect),
    "move": (set_move, move, check_move),
}


def forked(run: Callable[[], None]) -> int:
    """The exit status of a fork that does it; negative: the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_until(folder: Path, work: Work, point: int) -> None:
    """Do the work and die before event number `point` of it; 0: never."""
    told = Told(folder / "told")
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event in _EVENTS and str(arguments[0]).startswith(str(folder / "blobs")):
            count()

    with closing(open_database(folder)) as database:
        process = Process(database, folder)
        if point:
            database.set_trace_callback(count)
            sys.addaudithook(hear)
        asyncio.run(_do(work, process, told))


async def _do(work: Work, process: Process, told: Told) -> None:
    process.jobs.recover()
    await work(process, told)


def look(folder: Path, check: Check) -> None:
    """What the next start finds."""

    async def checked(process: Process) -> None:
        process.transfers.recover()
        process.jobs.recover()
        await check(process, Told(folder / "told").all())

    with closing(open_database(folder)) as database:
        process = Process(database, folder)
        process.store.sweep(lambda owner: True)
        assert len(files(process.store)) == len(process.store.all()), "files without a row, or rows without a file"
        asyncio.run(checked(process))


def main(name: str) -> int:
    """Every point in turn, until the work comes to its end."""
    # Stdout is for the number of points.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    setting, work, check = WORKS[name]
    for point in range(1, 1000):
        with tempfile.TemporaryDirectory() as folder:
            set_up = forked(partial(run_until, Path(folder), setting, 0))
            status = forked(partial(run_until, Path(folder), work, point))
            found = forked(partial(look, Path(folder), check))
        if set_up or found or status not in (0, -signal.SIGKILL):
            print(f"not as promised after point {point}", file=sys.stderr)
            return 1
        if status == 0:
            print(point - 1)
            return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
