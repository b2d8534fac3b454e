"""Detectors of a job's detail passes: on their way, and looking at pictures."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from domains.inference.detections import Find, Wanted, counted
from domains.inference.given import Given
from domains.inference.on_device.face_boxes import (
    Boxes,
    Pixels,
    Window,
    decoded,
    faces,
    merged,
    placed,
    seen,
    windows_of,
)
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.network_pool import Borrowed, NetworkPool
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.to_device import to_device
from domains.model.on_device import FaceDetector, OnDeviceModel, loading_detector

_AT_ONCE = 16
"""Windows in one forward."""


class Views(NamedTuple):
    """What a detector sees of a picture."""

    size_px: tuple[int, int]
    """(width, height) of the picture."""
    windows: Sequence[Window]
    shown: Tensor
    """(windows, 192, 192, 3), uint8, on the CPU."""


def views_of(pixels: Pixels) -> Views:
    """What a detector sees of a picture (height, width, 3)."""
    height, width = pixels.shape[:2]
    windows = windows_of(width, height)
    return Views((width, height), windows, torch.from_numpy(np.stack([seen(pixels, one) for one in windows])))


def looked(net: FaceDetector, views: Views, device: torch.device, keep_on: KeepOn) -> tuple[Tensor, Tensor]:
    """Logits (windows, cells) and raw boxes (windows, cells, 16), on the device. Enqueues. Raises what `keep_on` raises."""
    watched = WatchedModule(net)
    found: list[tuple[Tensor, Tensor]] = []
    for some in views.shown.split(_AT_ONCE):
        pictures = to_device(some, device).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        found.append(watched(keep_on, pictures))
    logits, raw = zip(*found, strict=True)
    return torch.cat(logits), torch.cat(raw)


def finds_of(views: Views, logits: Tensor, raw: Tensor, stride: int, wanted: Wanted) -> tuple[Find, ...]:
    """The findings that count. `logits`, `raw`: of `looked`, on the CPU."""
    boxes = [
        placed(decoded(scores, values, stride, wanted.min_confidence), window, whole=not place)
        for place, (window, scores, values) in enumerate(zip(views.windows, logits.numpy(), raw.numpy(), strict=True))
    ]
    scores = np.concatenate([one.scores for one in boxes])
    found = merged(Boxes(scores, np.concatenate([one.corners for one in boxes])))
    return counted(faces(found, *views.size_px), wanted, views.size_px)


class DetectorsOfJob:
    """The detectors of a job's detail passes, on their way or there."""

    def __init__(self, job_id: str, given: Given, pool: NetworkPool) -> None:
        pairs = zip(given.detectors, given.resolved.detail_passes, strict=True)
        self._wanted = [(model, one.detector_sha256) for model, one in pairs]
        self.network = Borrowed(f"{job_id} detector", pool)

    def bring(self, base: OnDeviceModel) -> bool:
        """Load a piece. Returns whether all are there. Raises as loads of models."""
        return self.network.bring([(model, sha256, loading_detector) for model, sha256 in self._wanted], base)

    def net(self, place: int) -> FaceDetector:
        """The detector of a pass, which `bring` has loaded."""
        return cast(FaceDetector, self.network.loads[place].module)
