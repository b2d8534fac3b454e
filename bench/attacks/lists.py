"""Lists whose filter matches nothing, page by page, over 100,000 jobs and as many blobs: the lag of the event loop.

Beside them a deletion by labels that nothing has, a watch of a full log, and 20,000 reservations.

python -m bench.attacks.lists [COUNT]      100,000 where no count is given

The limit is 50 ms: nothing else runs on the loop for so long at most. Time in which the system ran other programs is lag,
too, so the time that the loop computed is told beside it.
"""

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import msgspec

from bench.attacks.harness import tell
from deviceops.processing.v1 import job_pb2
from deviceops.processing.v1 import processing_service_pb2 as pb
from domains.events import BOUNDS, EventDomain, EventLog
from domains.labels import Labels
from domains.limits import LIST_ENTRIES
from domains.memory.blobs.blob import Blob, BlobOrigin
from domains.memory.blobs.listing import BlobFilter
from domains.memory.blobs.store import BlobStore
from domains.memory.pools.claims import Claims
from domains.memory.pools.reservation import ReservationAsk, ReservationState, ReservationWanted
from domains.memory.pools.reservation_table import MAX_ENDED, ReservationTable
from domains.memory.pools.reservations import MAX_HELD
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import LoadWork
from domains.processing.jobs.label_deletion import LabelDeletion
from domains.processing.jobs.store import JobStore
from domains.storage import open_database
from server.processing.system_events import MAX_FILTER_ENTRIES, SystemEventMethods

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
        pages = {
            **_stored(connection, folder, count),
            "events": _watch(connection, folder),
            "reservations": _reservations(),
        }
        # What is measured is a server's, which empties its log again and again.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        told = {name: await lags(page) for name, page in pages.items()}
    return {
        "stored jobs and blobs": count,
        **{name: _figures(found) for name, found in told.items()},
        "within the limit": max(computed for found in told.values() for _, computed in found) <= LIMIT_S,
    }


def _figures(found: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "pages": len(found),
        "longest lag ms": 1000 * max(lag for lag, _ in found),
        "median computing ms": 1000 * statistics.median(computed for _, computed in found),
        "longest computing ms": 1000 * max(computed for _, computed in found),
    }


def _stored(connection: sqlite3.Connection, folder: Path, count: int) -> dict[str, Page]:
    """So many jobs and blobs."""
    store = JobStore(connection, folder)
    jobs = Jobs(store, keep_s=1e6)
    for _ in range(count):
        jobs.submit(LoadWork(model_id="m"), JobOptions())
    rows = [_blob(number) for number in range(count)]
    connection.executemany("INSERT INTO blobs VALUES (?, ?)", [(blob.id, _encode(blob)) for blob in rows])
    blobs = BlobStore(connection, folder / "blobs")
    deletion = LabelDeletion(jobs, blobs)

    async def page_of_jobs(place: int | None) -> int | None:
        return store.page(JobFilter(labels=_NOTHING), place, 1, ()).place

    async def page_of_blobs(place: int | None) -> int | None:
        wanted = BlobFilter(labels=_NOTHING)
        page = blobs.page(wanted, place, 1)
        await blobs.total_bytes(wanted)
        return page.next_place

    async def by_labels(place: int | None) -> int | None:
        await deletion.run(_NOTHING)
        return None

    return {"jobs": page_of_jobs, "blobs": page_of_blobs, "deletion by labels": by_labels}


def _watch(connection: sqlite3.Connection, folder: Path) -> Page:
    """A watch of a full log for its last event alone, with as many kinds as a filter may have."""
    log = EventLog(connection, folder)
    for _ in range(BOUNDS.count - 1):
        log.tell(EventDomain.DEVICE, "device.state_changed")
    log.tell(EventDomain.DEVICE, "wanted")
    kinds = ["wanted", *(f"no.such.{number}" for number in range(MAX_FILTER_ENTRIES - 1))]
    request = pb.WatchEventsRequest(after_sequence=0, filter=pb.SystemEventFilter(kinds=kinds))
    methods: Any = SystemEventMethods(log, "", lambda job: job_pb2.Job())

    async def page(place: int | None) -> int | None:
        async with aclosing(methods.WatchEvents(request, None).messages) as answers:
            await anext(answers)
            assert (await anext(answers)).event.kind == "wanted"
        return None

    return page


def _reservations() -> Page:
    """As many reservations as there may be, and as many pools as a filter may have."""
    table, claims = ReservationTable(), Claims()
    ask = ReservationAsk(pool_id="pool", size_bytes=1)
    for number in range(MAX_HELD + MAX_ENDED):
        one = table.draft(ask, now_s=0.0)
        table.put(one, claims.keep(ask.pool_id, 1))
        if number >= MAX_HELD:
            table.end(table.held(one.id), ReservationState.EXPIRED, 0.0)
    pools = frozenset(f"no-such-{number}" for number in range(LIST_ENTRIES))
    wanted = ReservationWanted(states=tuple(ReservationState), pool_ids=pools, labels=_NOTHING)

    async def page(place: int | None) -> int | None:
        assert not [one for one in table.list(0.0) if wanted.fits(one)]
        return None

    return page


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
