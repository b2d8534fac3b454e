"""A picture is brought to a size as the contract's fits say."""

import numpy as np
import pytest
from PIL import Image

from domains.imaging import Fit, fitted, square, squeezed
from domains.imaging.fit import enlarged_as

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


NOISE = np.random.default_rng(2).integers(0, 256, (20, 40, 3), np.uint8)


def by_pillow(pixels: np.ndarray, width: int, height: int, way: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), way))


def test_a_picture_is_scaled_until_it_covers_or_lies_inside() -> None:
    whole = by_pillow(NOISE, 80, 40, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(fitted(NOISE, 30, 40, "cover"), whole[:, 25:55])
    np.testing.assert_array_equal(fitted(NOISE, 80, 60, "pad"), np.pad(whole, ((10, 10), (0, 0), (0, 0)), "edge"))
    small = by_pillow(NOISE, 20, 10, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(fitted(NOISE, 8, 10, "cover"), small[:, 6:14])
    np.testing.assert_array_equal(fitted(NOISE, 20, 12, "pad"), np.pad(small, ((1, 1), (0, 0), (0, 0)), "edge"))


def test_what_is_scaled_to_less_than_half_a_pixel_has_one() -> None:
    thin = np.random.default_rng(3).integers(0, 256, (100, 3, 3), np.uint8)
    for found in (fitted(thin, 10, 10, "pad"), fitted(thin.swapaxes(0, 1), 10, 10, "pad").swapaxes(0, 1)):
        assert (found == found[:, :1]).all()


def test_a_square_has_the_shorter_side_at_its_length() -> None:
    odd = np.random.default_rng(2).integers(0, 256, (30, 47, 3), np.uint8)
    scaled = by_pillow(odd, 31, 20, Image.Resampling.BICUBIC)  # 47 × 20 / 30 = 31.3
    np.testing.assert_array_equal(square(odd, 20), scaled[:, 5:25])
    upright = np.ascontiguousarray(odd.swapaxes(0, 1))
    scaled = by_pillow(upright, 20, 31, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(square(upright, 20), scaled[5:25])


def test_a_squeezed_picture_is_whole() -> None:
    np.testing.assert_array_equal(squeezed(NOISE, 16), by_pillow(NOISE, 16, 16, Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(squeezed(NOISE[:, :20], 20), NOISE[:, :20])


@pytest.mark.parametrize("fit", FITS)
def test_a_picture_is_enlarged_as_its_fitted_one_is(fit: Fit) -> None:
    same_shape = enlarged_as(NOISE, (16, 12), (24, 18), fit)
    np.testing.assert_array_equal(same_shape, fitted(NOISE, 24, 18, fit))
    for size, times in (((40, 24), 3), ((24, 40), 4)):
        first = fitted(NOISE, 16 * times, 12 * times, fit)
        np.testing.assert_array_equal(enlarged_as(NOISE, (16, 12), size, fit), fitted(first, *size, "stretch"))
