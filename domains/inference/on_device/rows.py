"""What the rows of jobs read in a forward. `batches` puts the rows of many jobs together.

Rows stand in one order: the unconditional row of each guided picture, then one row for each picture, guided pictures first.
So what both rows of a picture have in common is computed once, and `in_rows` repeats it.
"""

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from domains.inference.on_device.family import EncodedPrompt


@dataclass(frozen=True, kw_only=True, eq=False)
class RowConditions:
    """See `Conditions`: the tensors that steer one job's rows."""

    guidance: float
    guided: bool
    """Whether the inputs have two rows, unconditional first; else they have one."""
    inputs: Sequence[Tensor]
    """Each (1 or 2, …), in the order in which the family's forward takes them."""

    @cached_property
    def alike(self) -> Hashable:
        """See `Conditions`. An interned text: it is compared at every step, and stands for up to 300 shapes."""
        return sys.intern(repr([tuple(tensor.shape[1:]) for tensor in self.inputs]))

    @property
    def rows(self) -> int:
        """See `Conditions`."""
        return 2 if self.guided else 1

    def tensors(self) -> Sequence[Tensor]:
        """See `Conditions`."""
        return self.inputs


def steered(
    guidance: float, positive: EncodedPrompt, negative: EncodedPrompt | None, *inputs: Callable[[EncodedPrompt], Tensor]
) -> RowConditions:
    """Conditions whose inputs are read from the prompts; two rows each, the negative prompt first, if there is one."""
    halves = [positive] if negative is None else [negative, positive]
    return RowConditions(
        guidance=guidance,
        guided=negative is not None,
        inputs=[torch.cat([read(half) for half in halves]) for read in inputs],
    )


def states_of(prompt: EncodedPrompt) -> Tensor:
    """(1, tokens, width)."""
    return prompt.states


def pooled_of(prompt: EncodedPrompt) -> Tensor:
    """(1, width), of a prompt that has it."""
    return cast(Tensor, prompt.pooled)


def mask_of(prompt: EncodedPrompt) -> Tensor:
    """(1, tokens), of a prompt that has it."""
    return cast(Tensor, prompt.mask)


def in_rows(x: Tensor, rows: int) -> Tensor:
    """What belongs to pictures (pictures, …), once for each of so many rows. It is x itself if there is no other row."""
    if x.shape[0] == rows:
        return x
    # `repeat` and an index change the memory layout; `cat` along the first dimension keeps it.
    return torch.cat([x[: rows - x.shape[0]], x])
