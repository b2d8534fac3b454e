"""A family whose components take turns on the device: each call first brings those that it computes with."""

import gc
from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from torch import Tensor

from domains.inference.on_device.families.around import Around, Part, Result
from domains.inference.on_device.families.family import Family, KeepOn, regardless
from domains.inference.on_device.networks.unet import UNet
from domains.model.families import FAMILIES
from domains.model.on_device import ComponentTurns, OnDeviceModel

_VAE = ("vae",)


class InTurns(Around):
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
        self._components = {
            Part.TEXTS: [one for one in loaded.modules if one.startswith("text_encoder")],
            Part.DENOISER: [FAMILIES[loaded.family].denoiser.id],
            Part.VAE: _VAE,
        }

    def rest(self) -> None:
        """Take all components off the device."""
        self._change(())

    @property
    def unet(self) -> UNet:
        """The denoiser of a family with a U-Net, for what depends on its layers alone: it may have no weights now."""
        return cast(Any, self._now).unet

    def shared_bytes(self) -> int:
        """See `Family`."""
        return 0 if self._present is None else self._present.shared_bytes()

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

    def _around(self, part: Part, call: Callable[[Family], Result], keep_on: KeepOn = regardless) -> Result:
        """First brings what the call computes with."""
        components = self._components.get(part)
        if components is not None and self._turns.missing(components):
            self._change(components)
        return call(self._now)

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
