"""Computes diffusers' ControlNetUnionModel of SDXL (xinsir): a ControlNet that is told the type of its map.

Several controls by one such network add up, as with networks of their own. The published attention runs over the pictures of
a batch; here each picture is one by itself, so that none depends on others.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from domains.inference.on_device.controls.control_net import ControlNet
from domains.inference.on_device.rows import RowConditions


class UnionControlNet(ControlNet):
    """See `GuidingNet`."""

    missing = 0.0

    def __init__(self, module: nn.Module) -> None:
        """Raises MODEL_INCOMPATIBLE for one with parts that this walk does not visit."""
        super().__init__(module, pooled_and_sizes=True)
        self._net: Any = module
        self.types = len(self._net.task_embedding)

    def typed(self, conditions: RowConditions, number: int) -> RowConditions:
        """See `GuidingNet`: the type counts beside the sizes in every step, and for the map itself."""
        net, (added, *keys) = self._net, conditions.inputs
        one = torch.zeros(self.types, device=added.device)
        one[number] = 1
        told = net.control_add_embedding(net.control_type_proj(one).reshape(1, -1).to(self.dtype))
        task = net.task_embedding[number].to(self.dtype).expand(conditions.rows, -1)
        return replace(conditions, inputs=[added + told, *keys, task])

    def _guided(self, sample: Tensor, hints: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        # The rows with the prompt are last, one a picture.
        task = inputs[-1][-len(sample) :]
        seen = torch.stack([hints.mean(dim=(2, 3)) + task, sample.mean(dim=(2, 3))], 1)
        alone = seen.flatten(0, 1).unsqueeze(0)
        for layer in self._net.transformer_layes:
            alone = layer(alone)
        first = alone.view_as(seen)[:, 0]
        return sample + hints + self._net.spatial_ch_projs(first)[..., None, None]
