"""Tables as wide as the terminal: whole cells in a pipe, a block a row where the columns do not fit. Ids are never cut."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from server.cli.printing import emit, notice

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_UNCUT = 4000
"""Characters; wider than any table that is printed."""
GAP = 2
"""Between two columns."""
_NOTHING = frozenset({"", "–"})
Rows = Sequence[Sequence[str]]


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Print the rows. Without rows, `empty` goes to stderr. Raises `OutputLost`."""
    lines = list(rows)
    return draw(table(heads, lines)) if lines else notice(empty)


def print_reasons(reasons: Iterable[tuple[str, str]]) -> None:
    """What does not fit into a cell, below the table: `gpu-1: 3 errors in a row`. Pairs without a text are left out."""
    told = [(name, text) for name, text in reasons if text]
    if not told:
        return
    emit()
    for name, text in told:
        emit(f"{name}: {text}")


def draw(what: RenderableType) -> None:
    """Print something of rich's. Raises `OutputLost`."""
    screen = console()
    with screen.capture() as captured:
        screen.print(what)
    emit(captured.get(), end="")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """The rows as a table; where that is wider than the terminal, without columns that say nothing, else as blocks."""
    lines, width = [list(row) for row in rows], console().width
    if natural_width(heads, lines) > width:
        heads, lines = _telling(heads, lines)
    if natural_width(heads, lines) > width:
        return _blocks(heads, lines, width)
    return _grid(heads, lines)


def natural_width(heads: Sequence[str], rows: Rows) -> int:
    """Columns of a terminal that the table needs so that no cell is cut or wrapped."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    return sum(widths) + GAP * max(0, len(widths) - 1)


def _telling(heads: Sequence[str], rows: Rows) -> tuple[Sequence[str], list[list[str]]]:
    """Without the columns in which no row says anything; the first stays."""
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
    """The first cell, then the others with their heads, as many a line as fit."""
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
    # An id that is longer than the line stays in one piece.
    return textwrap.wrap(
        text,
        max(width, 2 * GAP + 1),
        initial_indent=" " * GAP,
        subsequent_indent=" " * 2 * GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )


def console() -> Console:
    """Stdout."""
    from rich.console import Console

    # A pipe has no width of its own: `grep` and `awk` see whole cells.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNCUT)
