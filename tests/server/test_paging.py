"""Pages of lists: every item once, in order, and no page larger than a client receives."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceops.common.v1 import label_pb2
from deviceops.memory.v1 import memory_service_pb2
from deviceops.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from deviceops.processing.v1 import processing_service_pb2
from domains import limits
from domains.events import EventLog
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.store import JobStore
from domains.storage import open_database
from server import paging
from server.processing.job_messages import JobView
from server.processing.servicer import ProcessingServicer
from tests.server.blob_host import hosted
from tests.server.test_memory_pools import serving

LABELS = [label_pb2.Label(key=f"{n:063}", value="v" * 255) for n in range(32)]
"""As many and as long as may be: 10 KiB."""


def labelled(kib: int) -> label_pb2.Label:
    return label_pb2.Label(key="k", value="x" * (kib * 1024))


@given(st.lists(st.integers(0, 3000), max_size=30), st.integers(1, 1000))
def test_every_item_is_on_one_page_and_no_page_passes_2_mib(sizes: list[int], asked: int) -> None:
    items = list(enumerate(sizes))

    def pages() -> list[list[label_pb2.Label]]:
        found, token = list[list[label_pb2.Label]](), ""
        while not found or token:
            begin = paging.place_of(token) or 0

            def read(count: int, begin: int = begin) -> tuple[Sequence[tuple[int, int]], int | None]:
                end = begin + count
                return items[begin:end], end if end < len(items) else None

            page, token = paging.fill(read, asked, lambda item: labelled(item[1]))
            found.append(page)
        return found

    found = pages()
    assert [len(label.value) for page in found for label in page] == [1024 * size for size in sizes]
    for page in found:
        assert len(page) <= asked
        assert len(page) == 1 or sum(label.ByteSize() for label in page) <= limits.PAGE_BYTES
        assert page or not items


async def test_a_page_of_reservations_is_cut_at_2_mib(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for _ in range(230):
            create = memory_service_pb2.CreateReservationRequest(memory_pool_id="disk", size_bytes=1, labels=LABELS)
            await served.memory.CreateReservation(create)
        request: Any = memory_service_pb2.ListReservationsRequest(page_size=1000)
        first = await served.memory.ListReservations(request)
        assert 1.9 * 1024**2 < first.ByteSize() <= limits.PAGE_BYTES + 64
        request.page_token = first.next_page_token
        rest = await served.memory.ListReservations(request)
        ids = [each.id for each in (*first.reservations, *rest.reservations)]
        assert (len(ids), len(set(ids)), rest.next_page_token) == (230, 230, "")


@pytest.mark.usefixtures("small_pages")
async def test_pages_of_blobs_are_cut_by_their_bytes(tmp_path: Path) -> None:
    async with hosted(tmp_path, []) as (address, _), grpc.aio.insecure_channel(address) as channel:
        memory: Any = MemoryServiceStub(channel)
        made = [(await memory.CreateBlob(_blob())).blob.id for _ in range(12)]
        found, request = list[str](), memory_service_pb2.ListBlobsRequest(page_size=1000)
        while True:
            answer = await memory.ListBlobs(request)
            assert 1 <= len(answer.blobs) < 12
            found += [blob.id for blob in answer.blobs]
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                break
        assert found == made[::-1]


def _blob() -> memory_service_pb2.CreateBlobRequest:
    request = memory_service_pb2.CreateBlobRequest()
    request.blob_spec.size_bytes = 1
    request.blob_spec.labels.extend(LABELS[:5])
    return request


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_BYTES", 5000)


def _no_waits() -> Callable[[object], None]:
    return lambda _: None


@pytest.mark.usefixtures("small_pages")
async def test_pages_of_jobs_are_cut_by_their_bytes(tmp_path: Path) -> None:
    with closing(open_database(tmp_path)) as database:
        jobs = Jobs(JobStore(database, tmp_path), keep_s=3600)
        options = JobOptions(labels=tuple((label.key, label.value) for label in LABELS[:5]))
        made = [jobs.submit(ScanWork(), options)[0].id for _ in range(12)]
        parts: Any = SimpleNamespace(jobs=jobs, now=_no_waits, sessions=None, draining=None)
        view = JobView(keep_jobs_s=3600)
        servicer = ProcessingServicer(
            parts,
            parts,
            lambda: parts,
            view,
            EventLog(database, tmp_path),
            "instance",
            parts,
            parts,
            parts,
            parts,
            parts,
        )
        found, request = list[str](), processing_service_pb2.ListJobsRequest(page_size=7)
        while True:
            answer = await servicer.ListJobs(request, parts)
            assert 1 <= len(answer.jobs) < 7
            found += [job.id for job in answer.jobs]
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                break
        assert found == made[::-1]
