"""The dtype of a module of diffusers, whose own property looks for hooks in every submodule: 5 ms for a large U-Net."""

import torch
from torch import nn


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype of its first parameter of floats. Raises StopIteration if it has none."""
    return next(one.dtype for one in module.parameters() if one.is_floating_point())
