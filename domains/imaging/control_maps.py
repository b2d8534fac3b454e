"""Makes control maps from pictures, without a model. Takes and gives (height, width, 3) RGB."""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Options = Mapping[str, float]
"""Option values by the contract's field name."""


def control_map(kind: str, picture: Pixels, options: Options) -> Pixels:
    """The map of a kind of `KINDS`, in the picture's size."""
    return np.ascontiguousarray(KINDS[kind](picture, options))


def _canny(picture: Pixels, options: Options) -> Pixels:
    """White edges on black (Canny 1986), as diffusers' examples and the ControlNets' own training make them."""
    return _grey(np.asarray(cv2.Canny(picture, options["low_threshold"], options["high_threshold"]), np.uint8))


def _scribble(picture: Pixels, options: Options) -> Pixels:
    """Thick white lines on black: edges that are left after a blur, made wider by it."""
    sigma = options["coarseness_px"]
    edges = cv2.Canny(cv2.GaussianBlur(picture, (0, 0), sigma), 50, 100)
    width = 2 * round(sigma) + 1
    return _grey(np.asarray(cv2.dilate(edges, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))), np.uint8))


def _line_art(picture: Pixels, options: Options) -> Pixels:
    """White lines on black, by difference of Gaussians: what is darker than its surroundings."""
    light = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    darker = cv2.GaussianBlur(light, (0, 0), 6.0) - cv2.GaussianBlur(light, (0, 0), 0.8)
    peak = max(16.0, float(np.quantile(darker, 0.99)))
    return _grey((np.clip(darker / peak, 0.0, 1.0) * 255).astype(np.uint8))


def _line_segments(picture: Pixels, options: Options) -> Pixels:
    """White straight lines on black (LSD, von Gioi et al. 2012)."""
    found: Any = cv2.createLineSegmentDetector().detect(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))[0]
    drawn = np.zeros(picture.shape[:2], np.uint8)
    for x0, y0, x1, y1 in () if found is None else found.reshape(len(found), 4):
        if np.hypot(x1 - x0, y1 - y0) >= options["min_length_px"]:
            cv2.line(drawn, (round(x0), round(y0)), (round(x1), round(y1)), 255, 1, cv2.LINE_AA)
    return _grey(drawn)


def _tile(picture: Pixels, options: Options) -> Pixels:
    """The picture scaled down and up again, which removes fine detail."""
    height, width = picture.shape[:2]
    small = max(1, round(width / options["downscale"])), max(1, round(height / options["downscale"]))
    if small == (width, height):
        return picture
    shrunk = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _shuffle(picture: Pixels, options: Options) -> Pixels:
    """The picture warped by a smooth random flow: colours stay, the layout does not (as ControlNet's annotator)."""
    height, width = picture.shape[:2]
    random = np.random.default_rng(int(options["seed"]))
    x, y = (_smooth(random, height, width) * (edge - 1) for edge in (width, height))
    return np.asarray(cv2.remap(picture, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR), np.uint8)


def _smooth(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Smooth noise, 0..1."""
    coarse = random.random((height // 256 + 2, width // 256 + 2)).astype(np.float32)
    noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = float(noise.min()), float(noise.max())
    return np.asarray((noise - low) / max(high - low, 1e-6), np.float32)


def _grey(lines: NDArray[np.uint8]) -> Pixels:
    return np.asarray(cv2.cvtColor(lines, cv2.COLOR_GRAY2RGB), np.uint8)


KINDS: Mapping[str, Callable[[Pixels, Options], Pixels]] = {
    "canny": _canny,
    "scribble": _scribble,
    "line_art": _line_art,
    "line_segments": _line_segments,
    "tile": _tile,
    "inpaint": lambda picture, options: picture,
    "shuffle": _shuffle,
}
"""By the contract's names, which equal the available ones of `domains.inference.preprocessors` (a test checks it)."""
