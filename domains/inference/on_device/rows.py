"""What the rows of jobs read in a forward. `batches` puts the rows of many jobs together.

Rows stand in one order: the unconditional row of each guided picture, then one row for each picture, guided pictures first.
So what both rows of a picture have in common is computed once, and `in_rows` repeats it.
"""

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, cast

import torch
from torch import Tensor

from domains.inference.on_device.areas import Area
from domains.inference.on_device.cross_reads import KeysValues
from domains.inference.on_device.families.family import EncodedPrompt
from domains.inference.on_device.rescale import rescaled


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """What parts of a picture read in each layer of cross-attention in place of the generation's prompt."""

    kept: Area
    """How much the generation's prompt counts."""
    areas: Sequence[Area]
    """How much each region counts."""
    keys: Sequence[Sequence[KeysValues]]
    """Of each region, for each layer: (1 or 2, …), as the inputs."""

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds."""
        areas = [tensor for area in (self.kept, *self.areas) for tensor in area.tensors()]
        return [*areas, *(tensor for some in self.keys for pair in some for tensor in pair)]


@dataclass(frozen=True, kw_only=True, eq=False)
class RowConditions:
    """See `Conditions`: the tensors that steer one job's rows."""

    guidance: float
    guided: bool
    """Whether the inputs have two rows, unconditional first; else they have one."""
    rescale: float = 0.0
    """How much the contrast of guidance is pulled back to that of the prompt's output, 0..1."""
    inputs: Sequence[Tensor]
    """Each (1 or 2, …), in the order in which the family's forward takes them."""
    regions: Regions | None = None
    """None: the prompts count everywhere alike."""

    @cached_property
    def alike(self) -> Hashable:
        """See `Conditions`. An interned text: it is compared at every step, and stands for up to 300 shapes."""
        return sys.intern(repr([tuple(tensor.shape[1:]) for tensor in self.inputs]))

    @property
    def rows(self) -> int:
        """See `Conditions`."""
        return 2 if self.guided else 1

    def halves(self) -> "tuple[RowConditions, RowConditions]":
        """Of a guided picture: its row without the prompt and its row with it, each as that of an unguided picture."""
        without, with_text = ([tensor[row : row + 1] for tensor in self.inputs] for row in (0, 1))
        return replace(self, guided=False, inputs=without), replace(self, guided=False, inputs=with_text)

    def tensors(self) -> Sequence[Tensor]:
        """See `Conditions`."""
        return self.inputs if self.regions is None else [*self.inputs, *self.regions.tensors()]


class Rows(NamedTuple):
    """The order of rows in a forward."""

    guided: int
    """Number of guided pictures, which stand first."""
    pictures: int

    @property
    def total(self) -> int:
        """Number of rows."""
        return self.guided + self.pictures

    def of(self, pictures: slice, *, guided: bool) -> list[slice]:
        """The rows of some pictures: those without the prompt, if they are guided, then those with it."""
        with_prompt = slice(self.guided + pictures.start, self.guided + pictures.stop)
        return [pictures, with_prompt] if guided else [with_prompt]


def guided(without: Tensor, with_text: Tensor, scales: Tensor, rescales: Tensor | None = None) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): the outputs moved away from those without the prompt.

    without, with_text: (pictures, channels, h, w); scales, rescales: (pictures, 1, 1, 1). `rescales`: see `rescaled`.
    """
    steered = without + scales * (with_text - without)
    return steered if rescales is None else rescaled(steered, with_text, rescales)


def stacked(jobs: Sequence[RowConditions], images: Sequence[int], place: int) -> Tensor:
    """One input of all jobs, each row once a picture; guided jobs stand first."""
    inputs = [job.inputs[place] for job in jobs]
    if len(jobs) == 1:
        return inputs[0] if images[0] == 1 else inputs[0].repeat_interleave(images[0], 0)
    unconditional = [
        one[:1].expand(count, *one.shape[1:])
        for job, one, count in zip(jobs, inputs, images, strict=True)
        if job.guided
    ]
    return torch.cat(
        [*unconditional, *(one[-1:].expand(count, *one.shape[1:]) for one, count in zip(inputs, images, strict=True))]
    )


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
    """x (pictures, …) with one entry for each of `rows` rows. Returns x itself if no picture is guided."""
    if x.shape[0] == rows:
        return x
    # `repeat` and an index change the memory layout; `cat` along the first dimension keeps it.
    return torch.cat([x[: rows - x.shape[0]], x])
