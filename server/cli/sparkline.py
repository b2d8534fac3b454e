"""A series of figures in one line of text."""

from __future__ import annotations

from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_COLUMNS = 60


def sparkline(values: Sequence[float | None], columns: int = _COLUMNS) -> str:
    """The values as a row of blocks from the lowest to the highest; the highest of each column, a gap where none is.

    Blank for no value at all; equal values are a flat line.
    """
    width = max(1, -(-len(values) // columns))
    cells = [[one for one in values[at : at + width] if one is not None] for at in range(0, len(values), width)]
    peaks = [max(cell) if cell else None for cell in cells]
    known = [peak for peak in peaks if peak is not None]
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(" " if peak is None else _BLOCKS[round((peak - low) / span * 7)] for peak in peaks)
