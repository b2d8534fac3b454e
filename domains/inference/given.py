"""The input of a run: an attempt at a generation, with all files that it reads."""

import msgspec

from domains.inference.fallback import NOTHING, Fallback
from domains.inference.generation import ResolvedGeneration
from domains.inference.kept_file import ControlFiles, KeptFile
from domains.model.execution import AS_USUAL, Execution
from domains.model.model import Model


class GivenControl(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker gets for a control beside its entry in the generation."""

    model: Model
    """The catalogue's entry, with the hash of its weights."""
    map: KeptFile
    """Pixels of the control map, RGB in the size of the pictures."""
    region: KeptFile | None = None
    """Where it counts, one byte a pixel. None: everywhere."""
    hidden: KeptFile | None = None
    """Which of its pixels are missing, one byte each. None: none."""
    enlarged: ControlFiles | None = None
    """The pictures in the size of the second pass. None: there is no second pass."""


class GivenImagePrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker gets for an image prompt beside its entry in the generation."""

    model: Model
    """The catalogue's entry of the IP-Adapter, with the hash of its weights."""
    encoder: Model
    """The same of the image encoder."""
    images: tuple[KeptFile, ...]
    """Pixels of the pictures, RGB in the square size that the encoder reads."""
    region: KeptFile | None = None
    """Where they count, one byte a pixel of the pictures that are made. None: everywhere."""
    negative_image: KeptFile | None = None
    """Pixels of the picture to lead away from. None: there is none."""


class Given(msgspec.Struct, frozen=True):
    """One attempt at a generation, with all that it reads."""

    model: Model
    resolved: ResolvedGeneration
    made: int = 0
    """Number of pictures, from the first, that earlier attempts reported: they are not made again."""
    kept: KeptFile | None = None
    """The progress to continue from. None: begin at the start."""
    picture: KeptFile | None = None
    """Pixels of the picture to start from, RGB in the size of the result. None: start from noise."""
    mask: KeptFile | None = None
    """Which of them to make anew, one byte each. None: all."""
    later: tuple[Model, ...] = ()
    """The catalogue's entries of the models of later passes, in the order of `pass_plan.models_of`."""
    upscaler: Model | None = None
    """The catalogue's entry of the model that enlarges pictures for a second pass. None: none does."""
    detectors: tuple[Model, ...] = ()
    """The catalogue's entries of the detectors of its detail passes, in their order."""
    latents: KeptFile | None = None
    """The latents to start from. None: start from something else."""
    loras: tuple[Model, ...] = ()
    """The catalogue's entries of the LoRAs, in the order of `resolved`."""
    region_loras: tuple[tuple[Model, ...], ...] = ()
    """The same of the LoRAs of each region. Empty: no region has some."""
    words: tuple[Model, ...] = ()
    """The catalogue's entries of the textual inversions, in the order of `resolved`."""
    controls: tuple[GivenControl, ...] = ()
    """Of the generation's controls, in its order."""
    image_prompts: tuple[GivenImagePrompt, ...] = ()
    """Of the generation's image prompts, in its order."""
    regions: tuple[KeptFile | None, ...] = ()
    """The masks of the generation's regions, in its order: one byte a pixel of the pictures. None: a rectangle."""
    references: tuple[KeptFile, ...] = ()
    """Pixels of the pictures that the model sees, RGB, in the sizes of `resolved`."""
    fallback: Fallback = NOTHING
    """What the worker may give up when the device is out of memory."""
    execution: Execution = AS_USUAL
    """How to load the model, if it is not loaded yet."""
