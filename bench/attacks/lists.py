"""Lists whose filter matches nothing, page by page, over 100,000 jobs and as many blobs: the lag of the event loop.

python -m bench.attacks.lists [COUNT]      100,000 where no count is given

The limit is 50 ms: nothing else runs on the loop for so long at most. Time in which the system ran other programs is lag,
too, so the time that the loop computed is told beside it.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import msgspec

from bench.attacks.harness import tell
from domains.labels import Labels
from domains.memory.blobs.blob import Blob, BlobOrigin
from domains.memory.blobs.listing import BlobFilter
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import LoadWork
from domains.processing.jobs.store import JobStore
from domains.storage import open_database

COUNT = 100_000
LIMIT_S = 0.050
_NOTHING: Labels = (("no such", ""),)
_encode = msgspec.msgpack.Encoder().encode


Page = Callable[[int | None], Awaitable[int | None]]
"""Reads the page at a place; returns the next one's place."""


async def lags(page: Page) -> list[tuple[float, float]]:
    """For each page to the end: the longest time that the loop was taken, and the longest time that it computed."""
    found: list[tuple[float, float]] = []
    place: int | None = None
    while place is not None or not found:
        lag, place = await _lag(page, place)
        found.append(lag)
    return found


async def _lag(page: Page, place: int | None) -> tuple[tuple[float, float], int | None]:
    call = asyncio.ensure_future(page(place))
    wall, own = time.perf_counter(), time.thread_time()
    longest, computed = 0.0, 0.0
    while not call.done():
        await asyncio.sleep(0)
        longest, computed = max(longest, time.perf_counter() - wall), max(computed, time.thread_time() - own)
        wall, own = time.perf_counter(), time.thread_time()
    return (longest, computed), call.result()


async def attack(folder: Path, count: int) -> dict[str, object]:
    """Fill, then list with `page_size` 1 to the end."""
    with closing(open_database(folder)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        store = JobStore(connection, folder)
        jobs = Jobs(store, keep_s=1e6)
        for _ in range(count):
            jobs.submit(LoadWork(model_id="m"), JobOptions())
        rows = [_blob(number) for number in range(count)]
        connection.executemany("INSERT INTO blobs VALUES (?, ?)", [(blob.id, _encode(blob)) for blob in rows])
        blobs = BlobStore(connection, folder / "blobs")

        async def page_of_jobs(place: int | None) -> int | None:
            return store.page(JobFilter(labels=_NOTHING), place, 1, ()).place

        async def page_of_blobs(place: int | None) -> int | None:
            wanted = BlobFilter(labels=_NOTHING)
            page = blobs.page(wanted, place, 1)
            await blobs.total_bytes(wanted)
            return page.next_place

        of_jobs, of_blobs = await lags(page_of_jobs), await lags(page_of_blobs)
    return {
        "stored jobs and blobs": count,
        "pages of jobs": len(of_jobs),
        "pages of blobs": len(of_blobs),
        "longest lag ms, jobs": 1000 * max(lag for lag, _ in of_jobs),
        "longest lag ms, blobs": 1000 * max(lag for lag, _ in of_blobs),
        "median computing ms, jobs": 1000 * statistics.median(computed for _, computed in of_jobs),
        "longest computing ms, jobs": 1000 * max(computed for _, computed in of_jobs),
        "longest computing ms, blobs": 1000 * max(computed for _, computed in of_blobs),
        "within the limit": max(computed for _, computed in (*of_jobs, *of_blobs)) <= LIMIT_S,
    }


def _blob(number: int) -> Blob:
    return Blob(
        id=f"u-{number}",
        sha256=f"{number:064x}",
        size_bytes=number,
        media_type="image/png",
        create_time_s=float(number),
        origin=BlobOrigin.UPLOAD,
    )


def main() -> int:
    """Print the lags."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory() as folder:
        return tell("lists", **asyncio.run(attack(Path(folder), count)))


if __name__ == "__main__":
    raise SystemExit(main())
