"""One forward for the rows of many jobs: each row with its own timestep and inputs, guided and unguided ones mixed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from domains.inference.on_device.family import EncodedPrompt, StepRows

_TRAIN_STEPS = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class RowConditions:
    """See `Conditions`: the tensors that steer one job's rows."""

    guidance: float
    guided: bool
    """Whether the inputs have two rows, unconditional first; else they have one."""
    inputs: Sequence[Tensor]
    """Each (1 or 2, …), in the order in which the family's forward takes them."""

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows of all jobs, one behind the other; of a guided job first the unconditional ones."""

    latents: Tensor
    """(rows, channels, h, w), float32."""
    timesteps: Tensor
    """(rows,), float32."""
    inputs: Sequence[Tensor]
    """Each (rows, …)."""

    @property
    def times(self) -> Tensor:
        """(rows,), 0..1: the timesteps as flow transformers read them, which multiply by 1000 themselves."""
        return self.timesteps / _TRAIN_STEPS


Forward = Callable[[Batch], Tensor]
"""The model's output for each row, shaped like its latents."""


def in_batches(group: Sequence[StepRows], forward: Forward) -> list[Tensor]:
    """The output of each job, guidance applied, float32: one forward for all jobs whose tensors have the same shapes."""
    found: list[Tensor | None] = [None] * len(group)
    for places in _alike(group):
        jobs = [group[place] for place in places]
        outputs = forward(_batch(jobs)).float().split([_rows(job) for job in jobs])
        for place, job, output in zip(places, jobs, outputs, strict=True):
            found[place] = _guided(_conditions(job), output)
    return cast(list[Tensor], found)


def _alike(group: Sequence[StepRows]) -> list[list[int]]:
    """Places of jobs by the shapes of their tensors."""
    places: dict[tuple[torch.Size, ...], list[int]] = {}
    for place, job in enumerate(group):
        shapes = (job.latents.shape[1:], *(tensor.shape[1:] for tensor in _conditions(job).inputs))
        places.setdefault(shapes, []).append(place)
    return list(places.values())


def _batch(jobs: Sequence[StepRows]) -> Batch:
    columns = zip(*(_inputs(job) for job in jobs), strict=True)
    return Batch(
        latents=_joined([job.latents for job in jobs for _ in range(_halves(job))]),
        timesteps=torch.cat([job.timestep.expand(_rows(job)) for job in jobs]),
        inputs=[_joined(list(column)) for column in columns],
    )


def _inputs(job: StepRows) -> list[Tensor]:
    """Each row once a picture: (u, c) → (u, u, c, c)."""
    images = job.latents.shape[0]
    return [tensor if images == 1 else tensor.repeat_interleave(images, 0) for tensor in _conditions(job).inputs]


def _guided(conditions: RowConditions, output: Tensor) -> Tensor:
    if not conditions.guided:
        return output
    without, with_text = output.chunk(2)
    return without + conditions.guidance * (with_text - without)


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _conditions(job: StepRows) -> RowConditions:
    return cast(RowConditions, job.conditions)


def _halves(job: StepRows) -> int:
    return 2 if _conditions(job).guided else 1


def _rows(job: StepRows) -> int:
    return _halves(job) * job.latents.shape[0]
