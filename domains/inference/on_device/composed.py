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

from domains.inference.on_device.family import Conditions, StepRows


@dataclass(frozen=True, kw_only=True, eq=False)
class ComposedConditions:
    """See `Conditions`: those of each prompt. All have inputs of the same shapes."""

    parts: Sequence[Conditions]

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
    return [dataclasses.replace(rows, conditions=part) for part in conditions.parts]


def gathered(outputs: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """The output of each job, of as many prompts as `counts` says."""
    found: list[Tensor] = []
    begin = 0
    for count in counts:
        some = outputs[begin : begin + count]
        found.append(some[0] if count == 1 else torch.stack([*some]).mean(0))
        begin += count
    return found
