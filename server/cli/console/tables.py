"""Prints tables that fit the terminal: columns, or a block for each row. Cells are whole in a pipe; ids are never cut."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from server.cli.console.printing import emit, notice

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_UNCUT = 4000
"""Width in characters that no table reaches."""
GAP = 2
"""Characters between two columns."""
_NOTHING = frozenset({"", "–"})
Rows = Sequence[Sequence[str]]


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Print the rows. Without rows, `empty` goes to stderr. Raises `OutputLost`."""
    lines = list(rows)
    return draw(table(heads, lines)) if lines else notice(empty)


def print_reasons(reasons: Iterable[tuple[str, str]]) -> None:
    """Print texts that do not fit into a cell below the table: `gpu-1: 3 errors in a row`. Skips pairs without a text."""
    told = [(name, text) for name, text in reasons if text]
    if not told:
        return
    emit()
    for name, text in told:
        emit(f"{name}: {text}")


def draw(what: RenderableType) -> None:
    """Print a renderable of rich. Raises `OutputLost`."""
    screen = console()
    with screen.capture() as captured:
        screen.print(what)
    emit(captured.get(), end="")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """The rows as a table; if it is too wide, without columns that say nothing; if still too wide, as blocks."""
    lines, width = [list(row) for row in rows], console().width
    if natural_width(heads, lines) > width:
        heads, lines = _telling(heads, lines)
    if natural_width(heads, lines) > width:
        return _blocks(heads, lines, width)
    return _grid(heads, lines)


def natural_width(heads: Sequence[str], rows: Rows) -> int:
    """Width in characters at which no cell of the table is cut or wrapped."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    return sum(widths) + GAP * max(0, len(widths) - 1)


def _telling(heads: Sequence[str], rows: Rows) -> tuple[Sequence[str], list[list[str]]]:
    """The table without the columns in which no row has a value; the first column stays."""
    kept = [at for at in range(len(heads)) if not at or any(row[at] not in _NOTHING for row in rows)]
    return [heads[at] for at in kept], [[row[at] for at in kept] for row in rows]


def _grid(heads: Sequence[str], rows: Rows) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for head in heads:
        drawn.add_column(head, no_wrap=True, overflow="ignore")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _blocks(heads: Sequence[str], rows: Rows, width: int) -> RenderableType:
    from rich.text import Text

    lines = (line for row in rows for line in _block(heads, row, width))
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")


def _block(heads: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """The lines of a block: the first cell, then the others with their heads, as many on a line as fit."""
    told = [f"{head} {cell}".strip() for head, cell in zip(heads[1:], row[1:], strict=True) if cell not in _NOTHING]
    lines, line = [row[0]], ""
    for part in told:
        joined = f"{line} · {part}" if line else part
        if line and len(joined) + GAP > width:
            lines.append(line)
            joined = part
        line = joined
    whole = [*lines[1:], line] if line else lines[1:]
    return [row[0], *(piece for one in whole for piece in _wrapped(one, width))]


def _wrapped(text: str, width: int) -> list[str]:
    # An id that is longer than the line is not broken.
    return textwrap.wrap(
        text,
        max(width, 2 * GAP + 1),
        initial_indent=" " * GAP,
        subsequent_indent=" " * 2 * GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )


def console() -> Console:
    """The console of stdout."""
    from rich.console import Console

    # A pipe has no width: `grep` and `awk` get whole cells.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNCUT)
