"""A picture is brought to a size as the contract's fits say."""

import numpy as np
import pytest

from domains.imaging import Fit, fitted

WIDE = np.zeros((20, 40, 3), np.uint8)
WIDE[:, :10] = (255, 0, 0)
WIDE[:, 30:] = (0, 0, 255)
FITS: list[Fit] = ["stretch", "cover", "pad"]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(16, 16), (64, 64), (8, 64), (41, 20)])
def test_the_result_has_exactly_the_size(fit: Fit, size: tuple[int, int]) -> None:
    assert fitted(WIDE, *size, fit).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("fit", FITS)
def test_a_picture_of_the_size_keeps_every_pixel(fit: Fit) -> None:
    assert fitted(WIDE, 40, 20, fit) is WIDE


def test_cover_cuts_at_the_middle() -> None:
    found = fitted(WIDE, 20, 20, "cover")
    assert not found.any(), "both coloured ends are cut away"


def test_stretch_keeps_both_ends() -> None:
    found = fitted(WIDE, 20, 20, "stretch")
    assert found[10, 0, 0] > 200 < found[10, -1, 2]


def test_pad_fills_with_the_colours_of_the_edge() -> None:
    upright = np.ascontiguousarray(WIDE.transpose(1, 0, 2))
    found = fitted(upright, 80, 40, "pad")
    assert (found[0, [0, -1]] == (255, 0, 0)).all()
    assert (found[-1, [0, -1]] == (0, 0, 255)).all()
    assert np.array_equal(found[:, 30:50], upright)
