"""Draws a series of figures as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.cli.console.tables import GAP, console, natural_width, print_table

_BLOCKS = "▁▂▃▄▅▆▇█"
_COLUMNS = 60
_FEWEST = 10
_HEADS = ("", "over time", "lowest", "highest", "now")


@dataclass(frozen=True)
class Curve:
    """A series with its name."""

    name: str
    values: Sequence[float | None]
    """From the oldest to the newest; None: not measured."""
    figures: tuple[str, str, str]
    """Texts of the lowest, the highest and the newest value."""


def print_curves(curves: Sequence[Curve]) -> None:
    """Print each curve with its figures, as wide as the terminal allows, at most 60 columns. Raises `OutputLost`."""
    bare = [(curve.name, "", *curve.figures) for curve in curves]
    beside = natural_width(_HEADS, bare) - len(_HEADS[1])
    room = console().width - beside if bare else _COLUMNS
    if room < _FEWEST:
        # In a block, the curve is below its name.
        room = console().width - GAP - len(f"{_HEADS[1]} ")
    columns = max(_FEWEST, min(_COLUMNS, room))
    rows = [(curve.name, sparkline(curve.values, columns), *curve.figures) for curve in curves]
    print_table(_HEADS, rows, "")


def sparkline(values: Sequence[float | None], columns: int = _COLUMNS) -> str:
    """The values as a row of block characters, scaled from the lowest to the highest. A column shows its highest value, or a
    gap for no value.

    Blank if no value was measured; a flat line for equal values. The columns cover all values; the last one ends with the
    newest.
    """
    width = max(1, -(-len(values) // max(1, columns)))
    begin = len(values) % width - width if len(values) % width else 0
    cells = [
        [one for one in values[max(0, at) : at + width] if one is not None] for at in range(begin, len(values), width)
    ]
    peaks = [max(cell) if cell else None for cell in cells]
    known = [peak for peak in peaks if peak is not None]
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(" " if peak is None else _BLOCKS[round((peak - low) / span * 7)] for peak in peaks)
