"""Reads the pictures of requests and jobs: their files out of blobs, their pixels and texts in a process of its own."""

import asyncio
from typing import TYPE_CHECKING

from domains.errors import InvalidRequest, Violation
from domains.inference import limits
from domains.memory.blobs.store import BlobStore

if TYPE_CHECKING:
    from domains.imaging.decoder_process import PictureDecoder


class PictureReader:
    """Reads and decodes pictures. The server has one object, so that one process decodes all pictures."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._decoder: PictureDecoder | None = None

    async def decoder(self) -> "PictureDecoder":
        """The decoder, whose libraries are loaded with the first picture."""
        if self._decoder is None:
            made = await asyncio.to_thread(_new_decoder)
            self._decoder = self._decoder or made
        return self._decoder

    async def file(self, name: str, field: str, owner_id: str = "") -> bytes:
        """The file in a blob. Raises INVALID_FIELD for one that is too large, or why the blob cannot be read."""
        async with self._blobs.reading(name, owner_id) as reader:
            size = reader.blob.size_bytes
            if size > limits.INPUT_BYTES:
                text = f"blob {name} has {size} bytes; a picture has at most {limits.INPUT_BYTES}"
                raise InvalidRequest([Violation(field=f"{field}.blob_id", message=text)])
            return await reader.read(0, size, bytes)

    async def close(self) -> None:
        """End the decoder's process."""
        if self._decoder is not None:
            await self._decoder.close()


def _new_decoder() -> "PictureDecoder":
    from domains.imaging.decoder_process import PictureDecoder

    return PictureDecoder()
