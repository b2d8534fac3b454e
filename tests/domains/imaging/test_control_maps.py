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


def test_a_faint_edge_is_scribbled_where_a_strong_one_leads_to_it() -> None:
    fading = np.full((64, 256, 3), 100, np.uint8)
    fading[32:] += (
        np.arange(256, dtype=np.uint8)[::-1, None] // 4
    )  # an edge of 63 levels on the left, of none on the right
    assert control_map("scribble", fading, {"coarseness_px": 1.0})[..., 0].any(axis=0).sum() == 178
    fading[:, :128] = 100  # the strong part
    assert not control_map("scribble", fading, {"coarseness_px": 1.0})[:, 140:].any()


@pytest.mark.parametrize(("contrast", "white"), [(0, 0), (4, 52), (8, 105), (16, 210), (20, 255), (200, 255)])
def test_faint_lines_stay_grey_in_line_art(contrast: int, white: int) -> None:
    page = np.full((96, 96, 3), 220, np.uint8)
    page[40:43, 10:86] -= np.uint8(contrast)
    assert control_map("line_art", page, {}).max() == white


def test_the_flow_of_a_shuffle_has_a_place_for_each_256_pixels_and_one_beyond() -> None:
    across, down = np.meshgrid(np.arange(512), np.arange(300))
    picture = np.stack([across // 2, down // 2, 0 * down], axis=-1).astype(np.uint8)
    random = np.random.default_rng(7)
    flows = [
        cv2.resize(random.uniform(size=(3, 4)).astype(np.float32), (512, 300), interpolation=cv2.INTER_CUBIC)
        for _ in "xy"
    ]
    x, y = ((flow - flow.min()) / np.ptp(flow) for flow in flows)
    shuffled = control_map("shuffle", picture, {"seed": 7})
    assert np.abs(shuffled[..., 0] - x * 511 / 2).max() <= 1
    assert np.abs(shuffled[..., 1] - y * 299 / 2).max() <= 1


def test_another_seed_shuffles_otherwise() -> None:
    assert not np.array_equal(made("shuffle", seed=1), made("shuffle", seed=2))
