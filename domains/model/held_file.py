"""One weight file that is kept in RAM, in the page cache, from which every device of this machine loads."""

from domains.model.page_cache import LockedMap
from domains.model.weight_file import WeightFile

PIECE = 16 * 1024 * 1024
"""Bytes that are brought without a break: about 10 ms from a fast disk."""
_SCRATCH = 4 * 1024 * 1024


class HeldFile:
    """Takes over an open weight file. Close it to let its pages go."""

    def __init__(self, file: WeightFile) -> None:
        self._file = file
        self._map = LockedMap(file.descriptor, file.size_bytes)
        self.read_bytes = 0
        """Bytes that had to be read from disk. Where the system cannot tell what is in RAM: all bytes."""

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self._file.size_bytes

    @property
    def locked_bytes(self) -> int:
        """Bytes that the system keeps in RAM until `close`."""
        return self._map.locked_bytes

    @property
    def resident_bytes(self) -> int | None:
        """Bytes that are in RAM now, locked or not. None where the system cannot tell."""
        return self._map.resident_bytes(0, self.size_bytes) if self.size_bytes else 0

    def bring(self, begin: int) -> int:
        """Bring the piece at `begin` into RAM; returns its size. Raises MODEL_CORRUPT. Any thread."""
        end = min(begin + PIECE, self.size_bytes)
        missing = end - begin - (self._map.resident_bytes(begin, end) or 0)
        if missing:
            self._read(begin, end)
            self.read_bytes += missing
        self._map.lock(begin, end)
        return end - begin

    def _read(self, begin: int, end: int) -> None:
        # Read although locking would read it too: only a read reports the disk's error.
        scratch = memoryview(bytearray(min(_SCRATCH, end - begin)))
        for at in range(begin, end, _SCRATCH):
            self._file.read_at(at, scratch[: end - at])

    def check_unchanged(self) -> None:
        """Raise ILLEGAL_STATE if the content was written since the file was opened."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Release the pages and close the file."""
        self._map.close()
        self._file.close()
