"""How one job's rows are dealt to forwards when a forward of all of them has no room. The pictures stay the same."""

from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import cast

import torch
from torch import Tensor

from domains.inference.on_device.composed import ComposedConditions, gathered, spread
from domains.inference.on_device.families.family import Conditions, StepRows
from domains.inference.on_device.rows import RowConditions, guided


class Forwards(IntEnum):
    """What shares a forward. The larger the value, the less memory a forward takes."""

    ALL = 0
    """All pictures of the job."""
    PICTURE = 1
    """The rows of one picture."""
    ROW = 2
    """Nothing: a guided picture without its prompt, then with it."""


def in_forwards(whole: StepRows, forwards: Forwards, compute: Callable[[StepRows], Tensor]) -> Tensor:
    """The output of a job, guidance applied: (pictures, channels, h, w). `compute`: does a forward for some of its rows."""
    if forwards is Forwards.ALL:
        return compute(whole)
    pictures = [replace(whole, latents=latents) for latents in whole.latents.split(1)]
    if forwards is Forwards.PICTURE:
        return torch.cat([compute(picture) for picture in pictures])
    return torch.cat([_row_by_row(picture, compute) for picture in pictures])


def has_single_rows(conditions: Conditions) -> bool:
    """Whether a picture has several rows, each of which can have a forward of its own."""
    parts = conditions.parts if isinstance(conditions, ComposedConditions) else [conditions]
    return conditions.rows > 1 and all(cast(RowConditions, part).regions is None for part in parts)


def _row_by_row(picture: StepRows, compute: Callable[[StepRows], Tensor]) -> Tensor:
    outputs = [_of_prompt(rows, compute) for rows in spread(picture)]
    return gathered(outputs, [picture])[0]


def _of_prompt(rows: StepRows, compute: Callable[[StepRows], Tensor]) -> Tensor:
    conditions = cast(RowConditions, rows.conditions)
    if not conditions.guided:
        return compute(rows)
    without, with_text = (compute(replace(rows, conditions=half)) for half in conditions.halves())
    scale, share = (without.new_full((1, 1, 1, 1), one) for one in (conditions.guidance, conditions.rescale))
    return guided(without, with_text, scale, share if conditions.rescale else None)
