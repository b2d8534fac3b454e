"""Computes diffusers' ControlNetUnionModel of SDXL (xinsir): a ControlNet that is told the type of its map.

Several maps of a job are read in one forward: the network is told all their types, weighs each map before it reads it, and
adds what its transformer finds in each. The published attention runs over the pictures of a batch; here each picture is one
by itself, so that none depends on others. So what several maps add is the same in all steps, and is computed once.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from domains.inference.on_device.controls.control_net import ControlNet
from domains.inference.on_device.controls.guiding_net import TypedMap
from domains.inference.on_device.rows import RowConditions
from domains.model.on_device import picture_layout


class UnionControlNet(ControlNet):
    """See `GuidingNet`."""

    missing = 0.0
    weighs_maps = True

    def __init__(self, module: nn.Module) -> None:
        """Raises MODEL_INCOMPATIBLE for one with parts that this walk does not visit."""
        super().__init__(module, pooled_and_sizes=True)
        self._net: Any = module
        self.types = len(self._net.task_embedding)

    def typed(self, conditions: RowConditions, number: int) -> RowConditions:
        """See `GuidingNet`: the type counts beside the sizes in every step, and for the map itself."""
        task = self._net.task_embedding[number].to(self.dtype).expand(conditions.rows, -1)
        return self._told(conditions, [number], task, alone=True)

    def typed_together(self, conditions: RowConditions, numbers: Sequence[int]) -> RowConditions:
        """See `JoiningNet`. A type that several maps have counts once, as in diffusers."""
        task = self._net.task_embedding[0].to(self.dtype).expand(conditions.rows, -1)
        return self._told(conditions, numbers, torch.zeros_like(task), alone=False)

    def joined(self, maps: Sequence[TypedMap]) -> Tensor:
        """See `JoiningNet`: (1, channels, h/8, w/8), with what the transformer finds."""
        found = [self._weighted(one) for one in maps]
        return torch.stack(found).sum(0).contiguous(memory_format=picture_layout(found[0].device))

    def _weighted(self, one: TypedMap) -> Tensor:
        task = self._net.task_embedding[one.number].to(self.dtype)
        seen = (one.hint.mean(dim=(2, 3)) + task) * one.weight
        return (one.hint + self._net.spatial_ch_projs(self._transformed(seen))[..., None, None]) * one.weight

    def _transformed(self, seen: Tensor) -> Tensor:
        """(n, channels) → (n, channels): each as the transformer's attention sees it alone."""
        alone = seen.unsqueeze(0)
        for layer in self._net.transformer_layes:
            alone = layer(alone)
        return alone[0]

    def _told(self, conditions: RowConditions, numbers: Sequence[int], task: Tensor, *, alone: bool) -> RowConditions:
        """Conditions with types. `task`: (rows, channels). `alone`: whether the hint is that of one map, and not joined."""
        net, (added, *keys) = self._net, conditions.inputs
        types = torch.zeros(self.types, device=added.device)
        for number in numbers:
            types[number] = 1
        told = net.control_add_embedding(net.control_type_proj(types).reshape(1, -1).to(self.dtype))
        counts = torch.full((conditions.rows, 1), alone, dtype=torch.bool, device=added.device)
        return replace(conditions, inputs=[added + told, *keys, task, counts])

    def _guided(self, sample: Tensor, hints: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        # The rows with the prompt are last, one a picture.
        task, alone = (one[-len(sample) :] for one in inputs[-2:])
        seen = torch.stack([hints.mean(dim=(2, 3)) + task, sample.mean(dim=(2, 3))], 1)
        first = self._transformed(seen.flatten(0, 1)).view_as(seen)[:, 0]
        # A joined hint has what the transformer finds.
        found = torch.where(alone, self._net.spatial_ch_projs(first), 0.0)
        return sample + hints + found[..., None, None]
