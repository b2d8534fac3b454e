"""Many pictures on one page, each with its caption: for the demo, and for a quick look at a batch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GAP_PX = 8
_INK, _PAPER = (32, 32, 32), "white"


def contact_sheet(cells: Sequence[tuple[str, NDArray[np.uint8]]], columns: int, cell_px: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB with the pictures in rows of `columns`, in their order, each above its caption.

    `cells` are (caption, grey, RGB or RGBA pixels). A picture is scaled to fit a square of `cell_px`, its shape kept; a
    caption that is wider than the square ends in "…". Raises ValueError without cells, or for a size below one.
    """
    if not cells or columns < 1 or cell_px < 1:
        raise ValueError(f"a sheet needs cells, columns and a cell size: {len(cells)}, {columns}, {cell_px}")
    font_px = max(10, cell_px // 12)
    font = ImageFont.load_default(font_px)
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    step_x, step_y = cell_px + _GAP_PX, cell_px + 2 * font_px + _GAP_PX
    sheet = Image.new("RGB", (columns * step_x + _GAP_PX, rows * step_y + _GAP_PX), _PAPER)
    for place, (caption, pixels) in enumerate(cells):
        row, column = divmod(place, columns)
        _draw_cell(sheet, (_GAP_PX + column * step_x, _GAP_PX + row * step_y), cell_px, caption, pixels, font)
    return np.array(sheet)


def _draw_cell(
    sheet: Image.Image,
    corner: tuple[int, int],
    cell_px: int,
    caption: str,
    pixels: NDArray[np.uint8],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    picture = Image.fromarray(pixels).convert("RGBA")
    scale = cell_px / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    left, top = corner
    sheet.paste(picture, (left + (cell_px - picture.width) // 2, top + (cell_px - picture.height) // 2), picture)
    pen = ImageDraw.Draw(sheet)
    text = _shortened(caption, pen, font, cell_px)
    left += round(cell_px - pen.textlength(text, font=font)) // 2
    pen.text((left, top + cell_px + 2), text, fill=_INK, font=font)


def _shortened(
    caption: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int
) -> str:
    text = " ".join(caption.split())  # one line
    if pen.textlength(text, font=font) <= width_px:
        return text
    while text and pen.textlength(text + "…", font=font) > width_px:
        text = text[:-1]
    return text.rstrip() + "…"
