"""A picture is brought to a size as the contract's fits say."""

import numpy as np
import pytest

from domains.imaging import Fit, fitted
from domains.imaging.fit import square

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


@pytest.mark.parametrize("upright", [False, True])
def test_the_middle_stays_the_middle(upright: bool) -> None:
    def both(pixels: np.ndarray, along: int, fit: Fit) -> np.ndarray:
        return (
            fitted(pixels.swapaxes(0, 1), 20, along, fit).swapaxes(0, 1) if upright else fitted(pixels, along, 20, fit)
        )

    noise = np.random.default_rng(2).integers(0, 256, (20, 40, 3), np.uint8)
    np.testing.assert_array_equal(both(noise, 31, "cover"), noise[:, 4:35])
    np.testing.assert_array_equal(both(noise, 61, "pad"), np.pad(noise, ((0, 0), (10, 11), (0, 0)), "edge"))


def test_a_square_is_the_middle_of_the_shorter_side() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (8, 15, 3), np.uint8)
    np.testing.assert_array_equal(square(noise, 8), noise[:, 3:11])
    np.testing.assert_array_equal(square(noise.swapaxes(0, 1), 8), noise[:, 3:11].swapaxes(0, 1))
