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


@pytest.mark.parametrize(("width", "height", "places"), [(512, 300, (3, 4)), (300, 512, (4, 3))])
def test_the_flow_of_a_shuffle_has_a_place_for_each_256_pixels_and_one_beyond(
    width: int, height: int, places: tuple[int, int]
) -> None:
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    picture = np.stack([across // 2, down // 2, 0 * down], axis=-1).astype(np.uint8)
    random = np.random.default_rng(7)
    flows = [
        cv2.resize(random.uniform(size=places).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in "xy"
    ]
    x, y = ((flow - flow.min()) / np.ptp(flow) for flow in flows)
    shuffled = control_map("shuffle", picture, {"seed": 7})
    assert np.abs(shuffled[..., 0] - x * (width - 1) / 2).max() <= 1
    assert np.abs(shuffled[..., 1] - y * (height - 1) / 2).max() <= 1


def test_another_seed_shuffles_otherwise() -> None:
    assert not np.array_equal(made("shuffle", seed=1), made("shuffle", seed=2))


def smooth_noise(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), np.uint8)
    return cv2.GaussianBlur(blocks.repeat(8, 0).repeat(8, 1), (0, 0), 1.0)


@pytest.mark.parametrize("coarseness", [1.0, 2.6])
def test_a_scribble_is_blurred_found_between_50_and_100_and_widened(coarseness: float) -> None:
    noise, width = smooth_noise(1), {1.0: 3, 2.6: 7}[coarseness]
    edges = cv2.Canny(cv2.GaussianBlur(noise, (0, 0), coarseness), 50, 100)
    assert 0 < edges.mean() < 255
    expected = cv2.dilate(edges, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    assert np.array_equal(control_map("scribble", noise, {"coarseness_px": coarseness})[..., 1], expected)


def test_the_darkest_point_of_line_art_is_white() -> None:
    page = np.full((96, 96, 3), 255, np.uint8)
    page[20:22, 4:92] = page[70:72, 4:92] = 200
    page[45:48, 45:48] = 0
    assert control_map("line_art", page, {})[46, 46, 0] == 255


def test_the_segments_are_those_of_lsd_from_the_asked_length_on() -> None:
    noise = smooth_noise(2)
    noise[40:60, 20:80] //= 4
    found = cv2.createLineSegmentDetector().detect(cv2.cvtColor(noise, cv2.COLOR_RGB2GRAY))[0].reshape(-1, 4)
    lengths = np.hypot(found[:, 2] - found[:, 0], found[:, 3] - found[:, 1])
    limit = float(np.sort(lengths)[len(lengths) // 2])
    expected = np.zeros((96, 96), np.uint8)
    for x0, y0, x1, y1 in found[lengths >= limit].round().astype(int).tolist():
        cv2.line(expected, (x0, y0), (x1, y1), 255, 1, cv2.LINE_AA)
    assert np.array_equal(control_map("line_segments", noise, {"min_length_px": limit})[..., 2], expected)


def test_a_flat_picture_has_no_segments() -> None:
    assert not control_map("line_segments", np.full((32, 32, 3), 90, np.uint8), {"min_length_px": 1.0}).any()


def test_a_tile_of_a_small_picture_is_one_pixel_enlarged() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (4, 4, 3), np.uint8)
    tile = control_map("tile", noise, {"downscale": 16.0})
    assert (tile == tile[:1, :1]).all()
