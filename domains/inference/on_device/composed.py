"""Prompts that guide together: their rows in a forward, and the sum of their guidances (Liu et al. 2022).

The output is u + s·Σ wᵢ·(cᵢ − u), where u is without a prompt and s the guidance. Each of the n prompts has rows as a
picture of its own, with the guidance n·s·wᵢ: the mean of these n outputs is that sum. So groups of jobs, adapters and
families know nothing of it.
"""

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from domains.inference.on_device.families.family import Conditions, StepRows
from domains.inference.on_device.rescale import rescaled


@dataclass(frozen=True, kw_only=True, eq=False)
class ComposedConditions:
    """See `Conditions`: those of each prompt. All have inputs of the same shapes."""

    parts: Sequence[Conditions]
    weights: Sequence[float] = ()
    """Weights of the parts' outputs in the sum. Empty: the mean."""
    rescale: float = 0.0
    """How much the contrast of a weighted sum is pulled back to that of the last part's output, 0..1."""

    @property
    def alike(self) -> Hashable:
        """See `Conditions`."""
        return self.parts[0].alike

    @property
    def rows(self) -> int:
        """See `Conditions`."""
        return sum(part.rows for part in self.parts)

    def tensors(self) -> Sequence[Tensor]:
        """See `Conditions`."""
        return [tensor for part in self.parts for tensor in part.tensors()]


def together(parts: Sequence[Conditions]) -> Conditions:
    """The conditions of prompts that guide together; of one alone, its own."""
    return parts[0] if len(parts) == 1 else ComposedConditions(parts=parts)


def spread(rows: StepRows) -> list[StepRows]:
    """A job's part in a forward, for each of its prompts."""
    conditions = rows.conditions
    if not isinstance(conditions, ComposedConditions):
        return [rows]
    return [
        dataclasses.replace(rows, conditions=part, controls=[one.of_prompt(place) for one in rows.controls])
        for place, part in enumerate(conditions.parts)
    ]


def gathered(outputs: Sequence[Tensor], jobs: Sequence[StepRows]) -> list[Tensor]:
    """The output of each job, from those of all its prompts."""
    found: list[Tensor] = []
    begin = 0
    for job in jobs:
        conditions = job.conditions
        count = len(conditions.parts) if isinstance(conditions, ComposedConditions) else 1
        found.append(_gathered(outputs[begin : begin + count], conditions))
        begin += count
    return found


def _gathered(outputs: Sequence[Tensor], conditions: Conditions) -> Tensor:
    if not isinstance(conditions, ComposedConditions):
        return outputs[0]
    if not conditions.weights:
        return torch.stack([*outputs]).mean(0)
    total = torch.zeros_like(outputs[0])
    for output, weight in zip(outputs, conditions.weights, strict=True):
        total.add_(output, alpha=weight)
    if not conditions.rescale:
        return total
    share = torch.full((1, 1, 1, 1), conditions.rescale, device=total.device)
    return rescaled(total, outputs[-1], share)
