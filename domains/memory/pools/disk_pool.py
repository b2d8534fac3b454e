"""The source of the pool `disk`: the file system of the state folder."""

import asyncio
import os
import time
from pathlib import Path

import psutil

from domains.memory.measure import MemoryMeasure
from domains.memory.pools.host_pool import Owners, attributed
from domains.memory.pools.pool import DISK, PoolKind


class DiskPool:
    """The pool `disk`. Blobs are owners; all other files of the state folder count as runtime."""

    pool_id = DISK
    kind = PoolKind.DISK
    device_id = ""
    aliases: tuple[str, ...] = ()

    def __init__(self, state_folder: Path, blob_owners: Owners, blob_folder: Path | None = None) -> None:
        """`blob_folder`: the folder of the blobs in `blob_owners`, not walked. None: `blobs` in the state folder."""
        self._folder = state_folder
        self._blob_owners = blob_owners
        self._blob_folder = blob_folder or state_folder / "blobs"

    async def measure(self) -> MemoryMeasure:
        """Measure off the event loop, because a disk may be slow."""
        owners = self._blob_owners()
        usage, others = await asyncio.to_thread(self._look)
        held = sum(owner.live_bytes for owner in owners) + others
        return MemoryMeasure(
            time_s=time.time(),
            total_bytes=usage[0],
            used_bytes=usage[1],
            held_bytes=held,
            live_bytes=held,
            owners=attributed(owners, held),
        )

    def _look(self) -> tuple[tuple[int, int], int]:
        """Total and used bytes of the file system, and the size of the files of the state folder that are no blobs."""
        usage = psutil.disk_usage(str(self._folder))
        # Blocks that are reserved for the administrator count as used.
        return (usage.total, usage.total - usage.free), _size(self._folder, self._blob_folder)


def _size(folder: Path, except_folder: Path) -> int:
    size = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent) / name != except_folder]
        for name in files:
            try:
                size += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                # The file was removed after the listing.
                continue
    return size
