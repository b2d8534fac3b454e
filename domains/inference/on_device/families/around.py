"""A family around another one: each call passes one place, which says what happens before and after it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, TypeVar, cast

from torch import Tensor

from domains.inference.on_device.families.family import (
    Conditions,
    EncodedPrompt,
    Family,
    KeepOn,
    PictureLatents,
    SizePx,
    StepRows,
    regardless,
)
from domains.inference.prompts import Prompt

Result = TypeVar("Result")


class Part(Enum):
    """What a call of a family computes with."""

    TEXTS = auto()
    DENOISER = auto()
    VAE = auto()
    CONTROLS = auto()
    """A network that guides, which is no part of the model."""
    NONE = auto()
    """It computes nothing with weights."""


class Around(ABC):
    """See `Family`."""

    @abstractmethod
    def _around(self, part: Part, call: Callable[[Family], Result], keep_on: KeepOn = regardless) -> Result:
        """The result of a call of the family within. `part`: what it computes with."""

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """See `Family`."""
        return self._around(Part.TEXTS, lambda family: family.encode(prompt))

    def conditions(
        self,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
        **told: Any,
    ) -> Conditions:
        """See `Family`."""
        return self._around(
            Part.DENOISER, lambda family: family.conditions(positive, negative, guidance, size_px, **told)
        )

    def conditions_for(self, network: Any, *prompts: Any, **told: Any) -> Any:
        """What another network reads of prompts."""
        return self._around(Part.CONTROLS, lambda family: cast(Any, family).conditions_for(network, *prompts, **told))

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        """See `Family`."""
        return self._around(Part.NONE, lambda family: family.latent_shape(width_px, height_px))

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        """See `Family`."""
        return self._around(Part.DENOISER, lambda family: family.denoise(group, keep_on), keep_on)

    def shared_bytes(self) -> int:
        """See `Family`."""
        return self._around(Part.NONE, lambda family: family.shared_bytes())

    def decode(self, latents: Tensor, keep_on: KeepOn = regardless, tile: int | None = None) -> tuple[Tensor, Tensor]:
        """See `Family`."""
        return self._around(Part.VAE, lambda family: family.decode(latents, keep_on, tile), keep_on)

    def decode_in_float32(self, latents: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor] | None:
        """See `Family`."""
        return self._around(Part.VAE, lambda family: family.decode_in_float32(latents, tile))

    def encode_reference(self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None) -> Tensor:
        """See `Family`."""
        return self._around(Part.VAE, lambda family: family.encode_reference(pixels, keep_on, hidden), keep_on)

    def encode_picture(
        self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None
    ) -> PictureLatents:
        """See `Family`."""
        return self._around(Part.VAE, lambda family: family.encode_picture(pixels, keep_on, hidden), keep_on)

    def inpaint_channels(self, seen: Tensor, hidden: Tensor, cells: Tensor) -> Tensor:
        """See `Family`."""
        return self._around(Part.NONE, lambda family: family.inpaint_channels(seen, hidden, cells))

    def prepare_previews(self) -> None:
        """See `Family`."""
        self._around(Part.VAE, lambda family: family.prepare_previews())

    def preview(self, x0: Tensor, size: tuple[int, int]) -> Tensor:
        """See `Family`."""
        return self._around(Part.VAE, lambda family: family.preview(x0, size))
