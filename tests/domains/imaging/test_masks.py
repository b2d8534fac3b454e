"""Masks: what is grown, where the ramp lies, what is filled in, what is cut out, and which bytes stay."""

from math import erf

import numpy as np
import pytest

from domains.imaging import fitted
from domains.imaging.masks import Blend, Box, grown, in_made_size, luma, put_back, ramp, spread, surroundings

BLENDS: tuple[Blend, ...] = ("none", "feather", "gaussian")
SQUARE = np.zeros((40, 60), np.uint8)
SQUARE[10:30, 20:40] = 255
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def test_the_brightness_is_read_and_alpha_is_not() -> None:
    white = np.full((2, 2, 4), 255, np.uint8)
    white[0, 0, 3] = 0
    assert luma(white).tolist() == [[255, 255], [255, 255]]
    assert luma(np.full((1, 1, 3), 128, np.uint8)).tolist() == [[128]]


def test_a_mask_grows_in_all_directions_and_no_further() -> None:
    mask = grown(SQUARE, 3)
    assert (mask > 0).any(axis=1).sum() == (mask > 0).any(axis=0).sum() == 26
    assert mask[8, 30] == 1
    assert mask[6, 30] == mask[7, 17] == 0


def test_black_is_made_anew_if_it_is_inverted() -> None:
    np.testing.assert_array_equal(grown(SQUARE, 0, invert=True), 1 - grown(SQUARE, 0))


def test_what_a_lossy_file_adds_beside_an_edge_is_black_or_white() -> None:
    levels = np.array([[0, 15, 16, 100, 239, 240, 255]], np.uint8)
    kept = np.array([[0, 0, 16, 100, 239, 255, 255]], np.uint8)
    np.testing.assert_array_equal(grown(levels, 0), (kept / 255).astype(np.float32))
    np.testing.assert_array_equal(grown(levels, 0, invert=True), ((255 - kept) / 255).astype(np.float32))


@pytest.mark.parametrize("blend", BLENDS)
def test_the_ramp_lies_within_the_mask(blend: Blend) -> None:
    mask = grown(SQUARE, 0)
    share = ramp(mask, blend, 4)
    assert not share[mask == 0].any()
    assert 0.99 < share.max() <= 1
    assert share[20, 30] == share.max()
    edge = share[20, 20:28]
    assert (np.diff(edge) >= 0).all()
    assert (edge[0] < 1) == (blend != "none")
    assert ramp(mask, blend, 0).max() == ramp(mask, blend, 0)[mask > 0].min() == 1


@pytest.mark.parametrize("blend", BLENDS)
def test_a_mask_of_everything_has_no_ramp(blend: Blend) -> None:
    assert (ramp(np.ones((8, 8), np.float32), blend, 4) == 1).all()


def test_a_feather_is_linear() -> None:
    assert ramp(grown(SQUARE, 0), "feather", 3)[20, 19:25].tolist() == [0, 0.25, 0.5, 0.75, 1, 1]


def test_colours_spread_into_the_mask_and_change_nothing_else() -> None:
    mask = grown(SQUARE, 0)
    picture = np.full((40, 60, 3), (200, 40, 90), np.uint8)
    picture[10:30, 20:40] = 0
    assert (spread(picture, mask) == (200, 40, 90)).all()
    found, other = spread(NOISE, mask), NOISE.copy()
    np.testing.assert_array_equal(found[mask == 0], NOISE[mask == 0])
    other[mask > 0] = 7
    np.testing.assert_array_equal(spread(other, mask), found)


def test_a_mask_of_everything_is_filled_with_grey() -> None:
    assert (spread(NOISE, np.ones((40, 60), np.float32)) == 128).all()


@pytest.mark.parametrize(
    ("box", "padding", "shape", "expected"),
    [
        ((20, 10, 40, 30), 0, (1, 1), Box(20, 10, 40, 30)),
        ((20, 10, 40, 30), 5, (1, 1), Box(15, 5, 45, 35)),
        ((20, 10, 40, 30), 0, (2, 1), Box(10, 10, 50, 30)),
        ((0, 0, 10, 10), 4, (2, 1), Box(0, 0, 28, 14)),
        ((50, 30, 60, 40), 4, (1, 2), Box(46, 12, 60, 40)),
        ((0, 0, 60, 40), 256, (1, 3), Box(0, 0, 60, 40)),
        ((30, 20, 31, 21), 0, (64, 64), Box(30, 20, 31, 21)),
    ],
)
def test_the_surroundings_have_the_shape_and_lie_in_the_picture(
    box: tuple[int, int, int, int], padding: int, shape: tuple[int, int], expected: Box
) -> None:
    mask = np.zeros((40, 60), np.float32)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    assert surroundings(mask, padding, shape) == expected


def test_a_pixel_without_a_share_keeps_its_bytes() -> None:
    share = np.zeros((40, 60), np.float32)
    share[:, 30:], share[:, 50:] = 0.5, 1
    found = put_back(NOISE, np.full_like(NOISE, 255), share)
    np.testing.assert_array_equal(found[:, :30], NOISE[:, :30])
    np.testing.assert_array_equal(found[:, 30:50], np.rint((NOISE[:, 30:50].astype(float) + 255) / 2))
    assert (found[:, 50:] == 255).all()


def test_a_mask_is_fitted_as_its_picture_is() -> None:
    assert fitted(SQUARE, 90, 40, "pad").shape == fitted(SQUARE, 90, 40, "cover").shape == (40, 90)


def test_a_larger_part_keeps_its_hard_edge_and_a_smaller_one_is_the_mean() -> None:
    part = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.float32)
    assert in_made_size(part, (4, 2)) is part
    larger = in_made_size(part, (8, 4))
    np.testing.assert_array_equal(larger, part.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(in_made_size(larger, (4, 2)), part)
    assert in_made_size(part, (2, 1)).tolist() == [[0.25, 1]]


def test_the_brightness_weighs_green_most_and_blue_least() -> None:
    pure = np.eye(3, 4, dtype=np.uint8)[None] * np.uint8(255)
    assert luma(pure).tolist() == luma(np.ascontiguousarray(pure[..., :3])).tolist() == [[76, 150, 29]]


def test_a_box_ends_before_its_right_and_its_bottom() -> None:
    np.testing.assert_array_equal(Box(3, 2, 7, 4).of(NOISE), NOISE[2:4, 3:7])


def test_a_gaussian_ramp_has_a_third_of_its_width_as_sigma_in_both_directions() -> None:
    half = np.zeros((40, 60), np.float32)
    half[:, 20:] = 1
    across = ramp(half, "gaussian", 9)[20, 20:29]
    np.testing.assert_allclose(across, [(1 + erf((at + 0.5) / 3 / 2**0.5)) / 2 for at in range(9)], atol=0.01)
    np.testing.assert_allclose(ramp(np.ascontiguousarray(half.T), "gaussian", 9)[20:29, 20], across, atol=1e-6)


def test_one_known_pixel_fills_the_smallest_picture() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0] = (200, 40, 90)
    mask = np.ones((2, 2), np.float32)
    mask[0, 0] = 0
    assert (spread(picture, mask) == (200, 40, 90)).all()


@pytest.mark.parametrize("size", [(6, 2), (4, 3)])
def test_a_part_that_grows_in_one_direction_keeps_its_hard_edge(size: tuple[int, int]) -> None:
    found = in_made_size(np.array([[0, 1, 1, 1], [0, 0, 1, 0]], np.float32), size)
    assert found.shape == size[::-1]
    assert {*found.flat} == {0.0, 1.0}
