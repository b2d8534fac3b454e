"""Reads pictures that are to be made again, and compares them with the new ones. A process of its own decodes both."""

import asyncio
import hashlib
from collections.abc import Iterable

import msgspec

from domains.inference import limits
from domains.inference.manifest import manifest_of
from domains.inference.recipes import FIELD, Cause, Comparison, Recipe, Verdict, compared, recipe_of, versions_of
from domains.memory.blobs.blob import blob_id
from domains.memory.blobs.store import BlobStore
from domains.processing.inputs.picture_reader import PictureReader
from domains.processing.jobs.event import GenerationResult, ReproductionResult
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds.reproduce import ReproduceWork
from domains.processing.jobs.outcome import Done


class SentPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of a request with what its file says."""

    blob_id: str
    media_type: str
    width_px: int
    height_px: int
    data: bytes
    """Empty: the blob has it."""
    recipe: Recipe


class Reproductions:
    """Keeps the files of pictures as long as their jobs need them."""

    def __init__(self, jobs: Jobs, blobs: BlobStore, reader: PictureReader) -> None:
        self._blobs = blobs
        self._reader = reader
        jobs.listeners.append(self._changed)

    async def look(self, data: bytes, name: str) -> SentPicture:
        """Read a file, or that of a blob. Raises BAD_IMAGE, or why the blob cannot be read."""
        file = data or await self._reader.file(name, FIELD)
        decoder = await self._reader.decoder()
        pixels = await decoder.decode(file, max_pixels=limits.INPUT_AREA_PX2, field=FIELD)
        recipe = recipe_of(await decoder.texts(file, field=FIELD))
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(file).hexdigest())
        from domains.imaging import media_type_of

        return SentPicture(
            blob_id=blob_id(sha256) if data else name,
            media_type=media_type_of(file),
            width_px=pixels.shape[1],
            height_px=pixels.shape[0],
            data=data,
            recipe=recipe,
        )

    async def own(self, picture: SentPicture, inputs: Iterable[str], job_id: str) -> None:
        """Keep the file, and the blobs that its generation starts from, for a job that is about to be stored. Raises if a
        blob is gone meanwhile."""
        for name in dict.fromkeys(inputs):
            self._blobs.hold(name, job_id)
        if picture.data:
            await self._blobs.keep(picture.data, picture.media_type, job_id)
        else:
            self._blobs.hold(picture.blob_id, job_id)

    async def compared(self, job: Job, done: Done) -> Done:
        """The outcome of a job that made a picture again, with the comparison."""
        work, result = job.work, done.result
        if not isinstance(work, ReproduceWork) or not isinstance(result, GenerationResult) or not result.images:
            return done
        decoder = await self._reader.decoder()
        files = [await self._reader.file(name, FIELD, job.id) for name in (work.blob_id, result.images[0].blob.id)]
        first, second = [await decoder.decode(one, max_pixels=limits.INPUT_AREA_PX2, field=FIELD) for one in files]
        comparison = await asyncio.to_thread(compared, first, second, work.tolerance)
        told = ReproductionResult(
            images=result.images,
            resolved=result.resolved,
            quantization=result.quantization,
            offload=result.offload,
            offload_budget_bytes=result.offload_budget_bytes,
            ways=result.ways,
            precisions=result.precisions,
            libraries=result.libraries,
            comparison=comparison,
            causes=causes_of(work, comparison, job.device_id),
        )
        return msgspec.structs.replace(done, result=told)

    def _changed(self, job: Job) -> None:
        if job.state.ended and isinstance(job.work, ReproduceWork):
            self._blobs.let_go(job.work.blob_id, job.id)


def causes_of(work: ReproduceWork, comparison: Comparison, device_id: str) -> tuple[Cause, ...]:
    """What differed from the first generation, the likeliest cause first."""
    now = versions_of(manifest_of(work.resolved, 0))
    told = {text.split(" ")[0] if name == "library" else name: text for name, text in work.versions}
    found = list(work.causes)
    for name, text in now:
        known = told.get(text.split(" ")[0] if name == "library" else name, "")
        if known and known != text:
            found.append(Cause(name=name, original=known, present=text))
    if comparison.verdict is Verdict.DIFFERENT and not found:
        # A file does not say which device computed its picture.
        found.append(Cause(name="device_name", original="", present=device_id))
    return tuple(found)
