"""Computes diffusers' SD3ControlNetModel: joint blocks of SD3 that also see the latents of a control map.

Those of SD 3.5 Large have plain blocks, which read no prompt, and the positions of the model.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor, nn

from domains.inference.on_device.controls.guiding_net import SeePicture, growing_shares
from domains.inference.on_device.controls.misfit import Misfits, refuse_hidden, refuse_seen
from domains.inference.on_device.controls.token_regions import EDGE, in_tokens
from domains.inference.on_device.cross_reads import Beside
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.families.longest_edge import refuse_longer
from domains.inference.on_device.networks.module_dtype import dtype_of
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.rows import RowConditions, in_rows
from domains.model.on_device import OnDeviceModel


class Sd3ControlNet:
    """See `GuidingNet`."""

    types = 0
    of_whole_picture = False
    reads_prompt_alone = False

    def __init__(self, module: nn.Module, base: OnDeviceModel, control_id: str) -> None:
        self._module = WatchedModule(module)
        self._net: Any = module
        self._id = control_id
        self.dtype = dtype_of(module)
        vae: Any = base.modules["vae"]
        self._shift: float = (vae.config.shift_factor or 0.0) * vae.config.scaling_factor
        """What the codec has taken from latents, in their scale."""
        self._scale_px = 2 ** (len(vae.config.block_out_channels) - 1)
        self._inpaints = bool(self._net.config.extra_conditioning_channels)

    def typed(self, conditions: RowConditions, number: int) -> RowConditions:
        """See `GuidingNet`: none is told a type."""
        return conditions

    def weighed(self, conditions: RowConditions, weight: float) -> RowConditions:
        """See `GuidingNet`: its residuals alone are weighed."""
        return conditions

    @property
    def layers(self) -> int:
        """See `GuidingNet`."""
        return len(self._net.controlnet_blocks)

    def hint(self, control_map: Tensor, hidden: Tensor | None, see: SeePicture) -> Tensor:
        """(1, channels, h/8, w/8): the map's latents. A network that inpaints sees black in place of missing pixels, and a
        channel that is 0 there. Raises UNSUPPORTED_COMBINATION for a size beyond its positions, and for a map that marks
        missing pixels where the network does not read that, or does not where it must."""
        height, width = control_map.shape[:2]
        if self._net.config.use_pos_embed:
            refuse_longer((width, height), self._net.config.pos_embed_max_size * EDGE * self._scale_px)
        if not self._inpaints:
            refuse_hidden(hidden, self._id)
            latents = see(control_map)
            # InstantX trained its networks with latents that were scaled and not shifted.
            return (latents + self._shift if self._net.config.force_zeros_for_pooled_projection else latents).to(
                self.dtype
            )
        missing = refuse_seen(hidden, self._id)
        latents = see(control_map.masked_fill(missing[0, 0, ..., None] > 0, 0))
        cells = F.interpolate((missing > 0).to(latents), latents.shape[2:])
        return torch.cat([latents, 1 - cells], dim=1).to(self.dtype)

    def residuals(
        self,
        latents: Tensor,
        timestep: Tensor,
        inputs: Sequence[Tensor],
        hints: Tensor,
        keep_on: KeepOn,
        beside: Sequence[Sequence[Beside]] = (),
        base: Any = None,
    ) -> list[Tensor]:
        """See `GuidingNet`: (rows, tokens, width) behind each block."""
        states, pooled = inputs
        rows, config = len(states), self._net.config
        hidden = in_rows(latents.to(self.dtype), rows)
        # Diffusers' pipeline for inpainting gives zeros whatever the config says.
        without_pooled = self._inpaints or config.force_zeros_for_pooled_projection
        found = self._module(
            keep_on,
            hidden_states=hidden if config.use_pos_embed else base.pos_embed(hidden),
            controlnet_cond=in_rows(hints, rows),
            encoder_hidden_states=None if config.joint_attention_dim is None else states,
            pooled_projections=torch.zeros_like(pooled) if without_pooled else pooled,
            timestep=timestep.expand(rows) if len(timestep) == 1 else in_rows(timestep, rows),
            return_dict=False,
        )
        return list(cast(Sequence[Tensor], found[0]))

    def shares(self) -> Tensor:
        """See `GuidingNet`."""
        return growing_shares(self.layers)

    def region_in(self, region: Tensor, residual: Tensor, size: tuple[int, int]) -> Tensor:
        """See `GuidingNet`."""
        return in_tokens(region, residual, size)

    def aligned(self, residuals: Sequence[Tensor], base: Any) -> Sequence[Tensor]:
        """One for each block of the model: each counts for as many blocks as there are fewer."""
        blocks = len(base.transformer_blocks)
        run = blocks / len(residuals)
        return [residuals[int(place / run)] for place in range(blocks)]


def check_fits(net: Any, base: OnDeviceModel, control_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless a ControlNet's residuals and inputs are those of the model's transformer."""
    ours: Any = base.modules["transformer"]
    config = net.config
    misfits = Misfits(control_id, base.model.id)
    misfits.compare("width", net.inner_dim, ours.inner_dim)
    for name in ("in_channels", "patch_size", "pooled_projection_dim"):
        misfits.compare(name, config[name], ours.config[name])
    if config.joint_attention_dim is not None:
        misfits.compare("joint_attention_dim", config.joint_attention_dim, ours.config.joint_attention_dim)
    misfits.allow("blocks", len(net.controlnet_blocks), range(1, len(ours.transformer_blocks) + 1))
    misfits.allow("extra_conditioning_channels", config.extra_conditioning_channels, (0, 1))
    misfits.refuse()
