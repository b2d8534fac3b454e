"""One line of many walks at once, whatever their samplers: one product of coefficients and tensors for all rows.

Each row has a matrix of its own for the tensors that it reads, so its neighbours have no part in its sum.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from domains.inference.on_device.solver_state import SolverState
from domains.inference.solvers.weights import Weights


def follow(states: Sequence[SolverState], outputs: Sequence[Tensor], noises: Sequence[Tensor | None]) -> None:
    """Do the next line of each. `outputs`: the denoiser's; `noises`: for those whose line draws some. Changes nothing if it
    raises."""
    weights = [state.weights for state in states]
    counts = [len(state.latents) for state in states]
    columns = max(len(one.reads) for one in weights)
    tensors = [state.read(output, noise) for state, output, noise in zip(states, outputs, noises, strict=True)]
    product = torch.bmm(_matrices(weights, counts, columns, states[0].latents), _rows(tensors, counts, columns))
    made = product.view(*product.shape[:2], *states[0].latents.shape[1:]).unbind(1)
    parts = zip(*(rows.split(counts) for rows in made), strict=True)
    for state, one, part in zip(states, weights, [*parts], strict=True):
        state.move(part[: len(one.makes)])


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
        return torch.cat([tensor for some in filled for tensor in some]).view(len(counts), columns, -1)
    return torch.cat([torch.stack(some, 1) for some in filled]).flatten(2)
