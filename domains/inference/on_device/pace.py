"""Learns how many rows a forward should have on a device: as many as make a row clearly faster, and as fit into its memory.

A larger forward is tried while the last doubling of its rows has paid. On a CPU that ends early for large pictures, where
rows take as long together as one after the other; there a job would only wait for its neighbours.
"""

from collections import deque
from collections.abc import Hashable
from weakref import WeakKeyDictionary

MOST_ROWS = 64
"""Rows of the largest forward; the most for which a gain was measured on any device is 32."""
_GAIN = 0.05
"""Share by which a row must be faster for a larger forward."""
_ENOUGH = 2
"""Forwards of a size before its speed counts: the first one sets up what later ones find."""
_REMEMBERED = 8
"""Forwards of a size whose fastest counts; another program may have slowed down the others."""
_AGAIN = 32
"""Forwards between two trials of a larger size that was slow before; perhaps another program was at work then."""
_VALID = 2000
"""Forwards after which everything is measured anew."""


class Sizes:
    """What is known about forwards of one kind, by size: size n has more than 2ⁿ⁻¹ and at most 2ⁿ rows."""

    def __init__(self) -> None:
        self._row_s: dict[int, deque[float]] = {}
        self._largest = _size(MOST_ROWS)
        self._forwards = 0

    def took(self, rows: int, seconds: float) -> None:
        """Note the time of a forward."""
        self._forwards += 1
        if self._forwards > _VALID:
            self._row_s.clear()
            self._largest, self._forwards = _size(MOST_ROWS), 0
        self._row_s.setdefault(_size(rows), deque(maxlen=_REMEMBERED)).append(seconds / rows)

    def did_not_fit(self, rows: int) -> None:
        """Note that the device had no memory for a forward."""
        self._largest = max(0, min(self._largest, _size(rows) - 1))

    @property
    def most_rows(self) -> int:
        """Rows that a forward should have at most; 1 while nothing is known."""
        return 1 << self._best

    @property
    def _best(self) -> int:
        """The size to use: the smallest of those that are about as fast as the fastest, or one to try."""
        known = {size: min(some) for size, some in sorted(self._row_s.items()) if len(some) >= _ENOUGH}
        if not known:
            return 0
        fastest = min(known.values())
        best = next(size for size, row_s in known.items() if row_s * (1 - _GAIN) <= fastest)
        tried = best + 1 in known and self._forwards % _AGAIN
        return min(self._largest, best if tried else best + 1)


class Pace:
    """What is known about the forwards of all models on a device. It keeps no model."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[object, dict[Hashable, Sizes]] = WeakKeyDictionary()

    def of(self, model: object, shape: Hashable) -> Sizes:
        """About one kind of forward. `model`: what computes; `shape`: of its inputs."""
        return self._known.setdefault(model, {}).setdefault(shape, Sizes())


def _size(rows: int) -> int:
    return (rows - 1).bit_length()
