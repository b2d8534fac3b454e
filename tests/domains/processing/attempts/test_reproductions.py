"""Pictures that are made again: looked at, kept as long as their job needs them, and compared with the new ones."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from msgspec.structs import replace

from domains.errors import InvalidRequest, NotFound
from domains.imaging import encode
from domains.inference.generation import Generation
from domains.inference.recipes import FIELD, Verdict
from domains.memory.blobs.store import BlobStore
from domains.processing.attempts.reproductions import Reproductions, SentPicture
from domains.processing.inputs.picture_reader import PictureReader
from domains.processing.jobs.event import GeneratedImage, GenerationResult, ReproductionResult
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork, ReproduceWork
from domains.processing.jobs.outcome import Done
from domains.processing.jobs.state import JobState
from domains.progress import Receipt
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.memory.blobs import opened, sha, uploaded

DARK, LIGHT = (encode(np.full((16, 24, 3), level, np.uint8), "image/png") for level in (10, 12))
RESOLVED = request(embedded_model())
PLAIN = GenerateWork(asked=Generation(prompt="p"), resolved=RESOLVED)


class Desk:
    """A store, a decoder, and listeners for jobs that the test tells of."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs, self.reader = blobs, PictureReader(blobs)
        jobs: Any = SimpleNamespace(listeners=[])
        self.listeners: list[Callable[[Job], None]] = jobs.listeners
        self.reproductions = Reproductions(jobs, blobs, self.reader)

    def held(self, name: str) -> bool:
        return self.blobs.is_held(name, "job-1")

    def job(self, blob_id: str, tolerance: int = 0) -> Job:
        work = ReproduceWork(
            asked=PLAIN.asked, resolved=RESOLVED, blob_id=blob_id, tolerance=tolerance, original=RESOLVED
        )
        return replace(Jobs.draft(work, JobOptions()), id="job-1")

    async def made(self, file: bytes) -> Done:
        """What a worker did that made this picture."""
        image: Any = SimpleNamespace(blob=await uploaded(self.blobs, file))
        result = GenerationResult(images=(cast(GeneratedImage, image),), resolved=RESOLVED, libraries=("torch 2",))
        return Done(result=result, receipt=Receipt(steps_executed=7))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    with opened(tmp_path) as blobs:
        desk = Desk(blobs)
        yield desk
        await desk.reader.close()


def sent(data: bytes, blob_id: str) -> SentPicture:
    recipe: Any = None
    return SentPicture(blob_id=blob_id, media_type="image/png", width_px=24, height_px=16, data=data, recipe=recipe)


async def test_what_has_no_recipe_or_is_no_picture_is_refused(desk: Desk) -> None:
    for data in (DARK, b"no picture"):
        with pytest.raises(InvalidRequest) as refused:
            await desk.reproductions.look(data, "")
        assert [one.field for one in refused.value.violations] == [FIELD]


async def test_the_file_of_a_request_becomes_a_blob_of_its_job(desk: Desk) -> None:
    await desk.reproductions.own(sent(DARK, f"b-{sha(DARK)}"), (), "job-1")
    (blob,) = desk.blobs.all()
    assert (blob.sha256, blob.media_type, blob.origin_job_id) == (sha(DARK), "image/png", "job-1")
    desk.blobs.release("job-1")
    assert desk.blobs.all() == []


async def test_the_blob_of_a_request_and_its_inputs_are_held_until_the_job_ends(desk: Desk) -> None:
    picture, start = await uploaded(desk.blobs, DARK), await uploaded(desk.blobs, LIGHT)
    await desk.reproductions.own(sent(b"", picture.id), (start.id, start.id), "job-1")
    assert (desk.held(picture.id), desk.held(start.id)) == (True, True)
    job = desk.job(picture.id)
    for work, state, held in (
        (job.work, JobState.RUNNING, True),
        (PLAIN, JobState.SUCCEEDED, True),
        (job.work, JobState.FAILED, False),
    ):
        for listener in desk.listeners:
            listener(replace(job, work=work, state=state))
        assert desk.held(picture.id) is held


async def test_a_blob_that_is_gone_meanwhile_is_named(desk: Desk) -> None:
    with pytest.raises(NotFound, match="b-none"):
        await desk.reproductions.own(sent(b"", "b-none"), (), "job-1")


@pytest.mark.parametrize(
    ("file", "tolerance", "verdict", "difference"),
    [(DARK, 0, Verdict.IDENTICAL, 0), (LIGHT, 2, Verdict.WITHIN_TOLERANCE, 2), (LIGHT, 1, Verdict.DIFFERENT, 2)],
)
async def test_the_new_picture_is_compared_with_the_first(
    desk: Desk, file: bytes, tolerance: int, verdict: Verdict, difference: int
) -> None:
    first, done = await uploaded(desk.blobs, DARK), await desk.made(file)
    told = await desk.reproductions.compared(desk.job(first.id, tolerance), done)
    assert isinstance(told.result, ReproductionResult)
    assert isinstance(done.result, GenerationResult)
    assert (told.result.comparison.verdict, told.result.comparison.max_difference) == (verdict, difference)
    assert (told.result.images, told.result.libraries) == (done.result.images, ("torch 2",))
    assert told.receipt == done.receipt
    assert bool(told.result.causes) is (verdict is Verdict.DIFFERENT)


async def test_without_a_picture_or_a_first_one_there_is_nothing_to_compare(desk: Desk) -> None:
    first, done = await uploaded(desk.blobs, DARK), await desk.made(DARK)
    empty = replace(done, result=GenerationResult(images=(), resolved=RESOLVED))
    job = desk.job(first.id)
    assert await desk.reproductions.compared(job, empty) is empty
    assert await desk.reproductions.compared(replace(job, work=PLAIN), done) is done
