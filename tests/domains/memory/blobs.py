"""A store that can be closed and opened again as a new process would, and short ways to use it."""

import hashlib
import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from domains.clock import ExpiryClock
from domains.memory.blobs.blob import Blob, BlobSpec, BlobTier
from domains.memory.blobs.device_memory import DeviceBlobMemory
from domains.memory.blobs.quotas import BlobAdmission, BlobLimits
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.store import BlobStore
from domains.storage import open_database

MIB = 1024 * 1024


@contextmanager
def opened(
    folder: Path,
    *,
    limits: BlobLimits | None = None,
    admission: BlobAdmission | None = None,
    device_memory: DeviceBlobMemory | None = None,
    expiry: ExpiryClock | None = None,
) -> Generator[BlobStore]:
    """A store on a state folder; files inside `folder / "shared"` may be mapped."""
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    connection = open_database(folder)
    try:
        roots = BlobRoots([shared])
        yield BlobStore(
            connection,
            folder / "blobs",
            roots=roots,
            limits=limits,
            admission=admission,
            device_memory=device_memory,
            expiry=expiry,
        )
    finally:
        connection.close()


def some_bytes(size: int, seed: int = 1) -> bytes:
    """The same for the same seed."""
    return random.Random(seed).randbytes(size)


def sha(data: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(data).hexdigest()


async def uploaded(store: BlobStore, data: bytes, tier: BlobTier = BlobTier.DISK, device_id: str = "") -> Blob:
    """A READY blob with these bytes."""
    blob = await store.requests.create(BlobSpec(size_bytes=len(data), tier=tier, device_id=device_id))
    for offset in range(0, len(data), MIB):
        blob = await store.write_chunk(blob.id, offset, data[offset : offset + MIB])
    return blob


async def content(store: BlobStore, name: str) -> bytes:
    """All bytes of a blob, read in pieces."""
    parts: list[bytes] = []
    async with store.reading(name) as reader:
        for offset in range(0, reader.blob.size_bytes, MIB):
            size = min(MIB, reader.blob.size_bytes - offset)
            parts.append(await reader.read(offset, size, lambda data: data))
    return b"".join(parts)


def files(store: BlobStore) -> list[str]:
    """Names of all files of blobs."""
    return sorted(file.name for file in store.files.folder.glob("*/*"))
