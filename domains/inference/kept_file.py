"""The file of a generation's kept progress, as a worker gets it."""

import msgspec


class KeptFile(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint on the worker's machine."""

    path: str
    sha256: str
    """The worker uses the file only if its content has this hash."""
    branched: bool = False
    """Whether it may be of another job, which has other LoRAs, textual inversions and controls."""


class ControlFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The pictures of a control on the worker's machine."""

    map: KeptFile
    """Pixels of the control map, RGB in the size of the pictures."""
    region: KeptFile | None = None
    """Where it counts, one byte a pixel. None: everywhere."""
