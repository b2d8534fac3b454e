"""A picture inside a terminal, for the command line: by the terminal's own protocol, else as coloured half blocks.

* iTerm2 and WezTerm: `OSC 1337 ; File=inline=1 : base64 BEL` (iTerm2's inline images protocol).
* kitty and Ghostty: `APC G a=T,f=100 ; base64 ST`, the data in pieces of 4096 characters (kitty's graphics protocol).
* Any terminal with 24-bit colour: "▀" with the upper pixel as foreground and the lower one as background.

The terminal is never queried, because its answer could be late or never come. The environment suffices.
"""

import base64
from collections.abc import Mapping
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domains.imaging.encode import encode

_KITTY_PIECE = 4096


class Drawing(StrEnum):
    """A terminal's way to show a picture."""

    ITERM = "iterm"
    KITTY = "kitty"
    HALF_BLOCKS = "half_blocks"


def drawing_of(environment: Mapping[str, str]) -> Drawing | None:
    """The best drawing of the terminal behind these environment variables; None: only text.

    Inside tmux or screen only half blocks are sure to arrive, whatever terminal is outside.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    multiplexed = "TMUX" in environment or term.startswith(("tmux", "screen"))
    if term == "dumb":
        return None
    if not multiplexed:
        if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
            return Drawing.KITTY
        if program in ("iTerm.app", "WezTerm") or "WEZTERM_PANE" in environment:
            return Drawing.ITERM
    if environment.get("COLORTERM", "").lower() in ("truecolor", "24bit") or "WT_SESSION" in environment:
        return Drawing.HALF_BLOCKS
    return None


def inline_image(pixels: NDArray[np.uint8], environment: Mapping[str, str], *, columns: int = 60) -> str | None:
    """Text that draws (height, width[, 3 | 4]) pixels `columns` characters wide, with a line end; None: only text.

    Write it to a terminal only: the caller knows whether its output is one.
    """
    match drawing_of(environment):
        case Drawing.ITERM:
            return _iterm(encode(pixels, "image/png"), columns)
        case Drawing.KITTY:
            return _kitty(encode(pixels, "image/png"), columns)
        case Drawing.HALF_BLOCKS:
            return _half_blocks(pixels, columns)
        case None:
            return None


def _iterm(png: bytes, columns: int) -> str:
    head = f"\x1b]1337;File=inline=1;size={len(png)};width={columns};preserveAspectRatio=1:"
    return head + base64.b64encode(png).decode() + "\a\n"


def _kitty(png: bytes, columns: int) -> str:
    text = base64.b64encode(png).decode()
    pieces = [text[at : at + _KITTY_PIECE] for at in range(0, len(text), _KITTY_PIECE)]
    keys = [f"a=T,f=100,c={columns},q=2,", *[""] * (len(pieces) - 1)]  # q=2: the terminal answers nothing
    more = [1] * (len(pieces) - 1) + [0]
    return "".join(f"\x1b_G{key}m={m};{piece}\x1b\\" for key, m, piece in zip(keys, more, pieces, strict=True)) + "\n"


def _half_blocks(pixels: NDArray[np.uint8], columns: int) -> str:
    picture = Image.fromarray(pixels).convert("RGB")
    lines = max(1, round(columns * picture.height / picture.width / 2))
    small = np.asarray(picture.resize((columns, 2 * lines), Image.Resampling.LANCZOS))
    return "".join(_line(upper, lower) for upper, lower in zip(small[::2], small[1::2], strict=True))


def _line(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> str:
    cells = (f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀" for a, b in zip(upper, lower, strict=True))
    return "".join(cells) + "\x1b[0m\n"
