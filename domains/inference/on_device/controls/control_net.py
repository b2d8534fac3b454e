"""Computes diffusers' ControlNetModel (Zhang et al. 2023): the way down of a U-Net that also sees a control map."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor, nn

from domains.inference.on_device.controls.guiding_net import SeePicture, growing_shares
from domains.inference.on_device.controls.misfit import Misfits
from domains.inference.on_device.cross_reads import Beside
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.slices import conv
from domains.inference.on_device.networks.unet import UNet
from domains.inference.on_device.rows import RowConditions, in_rows
from domains.model.on_device import OnDeviceModel, picture_layout


class ControlNet(UNet):
    """See `GuidingNet`: a ControlNet of SD 1.x, SD 2.x or SDXL."""

    types = 0
    reads_prompt_alone = False
    missing = -1.0
    """Value of a missing pixel in a map of 0..1."""

    def __init__(self, module: nn.Module, *, pooled_and_sizes: bool) -> None:
        """Raises MODEL_INCOMPATIBLE for one with parts that this walk does not visit."""
        net: Any = module
        super().__init__(net, pooled_and_sizes=pooled_and_sizes)
        self.of_whole_picture: bool = net.config.global_pool_conditions
        """Whether it guides the picture as a whole: its residuals are means, and rows without the prompt see none."""
        self._zeros: list[Any] = [*net.controlnet_down_blocks, net.controlnet_mid_block]

    def typed(self, conditions: RowConditions, number: int) -> RowConditions:
        """See `GuidingNet`."""
        return conditions

    def weighed(self, conditions: RowConditions, weight: float) -> RowConditions:
        """See `GuidingNet`: its residuals alone are weighed."""
        return conditions

    @property
    def layers(self) -> int:
        """Number of residuals."""
        return len(self._zeros)

    def hint(self, control_map: Tensor, hidden: Tensor | None, see: SeePicture) -> Tensor:
        """(1, channels, h/8, w/8). A missing pixel is −1 for a ControlNet that inpaints (control_v11p_sd15_inpaint)."""
        picture = control_map.permute(2, 0, 1).unsqueeze(0).float().div(255)
        if hidden is not None:
            picture = torch.where(hidden > 0, self.missing, picture)
        if self._unet.config.controlnet_conditioning_channel_order == "bgr":
            picture = picture.flip(1)
        picture = picture.to(self.dtype).contiguous(memory_format=picture_layout(picture.device))
        return self._unet.controlnet_cond_embedding(picture)

    def residuals(
        self,
        latents: Tensor,
        timestep: Tensor,
        inputs: Sequence[Tensor],
        hints: Tensor,
        keep_on: KeepOn = regardless,
        beside: Sequence[Sequence[Beside]] = (),
        base: Any = None,
    ) -> list[Tensor]:
        """See `GuidingNet`: a tensor of the text's rows for each skip connection, and one for the middle."""
        added, keys = (inputs[0], inputs[1:]) if self.reads_sizes else (None, inputs)
        text = self.text_keys_of(keys)
        rows = next((len(pair[0]) for layer in text for pair in layer), len(latents))
        shifts, reads = iter(self._shifts(timestep, added, rows)), self._reads(text, beside)
        # A model for inpainting reads more than the latents.
        latents = latents[:, : self._unet.conv_in.in_channels]
        hidden = self._guided(conv(self._unet.conv_in, latents, keep_on), hints, inputs)
        skips = [hidden]
        for level in self._down:
            hidden = self._descend(level, hidden, skips, shifts, reads, keep_on)
        hidden = self._cross(hidden, shifts, reads, keep_on)
        found = [
            in_rows(conv(zero, one, keep_on), rows) for zero, one in zip(self._zeros, [*skips, hidden], strict=True)
        ]
        return [one.mean(dim=(2, 3), keepdim=True) for one in found] if self.of_whole_picture else found

    def _guided(self, sample: Tensor, hints: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """The first layer's output with what the maps add to it."""
        return sample + hints

    def shares(self) -> Tensor:
        """(layers,): how much each residual counts where the first ones count less."""
        if self.of_whole_picture:
            return torch.ones(self.layers)
        return growing_shares(self.layers)

    def region_in(self, region: Tensor, residual: Tensor, size: tuple[int, int]) -> Tensor:
        """See `GuidingNet`."""
        return resized(region, residual)

    def aligned(self, residuals: Sequence[Tensor], base: Any) -> Sequence[Tensor]:
        """See `GuidingNet`: its levels are those of the model."""
        return residuals


def check_fits(net: Any, base: OnDeviceModel, control_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless a ControlNet's residuals and inputs are those of the model's U-Net."""
    unet: Any = base.modules["unet"]
    misfits = Misfits(control_id, base.model.id)
    # A model for inpainting has more inputs; its ControlNets read the four of the latents.
    for name in ("cross_attention_dim", "block_out_channels", "layers_per_block", "addition_embed_type"):
        misfits.compare(name, *(_plain(getattr(one.config, name, None)) for one in (net, unet)))
    misfits.refuse()


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def resized(region: Tensor, like: Tensor) -> Tensor:
    """A region (1, 1, h, w) in the size of a residual."""
    return F.interpolate(region, like.shape[2:], mode="area").to(like.dtype)


def stacked_hints(hints: Sequence[Tensor], images: Sequence[int]) -> Tensor:
    """(pictures, channels, h, w): each hint for as many pictures."""
    return torch.cat([hint.expand(count, -1, -1, -1) for hint, count in zip(hints, images, strict=True)])
