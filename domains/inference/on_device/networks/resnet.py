"""Diffusers' residual block, computed in place on tensors of its own, and without its division by one."""

from typing import Any

import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.announcing import announce
from domains.inference.on_device.networks.slices import conv
from domains.inference.on_device.rows import in_rows


class Resnet:
    """x + conv(silu(norm(conv(silu(norm(x))) + time)))."""

    def __init__(self, module: ResnetBlock2D) -> None:
        _refuse_others(module)
        self._module: Any = module  # diffusers types its layers as possibly absent

    @property
    def time_projection(self) -> Any:
        """The linear layer that turns a time embedding into this block's shift; None in a VAE."""
        return self._module.time_emb_proj

    def __call__(self, x: Tensor, shift: Tensor | None = None, keep_on: KeepOn = regardless) -> Tensor:
        """x: (rows or pictures, channels, h, w); shift: (rows or 1, channels out, 1, 1). Raises what `keep_on` raises."""
        module = self._module
        announce(module)
        hidden = conv(module.conv1, F.silu(module.norm1(x), inplace=True), keep_on)
        if shift is not None:
            if shift.shape[0] > hidden.shape[0]:
                # Here the rows of a picture become different.
                hidden, x = in_rows(hidden, shift.shape[0]), in_rows(x, shift.shape[0])
            hidden += shift
        hidden = conv(module.conv2, F.silu(module.norm2(hidden), inplace=True), keep_on)
        hidden += x if module.conv_shortcut is None else conv(module.conv_shortcut, x, keep_on)
        return hidden


def _refuse_others(module: Any) -> None:
    plain = (
        module.output_scale_factor == 1
        and module.upsample is None
        and module.downsample is None
        and (module.time_emb_proj is None or module.time_embedding_norm == "default")
        and not getattr(module, "skip_time_act", False)
    )
    if not plain:
        message = "the model's residual blocks are of a kind that Stable Diffusion 1.x does not have"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, part="ResnetBlock2D")
