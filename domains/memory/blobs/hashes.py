"""SHA-256 of blobs that are being written, computed while the bytes arrive.

The hashes live in memory. A new process computes a hash again from the written bytes.
"""

import hashlib

from domains.memory.blobs.blob import Blob
from domains.memory.blobs.tiers import TierBytes, read_all, to_end


class RunningHash:
    """SHA-256 of the bytes from the start of a blob, as far as they were hashed."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def add(self, data: bytes) -> None:
        """The bytes that follow."""
        self.digest.update(data)
        self.size_bytes += len(data)


class RunningHashes:
    """Of all blobs that are being written."""

    def __init__(self) -> None:
        self._hashes: dict[str, RunningHash] = {}

    async def upto(self, blob: Blob, memory: TierBytes, size: int) -> RunningHash:
        """The hash of exactly the first `size` bytes, from memory or from the bytes themselves."""
        running = self._hashes.get(blob.id)
        if running is None or running.size_bytes != size:
            running = RunningHash()
            content = await memory.open(blob)
            try:
                await to_end(read_all(content, 0, size, running.add))
            finally:
                content.close()
            self._hashes[blob.id] = running
        return running

    def forget(self, blob_id: str) -> None:
        """Written, or gone."""
        self._hashes.pop(blob_id, None)
