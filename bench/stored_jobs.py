"""A state folder with 100,000 ended jobs: a restart, a page of ListJobs, and the next job out of as many that wait.

The peer is the clock: a restart within 3 s, from the start of the process to the answer of GetSystemStatus; a page within
20 ms, the slowest of its filters. The next job is compared with the same out of 100 that wait. The ratio is the restart's.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from bench.measure import Spread, result, spread
from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.inference.generation import Generation
from domains.inference.resolution.resolve import resolve
from domains.model.catalogue import Catalogue
from domains.model.roots import Roots
from domains.processing.jobs.event import GenerationResult, Started, Succeeded
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork, LoadWork
from domains.processing.jobs.live_job import receipt_of
from domains.processing.jobs.store import JobStore
from domains.processing.lanes.queue import JobQueue
from domains.storage import open_database
from tests.server.harness import RunningServer

STORED = 100_000
FEW = 100
SESSIONS = 50
RARE = ("mark", "rare")
STARTS = 5
PAGES = 30
TAKEN = 50
ROUNDS = 5
RESTART_S = 3.0
PAGE_S = 0.020
FLAT = 3.0
"""The next job out of 100,000 may cost so many times that out of 100: the heaps are three times as deep."""


def main() -> int:
    """Print the restart against its limit; the pages and the next job are conditions."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        state.mkdir()
        fill(state)
        restarts, pages = serve(state)
    few, many = next_job_us(FEW), next_job_us(STORED)
    slowest = max(statistics.median(samples) for samples in pages.values())
    return result(
        "stored_jobs",
        spread([took / RESTART_S for took in restarts]),
        target=1.0,
        better="lower",
        peer=f"{RESTART_S} s",
        conditions={
            f"every page within {PAGE_S * 1000:g} ms": slowest <= PAGE_S,
            f"next job out of {STORED} within {FLAT:g} times that of {FEW}": many.median <= FLAT * few.median,
        },
        details={
            "stored jobs": STORED,
            "restart s": spread(restarts),
            **{f"page ms, {name}": spread([1000 * took for took in samples]) for name, samples in pages.items()},
            f"next job us of {FEW}": few,
            f"next job us of {STORED}": many,
        },
    )


def fill(state: Path) -> None:
    """Store the jobs of a long life, all ended."""
    with closing(open_database(state)) as database:
        # The folder is thrown away: building it need not wait for the disk.
        database.execute("PRAGMA synchronous=OFF")
        work = a_picture(Catalogue(database, Roots([]), "emoji-sd"))
        jobs = Jobs(JobStore(database, state), keep_s=1e6)
        for number in range(STORED):
            labels = (RARE,) if number == 0 else ()
            options = JobOptions(session_id=f"session-{number % SESSIONS}", labels=labels)
            job, _ = jobs.submit(work, options)
            jobs.record(job.id, Started(device_id="cpu", attempt=1))
            made = GenerationResult(images=(), resolved=work.resolved)
            jobs.record(job.id, Succeeded(result=made, receipt=receipt_of(job, Instant.now())))


def a_picture(catalogue: Catalogue) -> GenerateWork:
    """A generation as it is stored."""
    asked = Generation(prompt="an owl in the rain, at night, under the lamps of an empty street")
    return GenerateWork(asked=asked, resolved=resolve(asked, catalogue.default()))


def serve(state: Path) -> tuple[list[float], dict[str, list[float]]]:
    """Seconds of each restart, and of each page by its filter."""
    restarts: list[float] = []
    while True:
        begin = time.perf_counter()
        server = RunningServer(state, ["--device", "cpu"], {})
        try:
            server.status()
            restarts.append(time.perf_counter() - begin)
            if len(restarts) == STARTS:
                return restarts, {name: list(pages_s(server, wanted)) for name, wanted in filters().items()}
        finally:
            server.close()


def filters() -> dict[str, processing_service_pb2.JobFilter]:
    """What the lists are asked for; the last ones match one job, or none."""
    label = label_pb2.Label(key=RARE[0], value=RARE[1])
    return {
        "all": processing_service_pb2.JobFilter(),
        "a session": processing_service_pb2.JobFilter(session_id="session-7"),
        "a kind": processing_service_pb2.JobFilter(kinds=[job_pb2.JOB_KIND_GENERATION]),
        "a rare label": processing_service_pb2.JobFilter(labels=[label]),
        "a state that none has": processing_service_pb2.JobFilter(states=[job_event_pb2.JOB_STATE_FAILED]),
        "a key that none has": processing_service_pb2.JobFilter(labels=[label_pb2.Label(key="nothing")]),
    }


def pages_s(server: RunningServer, wanted: processing_service_pb2.JobFilter) -> Iterator[float]:
    """Pages of 50, one after the other, from the newest on; over again at the end."""
    request = processing_service_pb2.ListJobsRequest(filter=wanted)
    for number in range(PAGES + 1):
        begin = time.perf_counter()
        answer = server.processing.ListJobs(request)
        took = time.perf_counter() - begin
        request.page_token = answer.next_page_token
        if number:
            yield took


def next_job_us(waiting: int) -> Spread:
    """Microseconds to find and take the next job, and to let another one wait in its place."""
    queue = JobQueue(2 * STORED)
    for number in range(waiting):
        queue.add(a_job(number))
    samples: list[float] = []
    for turn in range(ROUNDS):
        jobs = [a_job(waiting + turn * TAKEN + number) for number in range(TAKEN)]
        begin = time.perf_counter()
        for job in jobs:
            found = queue.next(lambda placement: True)
            assert found is not None
            queue.take(found)
            queue.add(job)
        samples.append((time.perf_counter() - begin) / TAKEN * 1e6)
    return spread(samples)


def a_job(number: int) -> Job:
    """One of several sessions, priorities and placements."""
    devices = ("cuda:0",) if number % 3 else ()
    options = JobOptions(session_id=f"session-{number % SESSIONS}", priority=1 + number % 4, device_ids=devices)
    return msgspec.structs.replace(Jobs.draft(LoadWork(model_id="m"), options), number=number)


if __name__ == "__main__":
    raise SystemExit(main())
