"""The coefficients of lines as matrices, so that one product can follow the lines of many jobs."""

from collections.abc import Sequence
from itertools import accumulate

import msgspec
import numpy as np
from numpy.typing import NDArray

from domains.inference.solvers.line import Line, Mix, Sum

DEPTH = 3
"""Most kept tensors of earlier lines that a line reads."""
LATENTS, OUTPUT, ANCHOR, KEPT, NOISE = 0, 1, 2, 3, 3 + DEPTH
"""The tensors that a line may read. From `KEPT` on, those of earlier lines, the newest first."""
NEXT, CLEAN, NEWEST, NEXT_ANCHOR = range(4)
"""The tensors that a line may make. `NEWEST`: its kept tensor."""
_NOTHING = Sum()
_AS_THEY_ARE = Sum(latents=1.0)


class Weights(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One line: made = matrix · read."""

    matrix: NDArray[np.float64]
    """(made, read)."""
    reads: tuple[int, ...]
    """What is read, in the order of the matrix."""
    makes: tuple[int, ...]
    """What is made, in the order of the matrix."""
    newest: int | None
    """What of it later lines read as a kept tensor. None: nothing."""
    keeps_latents: bool
    """Whether the line's latents become the anchor as they are."""
    remembered: int
    """How many kept tensors later lines read, counted after this one."""


def weights_of(lines: Sequence[Line]) -> list[Weights]:
    """The coefficients of a walk's lines."""
    return [_weights(line, remembered) for line, remembered in zip(lines, _remembered(lines), strict=True)]


def _weights(line: Line, remembered: int) -> Weights:
    newest = None if not remembered or not line.remembered else CLEAN if line.kept == line.clean else NEWEST
    anchor = line.anchor not in (None, _AS_THEY_ARE)
    makes = (NEXT, CLEAN, *((NEWEST,) if newest == NEWEST else ()), *((NEXT_ANCHOR,) if anchor else ()))
    matrix = _whole(line)[[*makes]]
    reads: list[int] = np.flatnonzero(matrix.any(0)).tolist()
    return Weights(
        matrix=matrix[:, reads],
        reads=tuple(reads),
        makes=makes,
        newest=newest,
        keeps_latents=line.anchor == _AS_THEY_ARE,
        remembered=remembered,
    )


def _whole(line: Line) -> NDArray[np.float64]:
    """All that a line may make (rows) of all that it may read (columns)."""
    matrix = np.zeros((NEXT_ANCHOR + 1, NOISE + 1))
    matrix[CLEAN, : OUTPUT + 1] = _mix(line.clean)
    newest = matrix[NEWEST]
    newest[: OUTPUT + 1] = _mix(line.kept)
    matrix[NEXT] = _sum(line.following, newest)
    matrix[NEXT_ANCHOR] = _sum(line.anchor or _NOTHING, newest)
    return matrix


def _mix(mix: Mix) -> list[float]:
    return [mix.latents, mix.output]


def _sum(weights: Sum, newest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The line's own kept tensor is a mix of what it reads."""
    own, *earlier = weights.kept or (0.0,)
    row = own * newest
    row[LATENTS] += weights.latents
    row[ANCHOR] = weights.anchor
    row[KEPT : KEPT + len(earlier)] = earlier
    row[NOISE] = weights.noise
    return row


def _remembered(lines: Sequence[Line]) -> list[int]:
    """For each line, the number of kept tensors that later lines read; computed from the last line back."""

    def before(needed: int, line: Line) -> int:
        read = max(_read(line.following), _read(line.anchor or _NOTHING))
        return max(read - 1, needed - line.remembered, 0)

    return [*accumulate(reversed(lines[1:]), before, initial=0)][::-1] if lines else []


def _read(weights: Sum) -> int:
    """How many kept tensors, from the newest, are read."""
    return max((place + 1 for place, weight in enumerate(weights.kept) if weight), default=0)
