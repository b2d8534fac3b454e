"""The contact sheet, and pictures inside a terminal."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from domains.imaging.contact_sheet import _shortened as shortened  # pyright: ignore[reportPrivateUsage]
from domains.imaging.contact_sheet import contact_sheet
from domains.imaging.terminal import Drawing, drawing_of, inline_image

RED = np.full((20, 40, 3), (255, 0, 0), np.uint8)
BLUE = np.full((40, 20, 3), (0, 0, 255), np.uint8)


def test_each_picture_is_in_its_place_and_shape() -> None:
    sheet = contact_sheet([("red", RED), ("blue", BLUE), ("", np.full((9, 9), 99, np.uint8))], 2, 64)
    height, width = sheet.shape[:2]
    red = np.argwhere((sheet == (255, 0, 0)).all(axis=2))
    blue = np.argwhere((sheet == (0, 0, 255)).all(axis=2))
    assert tuple(np.ptp(red, axis=0) + 1) == (32, 64)
    assert tuple(np.ptp(blue, axis=0) + 1) == (64, 32)
    assert red[:, 1].max() < width // 2 < blue[:, 1].min()
    grey = np.argwhere((sheet == 99).all(axis=2) & (np.arange(height) > 8 + 64 + 20)[:, None])
    assert tuple(np.ptp(grey, axis=0) + 1) == (64, 64)
    assert grey[:, 0].min() > height // 2 > red[:, 0].max()


def test_the_caption_is_written_under_its_picture() -> None:
    bare, named = (contact_sheet([(caption, RED)], 1, 64) for caption in ("", "a fox"))
    changed = np.argwhere((bare != named).any(axis=2))
    assert changed[:, 0].min() >= 8 + 64


def test_a_long_caption_stays_inside_its_cell() -> None:
    sheet = contact_sheet([("a very long caption that cannot fit " * 3, RED), ("", BLUE)], 2, 64)
    ink = np.argwhere((sheet[8 + 64 :] < 100).all(axis=2))
    assert len(ink)
    assert 8 <= ink[:, 1].min() <= ink[:, 1].max() < 8 + 64


@pytest.mark.parametrize(("cells", "columns", "cell_px", "font_px"), [(3, 2, 64, 10), (1, 4, 130, 10), (2, 1, 240, 20)])
def test_a_sheet_has_8_pixels_between_its_parts(cells: int, columns: int, cell_px: int, font_px: int) -> None:
    sheet = contact_sheet([("", RED)] * cells, columns, cell_px)
    across = min(columns, cells)
    down = -(-cells // across)
    assert sheet.shape == (8 + down * (cell_px + 2 * font_px + 8), 8 + across * (cell_px + 8), 3)
    # A picture twice as wide as high, in the middle of its square.
    expected = np.full_like(sheet, 255)
    for place in range(cells):
        top, left = 8 + place // across * (cell_px + 2 * font_px + 8), 8 + place % across * (cell_px + 8)
        high = round(cell_px / 2)
        above = (cell_px - high) // 2
        expected[top + above : top + above + high, left : left + cell_px] = (255, 0, 0)
    np.testing.assert_array_equal(sheet, expected)


def test_a_tall_picture_is_in_the_middle_of_its_square() -> None:
    blue = np.argwhere((contact_sheet([("", BLUE)], 1, 64) == (0, 0, 255)).all(axis=2))
    assert (blue.min(axis=0).tolist(), blue.max(axis=0).tolist()) == ([8, 8 + 16], [8 + 63, 8 + 47])


def test_a_thin_picture_has_one_pixel() -> None:
    thin = np.full((1, 400, 3), (255, 0, 0), np.uint8)
    assert (contact_sheet([("", thin)], 1, 64) == (255, 0, 0)).all(axis=2).sum() == 64
    assert (contact_sheet([("", thin.swapaxes(0, 1))], 1, 64) == (255, 0, 0)).all(axis=2).sum() == 64


def test_a_caption_is_written_in_the_middle_two_pixels_below_the_square() -> None:
    sheet = Image.fromarray(contact_sheet([("", RED)], 1, 64))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    pen.text(
        (8 + round(64 - pen.textlength("a fox", font=font)) // 2, 8 + 64 + 2), "a fox", fill=(32, 32, 32), font=font
    )
    np.testing.assert_array_equal(contact_sheet([(" a\n fox ", RED)], 1, 64), np.asarray(sheet))


class TenPixelsEach:
    """Measures each character as ten pixels."""

    @staticmethod
    def textlength(text: str, font: object) -> float:
        return 10.0 * len(text)


@pytest.mark.parametrize(
    ("caption", "width_px", "expected"),
    [
        ("abcd", 40, "abcd"),
        ("abcd", 39, "ab…"),
        ("abcdefgh", 40, "abc…"),
        ("abcdefgh", 41, "abc…"),
        ("ab cdefg", 40, "ab…"),
        ("abcd", 9, "…"),
    ],
)
def test_a_caption_keeps_what_fits_beside_the_ellipsis(caption: str, width_px: int, expected: str) -> None:
    assert shortened(caption, TenPixelsEach(), None, width_px) == expected  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("columns", "cell_px"), [(0, 64), (3, 0)])
def test_a_sheet_without_columns_or_size_is_refused(columns: int, cell_px: int) -> None:
    with pytest.raises(ValueError, match="needs cells"):
        contact_sheet([("", RED)], columns, cell_px)


def test_the_smallest_cell_has_one_pixel() -> None:
    sheet = contact_sheet([("", RED[:1, :1])], 1, 1)
    assert sheet.shape == (8 + 1 + 20 + 8, 8 + 1 + 8, 3)
    assert sheet[8, 8].tolist() == [255, 0, 0]


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs cells"):
        contact_sheet([], 3, 64)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"}, Drawing.KITTY),
        ({"TERM": "xterm-ghostty"}, Drawing.KITTY),
        ({"TERM": "xterm-kitty"}, Drawing.KITTY),
        ({"TERM": "xterm", "TERM_PROGRAM": "ghostty"}, Drawing.KITTY),
        ({"TERM": "xterm", "TMUX": "x", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "screen", "COLORTERM": "TrueColor"}, Drawing.HALF_BLOCKS),
        ({"TERM_PROGRAM": "iTerm.app", "COLORTERM": "truecolor"}, Drawing.ITERM),
        ({"TERM_PROGRAM": "WezTerm"}, Drawing.ITERM),
        ({"TERM": "xterm-256color", "WEZTERM_PANE": "0"}, Drawing.ITERM),
        ({"TERM": "tmux-256color", "TMUX": "x", "KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor"}, Drawing.HALF_BLOCKS),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, None),
        ({"TERM": "xterm-256color", "COLORTERM": "24bit"}, Drawing.HALF_BLOCKS),
        ({"WT_SESSION": "x"}, Drawing.HALF_BLOCKS),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, None),
        ({"TERM": "xterm"}, None),
        ({}, None),
    ],
)
def test_the_environment_says_what_the_terminal_can(environment: dict[str, str], expected: Drawing | None) -> None:
    assert drawing_of(environment) is expected


def test_a_terminal_that_cannot_gets_nothing() -> None:
    assert inline_image(RED, {"TERM": "xterm"}) is None


def test_iterm_gets_a_file_that_opens() -> None:
    text = inline_image(RED, {"TERM_PROGRAM": "iTerm.app"}, columns=30)
    assert text is not None
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=30;preserveAspectRatio=1:([^\a]+)\a\n", text)
    assert found is not None
    file = base64.b64decode(found[2])
    assert len(file) == int(found[1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), RED)


def test_kitty_gets_its_pieces_in_order() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    text = inline_image(noise, {"KITTY_WINDOW_ID": "1"}, columns=30)
    assert text is not None
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert len(pieces) > 2
    assert pieces[0][0] == "a=T,f=100,c=30,q=2,m=1"
    assert [keys for keys, _ in pieces[1:]] == ["m=1"] * (len(pieces) - 2) + ["m=0"]
    assert all(len(piece) <= 4096 for _, piece in pieces)
    file = base64.b64decode("".join(piece for _, piece in pieces))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), noise)


def test_half_blocks_carry_two_pixels_each() -> None:
    two = np.vstack([RED[:1, :4], np.full((1, 4, 3), (0, 0, 255), np.uint8)])
    text = inline_image(two, {"COLORTERM": "truecolor"}, columns=4)
    assert text == "\x1b[38;2;255;0;0;48;2;0;0;255m▀" * 4 + "\x1b[0m\n"


def test_half_blocks_show_each_pixel_at_its_place() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    text = inline_image(noise, {"COLORTERM": "truecolor"}, columns=5)
    assert text is not None
    rows = [
        [[*map(int, cell)] for cell in re.findall(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", line)]
        for line in text.splitlines()
    ]
    np.testing.assert_array_equal(np.array(rows).reshape(3, 5, 2, 3).transpose(0, 2, 1, 3).reshape(6, 5, 3), noise)


@pytest.mark.parametrize(("height", "lines"), [(1, 1), (8, 1), (12, 2), (40, 5)])
def test_a_line_is_twice_as_high_as_a_column_is_wide(height: int, lines: int) -> None:
    text = inline_image(np.zeros((height, 40, 3), np.uint8), {"COLORTERM": "truecolor"}, columns=10)
    assert text is not None
    assert [line.count("▀") for line in text.splitlines()] == [10] * lines


def test_a_picture_is_60_columns_wide_unless_asked_otherwise() -> None:
    text = inline_image(RED, {"TERM_PROGRAM": "iTerm.app"})
    assert text is not None
    assert ";width=60;" in text
