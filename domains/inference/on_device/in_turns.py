"""A family whose components take turns on the device: each call first brings those that it computes with."""

import gc
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import torch
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
from domains.inference.on_device.networks.unet import UNet
from domains.inference.prompts import Prompt
from domains.model.families import FAMILIES
from domains.model.on_device import ComponentTurns, OnDeviceModel

_VAE = ("vae",)


class InTurns:
    """See `Family`. The family's own view is made anew when components have changed: views hold joined weights."""

    def __init__(
        self,
        loaded: OnDeviceModel,
        turns: ComponentTurns,
        view: Callable[[OnDeviceModel], Family],
        hold: Callable[[int], None],
        keep_on: KeepOn,
    ) -> None:
        """`view` makes the family's view of the model. `hold` is told how many bytes are about to be on the device; raises
        DEVICE_OUT_OF_MEMORY. `keep_on` is called while components come back, on every device."""
        self._loaded = loaded
        self._turns = turns
        turns.keep_on = keep_on
        self._view = view
        self._hold = hold
        self._present: Family | None = None
        self._previewer: Family | None = None
        """The view whose colours are fitted. It computes previews without weights."""
        self._texts = [one for one in loaded.modules if one.startswith("text_encoder")]
        self._denoisers = [FAMILIES[loaded.family].denoiser.id]

    def rest(self) -> None:
        """Take all components off the device."""
        self._change(())

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """See `Family`."""
        return self._with(self._texts).encode(prompt)

    def conditions(
        self,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
        **told: Any,
    ) -> Conditions:
        """See `Family`."""
        return self._with(self._denoisers).conditions(positive, negative, guidance, size_px, **told)

    def conditions_for(self, network: Any, *prompts: Any, **told: Any) -> Any:
        """What another network reads of prompts, which needs no component of this model."""
        return cast(Any, self._now).conditions_for(network, *prompts, **told)

    @property
    def unet(self) -> UNet:
        """The denoiser of a family with a U-Net, for what depends on its layers alone: it may have no weights now."""
        return cast(Any, self._now).unet

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        """See `Family`."""
        return self._now.latent_shape(width_px, height_px)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        """See `Family`."""
        return self._with(self._denoisers).denoise(group, keep_on)

    def shared_bytes(self) -> int:
        """See `Family`."""
        return 0 if self._present is None else self._present.shared_bytes()

    def decode(self, latents: Tensor, keep_on: KeepOn = regardless, tile: int | None = None) -> tuple[Tensor, Tensor]:
        """See `Family`."""
        return self._with(_VAE).decode(latents, keep_on, tile)

    def decode_in_float32(self, latents: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor] | None:
        """See `Family`."""
        return self._with(_VAE).decode_in_float32(latents, tile)

    def encode_reference(self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None) -> Tensor:
        """See `Family`."""
        return self._with(_VAE).encode_reference(pixels, keep_on, hidden)

    def encode_picture(
        self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None
    ) -> PictureLatents:
        """See `Family`."""
        return self._with(_VAE).encode_picture(pixels, keep_on, hidden)

    def inpaint_channels(self, seen: Tensor, hidden: Tensor, cells: Tensor) -> Tensor:
        """See `Family`."""
        return self._now.inpaint_channels(seen, hidden, cells)

    def prepare_previews(self) -> None:
        """See `Family`."""
        if self._previewer is None:
            self._change(_VAE)
            # With the VAE alone on the device, the view holds no weights of others.
            previewer = self._new_view()
            previewer.prepare_previews()
            self._previewer = previewer

    def preview(self, x0: Tensor, size: tuple[int, int]) -> Tensor:
        """See `Family`."""
        self.prepare_previews()
        return cast(Family, self._previewer).preview(x0, size)

    def _with(self, components: Sequence[str]) -> Family:
        if self._turns.missing(components):
            self._change(components)
        return self._now

    @property
    def _now(self) -> Family:
        if self._present is None:
            self._present = self._new_view()
        return self._present

    def _new_view(self) -> Family:
        # Weights that are joined in inference mode could never be changed outside of it.
        with torch.inference_mode(mode=False), torch.no_grad():
            return self._view(self._loaded)

    def _change(self, components: Collection[str]) -> None:
        """Have these components on the device, and no others."""
        self._present = None
        self._turns.leave(components)
        gc.collect()  # A view and its parts refer to each other, and may hold joined weights.
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        self._hold(sum(map(self._turns.size_of, components)))
        self._turns.bring(components)
