"""Reads pictures that are to be made again, and compares them with the new ones. Processes of their own decode both."""

import asyncio
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from domains.errors import InvalidRequest, Violation
from domains.inference import limits
from domains.inference.manifest import manifest_of
from domains.inference.recipes import FIELD, Cause, Comparison, Recipe, Verdict, compared, recipe_of, versions_of
from domains.memory.blobs.blob import blob_id
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.event import GenerationResult, ReproductionResult
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds.reproduce import ReproduceWork
from domains.processing.jobs.outcome import Done

if TYPE_CHECKING:
    from domains.imaging.decoder_process import PictureDecoder


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

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._decoder: PictureDecoder | None = None
        jobs.listeners.append(self._changed)

    async def look(self, data: bytes, name: str) -> SentPicture:
        """Read a file, or that of a blob. Raises BAD_IMAGE, or why the blob cannot be read."""
        file = data or await self._read(name)
        decoder = await self._started()
        pixels = await decoder.decode(file, max_pixels=limits.INPUT_AREA_PX2, field=FIELD)
        recipe = recipe_of(await decoder.texts(file, field=FIELD))
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(file).hexdigest())
        from domains.imaging import probe

        return SentPicture(
            blob_id=blob_id(sha256) if data else name,
            media_type=probe(file).media_type,
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
        decoder = await self._started()
        files = [await self._read(work.blob_id, job.id), await self._read(result.images[0].blob.id, job.id)]
        first, second = [await decoder.decode(one, max_pixels=limits.INPUT_AREA_PX2, field=FIELD) for one in files]
        comparison = await asyncio.to_thread(compared, first, second, work.tolerance)
        told = ReproductionResult(
            images=result.images,
            resolved=result.resolved,
            precisions=result.precisions,
            libraries=result.libraries,
            comparison=comparison,
            causes=causes_of(work, comparison, job.device_id),
        )
        return msgspec.structs.replace(done, result=told)

    async def close(self) -> None:
        """End the decoder's process."""
        if self._decoder is not None:
            await self._decoder.close()

    async def _started(self) -> "PictureDecoder":
        """The decoder, whose libraries are loaded with the first picture."""
        if self._decoder is None:
            made = await asyncio.to_thread(_new_decoder)
            self._decoder = self._decoder or made
        return self._decoder

    async def _read(self, name: str, owner_id: str = "") -> bytes:
        async with self._blobs.reading(name, owner_id) as reader:
            size = reader.blob.size_bytes
            if size > limits.INPUT_BYTES:
                text = f"blob {name} has {size} bytes; a picture has at most {limits.INPUT_BYTES}"
                raise InvalidRequest([Violation(field=f"{FIELD}.blob_id", message=text)])
            return await reader.read(0, size, bytes)

    def _changed(self, job: Job) -> None:
        if job.state.ended and isinstance(job.work, ReproduceWork):
            self._blobs.let_go(job.work.blob_id, job.id)


def causes_of(work: ReproduceWork, comparison: Comparison, device_id: str) -> tuple[Cause, ...]:
    """What was not the same, the likeliest cause first."""
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


def _new_decoder() -> "PictureDecoder":
    from domains.imaging.decoder_process import PictureDecoder

    return PictureDecoder()
