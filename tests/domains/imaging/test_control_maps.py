"""Control maps that need no model: each in the picture's size, and what it shows."""

import cv2
import numpy as np
import pytest

from domains.imaging.control_maps import KINDS, control_map
from domains.inference.preprocessors import AVAILABLE, PREPROCESSORS

SQUARE = np.full((64, 96, 3), 255, np.uint8)
SQUARE[16:48, 32:64] = (30, 60, 20)


def made(kind: str, **changes: float) -> np.ndarray:
    """The map of the square, with the defaults of the contract."""
    options = {name: one.default for name, one in PREPROCESSORS[kind].options.items()}
    return control_map(kind, SQUARE, options | changes)


def test_every_available_way_is_computed() -> None:
    assert set(KINDS) == set(AVAILABLE)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_map_has_the_size_of_its_picture_and_is_the_same_each_time(kind: str) -> None:
    first = made(kind)
    assert (first.shape, first.dtype) == (SQUARE.shape, np.uint8)
    assert np.array_equal(first, made(kind))


@pytest.mark.parametrize("kind", ["canny", "scribble", "line_art", "line_segments"])
def test_lines_lie_at_the_edges_of_what_is_shown(kind: str) -> None:
    lines = made(kind)[..., 0] > 127
    assert lines.any()
    assert not lines[:8].any()
    assert not lines[:, :20].any()


def test_canny_is_opencvs_with_the_asked_thresholds() -> None:
    assert np.array_equal(made("canny", low_threshold=10, high_threshold=20)[..., 1], cv2.Canny(SQUARE, 10, 20))


def test_a_tile_is_the_picture_and_loses_detail_when_it_is_made_smaller() -> None:
    assert np.array_equal(made("tile"), SQUARE)
    noise = np.random.default_rng(1).integers(0, 255, SQUARE.shape, np.uint8)
    assert control_map("tile", noise, {"downscale": 4.0}).std() < noise.std() / 2


def test_only_segments_that_are_long_enough_count() -> None:
    assert made("line_segments").any()
    assert not made("line_segments", min_length_px=200).any()


def test_another_seed_shuffles_otherwise() -> None:
    assert not np.array_equal(made("shuffle", seed=1), made("shuffle", seed=2))
