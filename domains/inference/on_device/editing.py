"""Models made for editing see pictures beside the prompt.

A U-Net (InstructPix2Pix, Brooks et al. 2022) reads one picture's latents in channels beside its own, and guides by it:
u + t·(text − picture) + s·(picture − u), where u sees neither prompt nor picture, and `picture` the picture alone. Each
of the three is a row of its own, so that groups of jobs know nothing of it. FLUX.1 Kontext reads its picture as tokens
behind those of the latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from domains.inference.on_device.batches import Batch
from domains.inference.on_device.composed import ComposedConditions, together
from domains.inference.on_device.families.family import Conditions
from domains.inference.on_device.families.packing import packed, positions
from domains.inference.on_device.rows import RowConditions

_LEAST = 1.0
"""Least guidance by the picture: below it there is no guidance at all, as in diffusers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a job's model sees beside the prompt."""

    pictures: Sequence[Tensor]
    """Latents, each (1, channels, h/8, w/8)."""
    image_guidance: float | None
    """None: guidance is by the prompt alone."""


def edited(
    parts: Sequence[RowConditions], weights: Sequence[float], guidance: float, seen: Seen, rescale: float
) -> Conditions:
    """The conditions of prompts (`parts`, with their shares of the guidance) that also see pictures."""
    pictures = seen.pictures
    if seen.image_guidance is None:
        (one,) = parts
        return replace(
            one, rescale=rescale, inputs=[*one.inputs, *(each.expand(one.rows, -1, -1, -1) for each in pictures)]
        )
    texts = [_row([one[-1:] for one in part.inputs], pictures) for part in parts]
    if not parts[0].guided or seen.image_guidance < _LEAST:
        return together(texts)
    shares = [guidance * weight for weight in weights]
    without = [one[:1] for one in parts[0].inputs]
    blind = _row(without, [torch.zeros_like(one) for one in pictures])
    return ComposedConditions(
        parts=[blind, _row(without, pictures), *texts],
        weights=[1 - seen.image_guidance, seen.image_guidance - sum(shares), *shares],
        rescale=rescale,
    )


def _row(rows: Sequence[Tensor], pictures: Sequence[Tensor]) -> RowConditions:
    """One row of a prompt's conditions, which sees these pictures."""
    return RowConditions(guidance=1.0, guided=False, inputs=[*rows, *pictures])


def beside_latents(batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
    """(rows, channels of latents and picture, h, w), and the other inputs, of a U-Net that sees a picture."""
    *inputs, picture = batch.inputs
    return torch.cat([batch.latents, picture.to(batch.latents)], dim=1), inputs


def behind_latents(latents: Tensor, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(rows, tokens, width) of latents and pictures, and (tokens, 3): where each token stands, and in which picture."""
    tokens, places = list[Tensor](), list[Tensor]()
    for number, one in enumerate([latents, *pictures]):
        height, width = one.shape[-2:]
        place = positions(height, width, latents.device)
        place[:, 0] = number
        tokens.append(packed(one.to(latents)))
        places.append(place)
    return torch.cat(tokens, dim=1), torch.cat(places)
