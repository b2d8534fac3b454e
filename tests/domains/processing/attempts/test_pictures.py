"""Pictures of an attempt: stored in the order in which they came, once, with their latents."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.errors import ErrorReason, ResourceExhausted
from domains.inference.generation import Generation
from domains.inference.outcome import ImageReady, LatentsReady
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.store import BlobStore
from domains.processing.attempts.pictures import Pictures
from domains.processing.jobs.event import OutputReady, Started
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.store import JobStore
from domains.storage import open_database
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.memory.blobs import content, opened


class Storing:
    """A running job for three pictures, whose files are stored when the test says so."""

    def __init__(self, jobs: Jobs, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs, self.blobs = jobs, blobs
        work = GenerateWork(asked=Generation(prompt="owl"), resolved=request(embedded_model(), seeds=(7, 8, 9)))
        self.job_id = jobs.submit(work, JobOptions())[0].id
        jobs.record(self.job_id, Started(device_id="sim-0", attempt=1))
        self.waits: dict[bytes, asyncio.Event] = {}
        """By content: what its storing waits for."""
        self.full: set[bytes] = set()
        """Contents for which the disk has no room."""
        self._keep = blobs.keep
        monkeypatch.setattr(blobs, "keep", self.keep)
        self.pictures = self.attempt()

    async def keep(self, data: bytes, media_type: str, job_id: str) -> Blob:
        if data in self.waits:
            await self.waits[data].wait()
        if data in self.full:
            raise ResourceExhausted("the disk is full", ErrorReason.STORAGE_FULL)
        return await self._keep(data, media_type, job_id)

    def attempt(self) -> Pictures:
        return Pictures(self.job_id, 3, self.jobs, self.blobs)

    def take(self, index: int, data: bytes) -> None:
        self.pictures.take(
            ImageReady(index=index, seed=7 + index, media_type="image/png", width_px=8, height_px=9, data=data)
        )

    def told(self) -> list[OutputReady]:
        entries = self.jobs.live(self.job_id).journal.after(0)
        return [entry.value for entry in entries if isinstance(entry.value, OutputReady)]


@pytest.fixture
def storing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storing]:
    database = open_database(tmp_path)
    with opened(tmp_path) as blobs:
        yield Storing(Jobs(JobStore(database, tmp_path), 3600), blobs, monkeypatch)
    database.close()


async def test_a_picture_is_told_after_those_that_came_before_it(storing: Storing) -> None:
    storing.waits[b"first"] = asyncio.Event()
    storing.take(0, b"first")
    storing.take(1, b"second")
    for _ in range(20):
        await asyncio.sleep(0)
    assert storing.told() == []
    storing.waits[b"first"].set()
    await storing.pictures.stored()
    assert [(one.image.index, one.image.seed, one.total) for one in storing.told()] == [(0, 7, 3), (1, 8, 3)]
    (first, second) = storing.pictures.made
    assert (first.width_px, first.height_px, first.blob.media_type, first.latents) == (8, 9, "image/png", None)
    assert await content(storing.blobs, second.blob.id) == b"second"


async def test_the_latents_of_a_picture_come_with_it_and_with_no_other(storing: Storing) -> None:
    storing.pictures.take_latents(LatentsReady(index=1, shape=(4, 8, 9), completed_steps=3, data=b"latents"))
    storing.take(0, b"first")
    storing.take(1, b"second")
    await storing.pictures.stored()
    first, second = storing.pictures.made
    assert first.latents is None
    assert second.latents is not None
    assert (second.latents.shape, second.latents.completed_steps) == ((4, 8, 9), 3)
    assert await content(storing.blobs, second.latents.blob.id) == b"latents"


async def test_a_later_attempt_stores_what_an_earlier_one_did_not(storing: Storing) -> None:
    storing.take(0, b"first")
    await storing.pictures.stored()
    storing.pictures = storing.attempt()
    storing.take(0, b"first again")
    storing.take(1, b"second")
    await storing.pictures.stored()
    assert [one.image.index for one in storing.told()] == [0, 1]
    assert await content(storing.blobs, storing.pictures.made[0].blob.id) == b"first"


async def test_a_picture_that_finds_no_room_fails_the_attempt_and_the_others_are_kept(storing: Storing) -> None:
    storing.full.add(b"first")
    storing.take(0, b"first")
    storing.take(1, b"second")
    await storing.pictures.settled()
    assert [one.index for one in storing.pictures.made] == [1]
    with pytest.raises(ResourceExhausted):
        await storing.pictures.stored()
