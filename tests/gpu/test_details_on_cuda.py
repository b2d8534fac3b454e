"""Detail passes on a CUDA device: the detector, its finds, and what is left when they are over."""

from pathlib import Path

import numpy as np
import pytest
import torch

from domains.inference.on_device.details import levels_of
from tests.domains.inference.on_device.detector_files import write_detector
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.test_details import TWO, asked, by_hand, detail, found, made, run
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

pytestmark = pytest.mark.gpu


def test_finds_are_made_anew_as_explicit_requests_make_them_and_the_detector_leaves(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny")
    model = tiny_model(tmp_path / "tiny")
    detector = write_detector(tmp_path / "red.safetensors")
    loop, by = Recorder(model, "cuda"), detail(detector)
    wanted = asked(model, by)
    run(loop, tmp_path, wanted, detectors=(detector,))
    loop.loop.resources.forget_prompts()
    before = torch.cuda.memory_allocated()
    reports = run(loop, tmp_path, wanted, detectors=(detector,))
    (picture,), (finds,) = made(reports), found(reports)
    assert len(finds) == 2
    expected, inside = TWO, np.zeros(TWO.shape[:2], bool)
    for one in finds:
        expected = by_hand(loop, tmp_path, model, expected, one, by)
        inside |= levels_of(one.find, by.dilation_px, TWO) > 0
    np.testing.assert_array_equal(picture, expected)
    assert (picture != TWO).any()
    np.testing.assert_array_equal(picture[~inside], TWO[~inside])
    loop.loop.resources.forget_prompts()
    assert torch.cuda.memory_allocated() <= before
    loop.loop.close()
