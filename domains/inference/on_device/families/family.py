"""The interface of a model family. One instance serves one model on one device."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from domains.inference.on_device.adapters import NO_ADAPTERS, Adapters
from domains.inference.on_device.wrapping import NO_WRAPS, Wraps
from domains.inference.prompts import Prompt

if TYPE_CHECKING:
    from domains.inference.on_device.controls import JobControl, JobFeatures
    from domains.inference.on_device.image_prompts import JobImagePrompt


class Abandoned(Exception):
    """The forward was abandoned, because its result is no longer needed."""


class CodeMissing(Exception):
    """The forward needs code that is not compiled yet, which takes too long for a step: see `compiling.code_permitted`."""


KeepOn = Callable[[], None]
"""Called between the parts of a forward. Raises `Abandoned` if the result is no longer needed."""


def regardless() -> None:
    """A `KeepOn` that never abandons the forward."""


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """A prompt as the denoiser reads it. Shared between jobs: never written to."""

    states: Tensor
    """(1, tokens, width), in the model's dtype."""
    pooled: Tensor | None = None
    """(1, width): the prompt as a whole, for denoisers that read it; None for others."""
    mask: Tensor | None = None
    """(1, tokens): 1 for tokens that count; None: all do."""
    blank: bool = False
    """Whether the prompt is empty."""
    tokens: int
    """Tokens of the text, start and end included."""
    tokens_read: int
    """How many of them the model can read; fewer than `tokens` means that the rest was cut off."""

    @property
    def held_bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in (self.states, self.pooled, self.mask) if tensor is not None)


@dataclass(frozen=True, kw_only=True)
class PictureLatents:
    """What a VAE's encoder makes of a picture: a normal distribution of scaled latents, (1, channels, h/8, w/8), float32."""

    mean: Tensor
    deviation: Tensor | None
    """None: these latents themselves; nothing is drawn."""

    def drawn(self, draw: Callable[[], Tensor]) -> Tensor:
        """Latents of the distribution, by noise of their shape."""
        return self.mean if self.deviation is None else self.mean + self.deviation * draw()


SizePx = tuple[int, int]
"""(width, height) of the pictures."""


class Conditions(Protocol):
    """Inputs that steer the denoiser, made once a job by its family and opaque to all other code."""

    @property
    def alike(self) -> Hashable:
        """What must be equal, beside model and latents' shape, for jobs to share a forward."""
        ...

    @property
    def rows(self) -> int:
        """Rows of a picture in a forward."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that this job alone holds."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepRows:
    """One job's part in a forward."""

    latents: Tensor
    """(images, channels, h/8, w/8), float32: α·clean + σ·noise."""
    timestep: Tensor
    """0-dim, on the device."""
    conditions: Conditions
    adapters: Adapters = NO_ADAPTERS
    wraps: Wraps = NO_WRAPS
    """Which edges fit together."""
    controls: Sequence["JobControl"] = ()
    """What guides the layout in this step."""
    features: Sequence["JobFeatures"] = ()
    """What T2I adapters found in its control maps, of those that count in this step."""
    image_prompts: Sequence["JobImagePrompt"] = ()
    """The pictures that guide content and style in this step."""
    exact: bool = False
    """Whether its output must be the same however the model computes."""

    @property
    def alike(self) -> Hashable:
        """What jobs of one model must have in common to share a forward."""
        return alike(self.latents, self.conditions, self.adapters, self.wraps)


def alike(latents: Tensor, conditions: Conditions, adapters: Adapters, wraps: Wraps = NO_WRAPS) -> Hashable:
    """See `StepRows.alike`."""
    return latents.shape[1:], conditions.alike, adapters.alike, wraps


class Family(Protocol):
    """How a kind of model encodes, denoises and decodes. All tensors are on the model's device."""

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Run the text encoders; for the empty prompt too."""
        ...

    def conditions(
        self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float, size_px: SizePx
    ) -> Conditions:
        """Compute everything about prompts and sizes that stays the same in all steps. `negative` None: no guidance."""
        ...

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        """(channels, height, width) of one picture's latents."""
        ...

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        """The model's output for each of a group's jobs, guidance applied, float32, shaped like its latents.

        Enqueues only: nothing here waits for the device. Raises what `keep_on` raises, and CodeMissing.
        """
        ...

    def shared_bytes(self) -> int:
        """Bytes that are held for groups of jobs, beside each job's own tensors."""
        ...

    def decode(self, latents: Tensor, keep_on: KeepOn = regardless, tile: int | None = None) -> tuple[Tensor, Tensor]:
        """(n, channels, h/8, w/8) → pixels (n, h, w, 3), uint8; and whether every value of each was finite before it became
        a pixel: (n,), on the device. `tile`: see `in_tiles`; None: as a whole. Raises what `keep_on` raises."""
        ...

    def decode_in_float32(self, latents: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor] | None:
        """`decode` in float32. None: the VAE computes in float32 already."""
        ...

    def encode_picture(
        self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None
    ) -> PictureLatents:
        """Pixels (h, w, 3), uint8 → latents. `hidden` (1, 1, h, w): 1 for each pixel that is grey instead. Raises what
        `keep_on` raises."""
        ...

    def encode_reference(self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None) -> Tensor:
        """Pixels (h, w, 3), uint8 → (1, channels, h/8, w/8), float32: what a model made for editing sees of a picture.
        `hidden`: see `encode_picture`. Raises what `keep_on` raises."""
        ...

    def inpaint_channels(self, seen: Tensor, hidden: Tensor, cells: Tensor) -> Tensor:
        """(pictures, channels, h/8, w/8): what a model made for inpainting reads beside the latents. `seen`: latents of the
        picture without the masked part; `hidden` (1, 1, h, w) and `cells` (1, 1, h/8, w/8): 1 where that part is."""
        ...

    def prepare_previews(self) -> None:
        """Do the work that the first preview of this model would otherwise have to do."""
        ...

    def preview(self, x0: Tensor, size: tuple[int, int]) -> Tensor:
        """A cheap, rough picture of clean latents (images, channels, h/8, w/8): (images, *size, 3), uint8."""
        ...


def from_pixels(pixels: Tensor) -> Tensor:
    """(h, w, 3) uint8 → (1, 3, h, w) in −1..1, float32."""
    return pixels.permute(2, 0, 1).unsqueeze(0).float().div(127.5).sub(1)


def as_pixels(pictures: Tensor) -> Tensor:
    """(n, 3, h, w) in −1..1 → (n, h, w, 3) uint8, rounded to nearest; on the device, so that a quarter is copied out."""
    return pictures.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
