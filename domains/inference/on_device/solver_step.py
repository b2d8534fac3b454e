"""One line of many walks at once, whatever their samplers: one product of coefficients and tensors for all rows.

Each row has a matrix of its own for the tensors that it reads, so its neighbours have no part in its sum.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from domains.inference.on_device.solver_state import SolverState
from domains.inference.solvers.weights import Weights


def follow(states: Sequence[SolverState], outputs: Sequence[Tensor], noises: Sequence[Tensor | None]) -> None:
    """Do the next line of each. `outputs`: the denoiser's; `noises`: for those whose line draws some. Changes nothing if it
    raises."""
    tensors = [state.read(output, noise) for state, output, noise in zip(states, outputs, noises, strict=True)]
    # Pictures of several sizes can share a forward, but not a product.
    of_size = dict[torch.Size, list[int]]()
    for place, state in enumerate(states):
        of_size.setdefault(state.latents.shape[1:], []).append(place)
    made = {place: part for some in of_size.values() for place, part in _made(states, tensors, some)}
    for place, state in enumerate(states):
        state.move(made[place][: len(state.weights.makes)])


def _made(
    states: Sequence[SolverState], tensors: Sequence[Sequence[Tensor]], places: Sequence[int]
) -> Iterator[tuple[int, Sequence[Tensor]]]:
    """What the lines of the states at these places make, whose latents have one size."""
    chosen = [states[place] for place in places]
    weights = [state.weights for state in chosen]
    counts = [len(state.latents) for state in chosen]
    columns, like = max(len(one.reads) for one in weights), chosen[0].latents
    rows = _rows([tensors[place] for place in places], counts, columns)
    product = torch.bmm(_matrices(weights, counts, columns, like), rows)
    made = product.view(*product.shape[:2], *like.shape[1:]).unbind(1)
    yield from zip(places, zip(*(one.split(counts) for one in made), strict=True), strict=True)


def _matrices(weights: Sequence[Weights], counts: Sequence[int], columns: int, like: Tensor) -> Tensor:
    """(rows of all states, made, columns), on the device. What a line does not read or make is 0."""
    shape = sum(counts), max(len(one.makes) for one in weights), columns
    matrices = torch.zeros(shape, dtype=like.dtype, pin_memory=like.device.type == "cuda")
    found, begin = matrices.numpy(), 0
    for one, count in zip(weights, counts, strict=True):
        found[begin : begin + count, : len(one.makes), : len(one.reads)] = one.matrix
        begin += count
    return matrices.to(like.device, non_blocking=True)


def _rows(tensors: Sequence[Sequence[Tensor]], counts: Sequence[int], columns: int) -> Tensor:
    """(rows of all states, columns, elements). Where a state reads fewer tensors, its first one fills the place."""
    filled = [[*some, *[some[0]] * (columns - len(some))] for some in tensors]
    if max(counts) == 1:
        # Latents that an encoder made on CUDA have their channels last.
        return torch.cat([tensor for some in filled for tensor in some]).reshape(len(counts), columns, -1)
    return torch.cat([torch.stack(some, 1) for some in filled]).flatten(2)
