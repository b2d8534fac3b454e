"""Files that the front keeps for a worker: checkpoints, latents, and pixels of pictures and masks."""

import msgspec


class KeptFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file on the worker's machine: a checkpoint, latents or pixels."""

    path: str
    sha256: str
    """The worker uses the file only if its content has this hash."""
    branched: bool = False
    """Whether a checkpoint may be of another job, with other LoRAs, textual inversions, controls and image prompts."""


class ImagePromptFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The pictures of an image prompt on the worker's machine."""

    images: tuple[KeptFile, ...]
    """Pixels, RGB in the square size that the image encoder reads."""
    region: KeptFile | None = None
    """Where they count, one byte a pixel of the pictures that are made. None: everywhere."""
    negative_image: KeptFile | None = None
    """Pixels of the picture to lead away from. None: there is none."""


class ControlFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The pictures of a control on the worker's machine."""

    map: KeptFile
    """Pixels of the control map, RGB in the size of the pictures."""
    region: KeptFile | None = None
    """Where it counts, one byte a pixel. None: everywhere."""
    hidden: KeptFile | None = None
    """Which of its pixels are missing, one byte each. None: none."""
    enlarged: "ControlFiles | None" = None
    """The same in the size of the second pass. None: there is no second pass."""
