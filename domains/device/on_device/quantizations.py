"""Tries in which ways a device can hold weights in fewer bits and widen them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_VALUES = (-448.0, -1.75, -0.0625, 0.0, 0.0625, 1.75, 448.0)
"""Numbers that FP8 (E4M3) holds exactly."""


def tried_quantizations(device: torch.device) -> tuple[str, ...]:
    """The words of those that give the right numbers."""
    return tuple(word for word, right in _TRIALS.items() if _tried(right, device))


def _tried(right: Callable[[Tensor], bool], device: torch.device) -> bool:
    try:
        return right(torch.tensor(_VALUES).to(device))
    except (RuntimeError, TypeError, NotImplementedError):
        return False


def _fp8(values: Tensor) -> bool:
    codes = torch.empty(values.shape, dtype=torch.float8_e4m3fn, device=values.device)
    codes.copy_(values)
    return torch.equal(codes.to(torch.float32).cpu(), values.cpu())


def _int8(values: Tensor) -> bool:
    codes = torch.empty(values.shape, dtype=torch.int8, device=values.device)
    codes.copy_((values / 448 * 127).round())
    made = torch.empty(values.shape, device=values.device)
    torch.mul(codes, values.new_full((1,), 448 / 127), out=made)
    return torch.allclose(made.cpu(), values.cpu(), rtol=0, atol=448 / 254)


_TRIALS: Mapping[str, Callable[[Tensor], bool]] = {"fp8_e4m3": _fp8, "int8": _int8}
"""By the words of `domains.model.weight_quantization`."""
