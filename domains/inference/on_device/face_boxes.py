"""The way from a picture to the faces in it: the windows that the detector sees, its anchors, and the merging of its boxes.

As MediaPipe's pipeline of the full-range detector does it (`face_detection_full_range.pbtxt`: one anchor for each cell, no
size of its own, weighted non-maximum suppression at an overlap of 0.3), with two differences: windows are reduced with
smoothing, and enlarged parts of the picture are looked at too, for small faces.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domains.imaging.resample import resampled
from domains.inference.detections import FACE, Find
from domains.model.on_device import INPUT_PX

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]

_OVERLAP = 0.3
"""Share of two boxes (intersection over union) above which they are one face."""
_PARTS = 5 / 8
"""Edge of the enlarged parts, of the picture's longer one."""
_STEP = 0.75
"""Distance of two parts, of their edge."""
_CUT_PX = 4
"""How far a box may reach beyond an enlarged part, in pixels of the input: the others have the faces that it cuts off."""
_GROWTH = 1.5
"""The network's box goes from the eyebrows to the chin; the box of the whole face is this much larger."""
_MOST_LOGIT = 80.0


class Window(NamedTuple):
    """A square of a picture, with black where it reaches beyond."""

    left: int
    """Of what lies inside the picture."""
    top: int
    right: int
    bottom: int
    edge: float
    """Of the square, whose middle is that of what lies inside."""

    @property
    def scale(self) -> float:
        """Pixels of the network's input for one of the picture."""
        return INPUT_PX / self.edge


class Boxes(NamedTuple):
    """Boxes that may be faces."""

    scores: Values
    """(n,), 0..1."""
    corners: Values
    """(n, 4): left, top, right, bottom."""


def windows_of(width: int, height: int) -> Sequence[Window]:
    """The whole picture, then overlapping parts of it."""
    longest = max(width, height)
    found = [Window(0, 0, width, height, float(longest))]
    edge = min(longest * _PARTS, width, height)
    tops, lefts = _begins(height, edge), _begins(width, edge)
    for top in tops:
        for left in lefts:
            right, bottom = min(width, round(left + edge)), min(height, round(top + edge))
            found.append(Window(round(left), round(top), right, bottom, edge))
    return found


def _begins(length: int, edge: float) -> Sequence[float]:
    count = math.ceil((length - edge) / (edge * _STEP)) + 1
    return [float(one) for one in np.linspace(0, length - edge, count)]


def seen(pixels: Pixels, window: Window) -> Pixels:
    """(height, width, 3) → (192, 192, 3): what the network sees of a window."""
    part = np.ascontiguousarray(pixels[window.top : window.bottom, window.left : window.right])
    width, height = (max(1, min(INPUT_PX, round(edge * window.scale))) for edge in part.shape[1::-1])
    found = np.zeros((INPUT_PX, INPUT_PX, 3), np.uint8)
    left, top = (INPUT_PX - width) // 2, (INPUT_PX - height) // 2
    found[top : top + height, left : left + width] = resampled(part, width, height, "bilinear")
    return found


def anchors(stride: int, edge: int = INPUT_PX) -> Values:
    """(cells, 2): x and y of each cell's centre, line by line, in pixels of the input."""
    centres = (np.arange(edge // stride, dtype=np.float32) + np.float32(0.5)) * np.float32(stride)
    across, down = np.meshgrid(centres, centres)
    return np.stack([across, down], -1).reshape(-1, 2)


def decoded(logits: Values, raw: Values, stride: int, least: float) -> Boxes:
    """Logits (cells,) and raw boxes (cells, 16) → the boxes that are as sure as `least`, in pixels of the input."""
    scores = (1 / (1 + np.exp(-np.clip(logits, -_MOST_LOGIT, _MOST_LOGIT)))).astype(np.float32)
    sure = scores >= least
    centre, half = anchors(stride)[sure] + raw[sure, :2], raw[sure, 2:4] / 2
    return Boxes(scores[sure], np.concatenate([centre - half, centre + half], 1).astype(np.float32))


def placed(found: Boxes, window: Window, *, whole: bool) -> Boxes:
    """Boxes of a window's input in pixels of the picture. `whole`: whether the window is the whole picture; a part leaves
    the faces that it cuts off out."""
    corners = found.corners
    if not whole:
        inside = (corners[:, :2] > -_CUT_PX).all(1) & (corners[:, 2:] < INPUT_PX + _CUT_PX).all(1)
        found, corners = Boxes(found.scores[inside], corners[inside]), corners[inside]
    middle = (window.left + window.right) / 2, (window.top + window.bottom) / 2
    moved = (corners - INPUT_PX / 2) / window.scale + np.array([*middle, *middle])
    return Boxes(found.scores, moved.astype(np.float32))


def merged(found: Boxes) -> Boxes:
    """Boxes that overlap become their mean, weighted by their scores; the surest comes first, with its own score."""
    order = np.argsort(-found.scores, kind="stable")
    scores, corners = found.scores[order], found.corners[order]
    kept, means = list[np.float32](), list[Values]()
    while len(scores):
        same = overlap(corners[0], corners) > _OVERLAP
        same[0] = True
        kept.append(scores[0])
        means.append((corners[same] * (scores[same] / scores[same].sum())[:, None]).sum(0))
        scores, corners = scores[~same], corners[~same]
    return Boxes(np.array(kept, np.float32), np.array(means, np.float32).reshape(-1, 4))


def overlap(one: Values, others: Values) -> Values:
    """(4,) and (n, 4) → (n,): intersection over union."""
    inner = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    shared = inner.clip(min=0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).clip(min=0).prod(1) + (one[2:] - one[:2]).clip(min=0).prod()
    return (shared / np.maximum(areas - shared, 1e-9)).astype(np.float32)


def faces(found: Boxes, width: int, height: int) -> Sequence[Find]:
    """Boxes as the whole faces that they stand for, inside a picture of a size. One without a pixel in it is left out."""
    told = list[Find]()
    for score, (left, top, right, bottom) in zip(found.scores.tolist(), found.corners.tolist(), strict=True):
        across, down = (right - left) * (_GROWTH - 1) / 2, (bottom - top) * (_GROWTH - 1) / 2
        begin = max(0, math.floor(left - across)), max(0, math.floor(top - down))
        end = min(width, math.ceil(right + across)), min(height, math.ceil(bottom + down))
        if begin[0] < end[0] and begin[1] < end[1]:
            size = end[0] - begin[0], end[1] - begin[1]
            told.append(
                Find(
                    label=FACE,
                    confidence=score,
                    left_px=begin[0],
                    top_px=begin[1],
                    width_px=size[0],
                    height_px=size[1],
                )
            )
    return told
