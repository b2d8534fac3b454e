"""Guidance with the contrast of the prompt's own output (Lin et al. 2023, section 3.4)."""

import torch
from torch import Tensor


def rescaled(steered: Tensor, with_text: Tensor, shares: Tensor) -> Tensor:
    """The guided outputs, moved by their shares to the deviation of the outputs of the prompt.

    steered, with_text: (pictures, channels, h, w); shares: (pictures, 1, 1, 1). A share of 0 leaves its picture
    bit-identical.
    """
    deviation, wanted = (each.flatten(1).std(1).view(-1, 1, 1, 1) for each in (steered, with_text))
    found = torch.lerp(steered, steered * (wanted / deviation), shares)
    return torch.where(shares > 0, found, steered)
