"""Computes diffusers' FluxControlNetModel: blocks of FLUX.1 that also see a control map.

Most see the map's latents; those of XLabs see its pixels through a small network of their own. One that was trained for
several types of maps (union) is told the type. As in diffusers, the row without the prompt takes the residuals of the one
with it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from domains.inference.on_device.controls.guiding_net import SeePicture, growing_shares
from domains.inference.on_device.controls.misfit import Misfits, refuse_hidden
from domains.inference.on_device.controls.token_regions import in_tokens
from domains.inference.on_device.cross_reads import Beside
from domains.inference.on_device.families.family import KeepOn, from_pixels
from domains.inference.on_device.families.packing import packed, positions
from domains.inference.on_device.networks.module_dtype import dtype_of
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.rows import RowConditions
from domains.model.on_device import OnDeviceModel

_TRAIN_STEPS = 1000
_PIXELS_OF_HINT = 8
"""Edge of the square of pixels that becomes one latent pixel in the network that sees maps itself."""


class FluxControlNet:
    """See `GuidingNet`."""

    of_whole_picture = False
    reads_prompt_alone = True

    def __init__(self, module: nn.Module, control_id: str) -> None:
        self._module = WatchedModule(module)
        self._net: Any = module
        self._id = control_id
        self.dtype = dtype_of(module)
        self.types: int = self._net.config.num_mode or 0
        self._sees_pixels = self._net.input_hint_block is not None

    def typed(self, conditions: RowConditions, number: int) -> RowConditions:
        """See `GuidingNet`."""
        mode = torch.full((conditions.rows, 1), number, dtype=torch.long, device=conditions.inputs[0].device)
        return replace(conditions, inputs=[*conditions.inputs, mode])

    def weighed(self, conditions: RowConditions, weight: float) -> RowConditions:
        """See `GuidingNet`: its residuals alone are weighed."""
        return conditions

    @property
    def layers(self) -> int:
        """See `GuidingNet`."""
        return len(self._net.controlnet_blocks) + len(self._net.controlnet_single_blocks)

    def hint(self, control_map: Tensor, hidden: Tensor | None, see: SeePicture) -> Tensor:
        """(1, channels, h/8, w/8): the map's latents; or (1, 3, h, w): its pixels, −1..1. Raises UNSUPPORTED_COMBINATION for
        a map that marks missing pixels."""
        refuse_hidden(hidden, self._id)
        return (from_pixels(control_map) if self._sees_pixels else see(control_map)).to(self.dtype)

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
        """See `GuidingNet`: (pictures, tokens, width) behind each block, single blocks last."""
        states, pooled, guidance, *mode = inputs
        height, width = latents.shape[-2:]
        # A model for inpainting reads more than the latents.
        own = packed(latents)[..., : self._net.config.in_channels]
        found = self._module(
            keep_on,
            hidden_states=own.to(self.dtype),
            controlnet_cond=hints if self._sees_pixels else packed(hints),
            controlnet_mode=mode[0] if mode else None,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=timestep.expand(len(latents)) / _TRAIN_STEPS,
            img_ids=positions(height, width, latents.device),
            txt_ids=torch.zeros(states.shape[1], 3, device=latents.device),
            guidance=guidance if self._net.config.guidance_embeds else None,
            return_dict=False,
        )
        return [one for some in found if some is not None for one in cast(Sequence[Tensor], some)]

    def shares(self) -> Tensor:
        """See `GuidingNet`."""
        return growing_shares(self.layers)

    def region_in(self, region: Tensor, residual: Tensor, size: tuple[int, int]) -> Tensor:
        """See `GuidingNet`."""
        return in_tokens(region, residual, size)

    def aligned(self, residuals: Sequence[Tensor], base: Any) -> Sequence[Tensor | None]:
        """One for each block of the model, then one for each of its single blocks."""
        count = len(self._net.controlnet_blocks)
        double = _spread(residuals[:count], len(base.transformer_blocks), in_turn=self._sees_pixels)
        return [*double, *_spread(residuals[count:], len(base.single_transformer_blocks))]


def _spread(residuals: Sequence[Tensor], blocks: int, *, in_turn: bool = False) -> Sequence[Tensor | None]:
    """For each block its residual. `in_turn`: one after the other, again and again; else each for a run of blocks."""
    if not residuals:
        return [None] * blocks
    count = len(residuals)
    run = -(-blocks // count)
    return [residuals[place % count if in_turn else place // run] for place in range(blocks)]


def check_fits(net: Any, base: OnDeviceModel, control_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless a ControlNet's residuals and inputs are those of the model's transformer."""
    ours: Any = base.modules["transformer"]
    misfits = Misfits(control_id, base.model.id)
    misfits.compare("width", net.inner_dim, ours.inner_dim)
    for name in ("joint_attention_dim", "pooled_projection_dim"):
        misfits.compare(name, net.config[name], ours.config[name])
    misfits.compare("in_channels", net.config.in_channels, ours.out_channels)
    misfits.allow("blocks", len(net.controlnet_blocks), range(1, len(ours.transformer_blocks) + 1))
    misfits.allow("single blocks", len(net.controlnet_single_blocks), range(len(ours.single_transformer_blocks) + 1))
    if net.config.guidance_embeds:
        misfits.compare("guidance_embeds", net.config.guidance_embeds, ours.config.guidance_embeds)
    if net.input_hint_block is not None:
        vae: Any = base.modules["vae"]
        misfits.compare("pixels of a latent pixel", _PIXELS_OF_HINT, 2 ** (len(vae.config.block_out_channels) - 1))
    misfits.refuse()
