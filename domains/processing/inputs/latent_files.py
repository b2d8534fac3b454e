"""Latents that generations start from: their files belong to the jobs."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from domains.errors import InvalidRequest, Violation, excerpt
from domains.inference.generation import ResolvedGeneration
from domains.inference.kept_file import KeptFile
from domains.inference.latents import TENSOR, InitLatents, ReadLatents
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.jobs.job import Job

FIELD = "generation.init_latents"
_DTYPES = ("F32", "F16", "BF16")
_RANK = 4


class LatentFiles:
    """Reads files of latents, and keeps them as long as their jobs need them."""

    def __init__(self, pictures: InputPictures) -> None:
        """`pictures` reads the files, and releases them when their job has ended."""
        self._pictures = pictures

    async def look(self, given: InitLatents) -> ReadLatents:
        """Read the shape of the latents. Raises INVALID_FIELD for another kind of file, or why its blob cannot be read."""
        data = await self._pictures.file(given.blob_id, FIELD)
        shape = await asyncio.to_thread(_shape_of, data)
        return ReadLatents(blob_id=given.blob_id, sha256=hashlib.sha256(data).hexdigest(), shape=shape)

    def own(self, given: InitLatents, job_id: str) -> None:
        """Keep the blob for a job that is about to be stored. Raises if it is gone meanwhile."""
        self._pictures.hold(given.blob_id, job_id)

    @asynccontextmanager
    async def file(self, job: Job, resolved: ResolvedGeneration) -> AsyncGenerator[KeptFile | None]:
        """The file that the worker reads for a job, until exit. None: it starts from something else."""
        latents = resolved.init_latents
        if latents is None:
            yield None
            return
        data = await self._pictures.file(latents.blob_id, FIELD, job.id)
        async with self._pictures.for_worker(data, job.id) as kept:
            yield kept


def _shape_of(data: bytes) -> tuple[int, ...]:
    from safetensors import SafetensorError, deserialize

    try:
        found = dict(deserialize(data))
    except (SafetensorError, ValueError) as error:
        raise _wrong(f"is no safetensors file: {error}") from None
    tensor = found.get(TENSOR)
    if tensor is None:
        raise _wrong(f"has no tensor `{TENSOR}`")
    if tensor["dtype"] not in _DTYPES or len(tensor["shape"]) != _RANK:
        told = f"{tensor['dtype']} of shape {tensor['shape']}"
        raise _wrong(f"has `{TENSOR}` as {told}; it is (pictures, channels, height, width) in {', '.join(_DTYPES)}")
    return tuple(tensor["shape"])


def _wrong(problem: str) -> InvalidRequest:
    message = f"the blob {excerpt(problem)}; hand over what an earlier job gave out as latents"
    return InvalidRequest([Violation(field=f"{FIELD}.blob_id", message=message)])
