"""The attention of a VAE's middle block, of encoder and decoder alike."""

from typing import Any

from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.networks.order import in_order_of
from domains.inference.on_device.networks.slices import attention, linear


def attended(module: Any, x: Tensor, keep_on: KeepOn) -> Tensor:
    """Diffusers' `Attention` of a picture (rows, channels, h, w) to itself, as its `AttnProcessor2_0` computes it."""
    states = module.group_norm(x.flatten(2))
    # (rows, tokens, width)
    states = states.transpose(1, 2)
    query, key, value = (
        linear(states, layer.weight, layer.bias, keep_on).unflatten(-1, (module.heads, -1)).transpose(1, 2)
        for layer in (module.to_q, module.to_k, module.to_v)
    )
    found = attention(query, key, value, keep_on).transpose(1, 2).flatten(2)
    out = linear(found, module.to_out[0].weight, module.to_out[0].bias, keep_on)
    hidden = in_order_of(x, out.transpose(1, 2).unflatten(2, x.shape[2:]))
    return (hidden + x if module.residual_connection else hidden) / module.rescale_output_factor


def refuse_other_attention(module: Any) -> None:
    """Raise MODEL_INCOMPATIBLE for attention that `attended` does not compute."""
    plain = (
        module.spatial_norm is None
        and module.group_norm is not None
        and not (module.norm_q or module.norm_k or module.norm_cross)
    )
    if not plain:
        message = "the model's VAE attends in a way that Stable Diffusion 1.x does not have"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, part="Attention")
