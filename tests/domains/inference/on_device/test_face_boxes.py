"""Finding faces: the network's arithmetic, its anchors, the boxes of its windows, and which findings count."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains.errors import DeviceOpsError, ErrorReason
from domains.inference.detections import Find, Wanted, counted
from domains.inference.on_device.face_boxes import (
    Boxes,
    Window,
    anchors,
    decoded,
    faces,
    merged,
    overlap,
    placed,
    seen,
    windows_of,
)
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState
from domains.model.on_device import INPUT_PX, FaceDetector, loading_detector
from domains.model.weights_model import read_file
from tests.domains.inference.on_device.detector_files import random_detector, red_detector, write_detector
from tests.domains.inference.on_device.recorder import Recorder


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def loaded(model: Model, loop: Recorder) -> FaceDetector:
    steps = loading_detector(model, loop.loaded)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def by_hand(tensors: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The published graph, by the names of the tensors alone."""

    def conv(name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = tensors[f"{name}.weight"]
        before = 0 if weight.shape[-1] == 1 or stride == 2 else 1
        after = 0 if weight.shape[-1] == 1 else 1
        return F.conv2d(
            F.pad(x, (before, after, before, after)), weight, tensors[f"{name}.bias"], stride, groups=groups
        )

    def block(name: str, x: Tensor, stride: int = 1) -> Tensor:
        y = F.relu(conv(f"{name}.reduce", conv(f"{name}.depthwise1", x, stride, x.shape[1])))
        y = conv(f"{name}.expand", conv(f"{name}.depthwise2", y, 1, y.shape[1]))
        x = F.max_pool2d(x, 2) if stride == 2 else x
        return F.relu(torch.cat([x, torch.zeros(len(x), y.shape[1] - x.shape[1], *x.shape[2:])], 1) + y)

    def count(prefix: str) -> int:
        return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})

    x, levels = F.relu(conv("stem", x, 2)), list[Tensor]()
    for stage in range(count("stages.")):
        for place in range(count(f"stages.{stage}.")):
            x = block(f"stages.{stage}.{place}", x, 2 if stage and not place else 1)
        levels.append(x)
    for merge in range(count("merges.")):
        above = F.relu(conv(f"merges.{merge}.top", x))
        above = F.interpolate(above, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = F.relu(conv(f"merges.{merge}.skip", levels[-2 - merge])) + above
        for place in range(count(f"merges.{merge}.blocks.")):
            x = block(f"merges.{merge}.blocks.{place}", x)
    return conv("score", x).flatten(1), conv("box", x).flatten(2).transpose(1, 2)


def test_a_file_tells_the_network_which_computes_the_published_graph(loop: Recorder, tmp_path: Path) -> None:
    model = write_detector(tmp_path / "net.safetensors", random_detector())
    assert (model.kind, model.state) == (ModelKind.DETECTOR, ModelState.AVAILABLE), model.problem
    net = loaded(model, loop)
    tensors = {name: one.float() for name, one in load_file(tmp_path / "net.safetensors").items()}
    pictures = torch.rand(2, 3, INPUT_PX, INPUT_PX, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.inference_mode():
        ours, theirs = net(pictures), by_hand(tensors, pictures)
    cells = (INPUT_PX // net.stride_px) ** 2
    assert [tuple(one.shape) for one in ours] == [(2, cells), (2, cells, 16)]
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-5
    assert next(net.parameters()).dtype is torch.float32


def test_a_file_whose_tensors_do_not_fit_together_is_refused(loop: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    write_detector(file, random_detector())
    whole = load_file(file)
    wide = whole | {"score.weight": torch.zeros(1, 9, 1, 1, dtype=torch.float16)}
    shallow = {name: one for name, one in whole.items() if not name.startswith("stages.2.")}
    for tensors, reason in ((wide, ErrorReason.MODEL_CORRUPT), (shallow, ErrorReason.MODEL_INCOMPATIBLE)):
        save_file(tensors, file)
        with pytest.raises(DeviceOpsError) as raised:
            loaded(read_file(file, "net", "net"), loop)
        assert raised.value.reason is reason


def test_anchors_are_the_centres_of_cells_line_by_line() -> None:
    found = anchors(4)
    assert found.shape == (48 * 48, 2)
    assert found[[0, 1, 48, -1]].tolist() == [[2, 2], [6, 2], [2, 6], [190, 190]]


def test_boxes_are_offsets_from_their_anchor() -> None:
    logits, raw = np.full(48 * 48, -9, np.float32), np.zeros((48 * 48, 16), np.float32)
    logits[49], raw[49, :4] = 2.0, (1, -2, 10, 20)  # the second cell of the second line
    logits[0] = 0.4
    found = decoded(logits, raw, 4, 0.6)
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(-2.0))])
    assert found.corners.tolist() == [[6 + 1 - 5, 6 - 2 - 10, 6 + 1 + 5, 6 - 2 + 10]]


def test_boxes_that_overlap_become_their_weighted_mean() -> None:
    corners = np.array([[0, 0, 10, 10], [100, 0, 110, 10], [2, 0, 12, 10], [9, 9, 19, 19]], np.float32)
    found = merged(Boxes(np.array([0.6, 0.9, 0.8, 0.7], np.float32), corners))
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    left = (0.6 * 0 + 0.8 * 2) / 1.4
    expected = [[100, 0, 110, 10], [left, 0, left + 10, 10], [9, 9, 19, 19]]
    assert np.abs(found.corners - np.array(expected)).max() < 1e-4
    assert overlap(corners[0], corners).tolist() == pytest.approx([1, 0, 80 / 120, 1 / 199])
    assert merged(Boxes(np.zeros(0, np.float32), np.zeros((0, 4), np.float32))).corners.shape == (0, 4)


@pytest.mark.parametrize(("width", "height"), [(512, 512), (768, 320), (64, 4096), (65, 64)])
def test_parts_cover_the_picture(width: int, height: int) -> None:
    whole, *parts = windows_of(width, height)
    assert whole == Window(0, 0, width, height, max(width, height))
    seen_by = np.zeros((height, width), np.uint8)
    for one in parts:
        assert 0 <= one.left < one.right <= width
        assert 0 <= one.top < one.bottom <= height
        assert abs((one.right - one.left) - one.edge) <= 1
        seen_by[one.top : one.bottom, one.left : one.right] += 1
    assert seen_by.all()


def test_a_window_is_seen_in_the_middle_of_black_and_its_boxes_lie_where_the_picture_has_them() -> None:
    pixels = np.full((96, 192, 3), 200, np.uint8)
    pixels[40:56, 100:120] = 10
    window = windows_of(192, 96)[0]
    shown = seen(pixels, window)
    assert shown.shape == (INPUT_PX, INPUT_PX, 3)
    assert not shown[:48].any()
    assert not shown[144:].any()
    assert (shown[48 + 40 : 48 + 56, 100:120] == 10).all()
    dark = Boxes(np.ones(1, np.float32), np.array([[100, 88, 120, 104]], np.float32))
    assert placed(dark, window, whole=True).corners.tolist() == [[100, 40, 120, 56]]
    # Twice as large, as a part of the picture.
    part = Window(96, 0, 192, 96, 96.0)
    assert placed(dark, part, whole=False).corners.tolist() == [[146, 44, 156, 52]]
    cut = Boxes(dark.scores, np.array([[-5, 88, 120, 104]], np.float32))
    assert not len(placed(cut, part, whole=False).scores)
    assert len(placed(cut, window, whole=True).scores)


def test_the_box_of_a_face_reaches_beyond_eyebrows_and_chin_and_ends_at_the_picture() -> None:
    boxes = Boxes(
        np.array([0.75, 0.5, 0.25], np.float32),
        np.array([[40, 40, 60, 80], [-9, 50, 11, 70], [-90, 0, -70, 20]], np.float32),
    )
    assert faces(boxes, 100, 100) == [
        Find(label="face", confidence=0.75, left_px=35, top_px=30, width_px=30, height_px=60),
        Find(label="face", confidence=0.5, left_px=0, top_px=45, width_px=16, height_px=30),
    ]


def test_findings_count_by_confidence_and_area_the_largest_first() -> None:
    def find(confidence: float, edge: int) -> Find:
        return Find(label="face", confidence=confidence, left_px=0, top_px=0, width_px=edge, height_px=edge)

    some = [find(0.4, 50), find(0.6, 10), find(0.9, 20), find(0.7, 20), find(0.8, 90)]
    size = 100, 100
    assert [one.confidence for one in counted(some, Wanted(), size)] == [0.8, 0.9, 0.7, 0.6]
    assert [one.confidence for one in counted(some, Wanted(max_count=2), size)] == [0.8, 0.9]
    assert [one.confidence for one in counted(some, Wanted(min_area=0.04, max_area=0.5), size)] == [0.9, 0.7]
    assert [one.confidence for one in counted(some, Wanted(min_confidence=0.3), size)] == [0.8, 0.4, 0.9, 0.7, 0.6]


def test_the_red_detector_of_the_tests_finds_what_is_red() -> None:
    net, shown = red_detector(), np.full((INPUT_PX, INPUT_PX, 3), 127, np.uint8)
    shown[90:98, 40:48] = (255, 0, 0)
    with torch.inference_mode():
        logits, raw = net(torch.from_numpy(shown).permute(2, 0, 1)[None] / 127.5 - 1)
    found = merged(decoded(logits[0].numpy(), raw[0].numpy(), net.stride_px, 0.5))
    assert len(found.scores) == 1
    assert np.abs(found.corners[0] - np.array([14, 64, 74, 124])).max() <= 2
