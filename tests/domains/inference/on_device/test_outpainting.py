"""Outpainting in the step loop: what grows, which bytes stay, and what the new parts start from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domains.inference.generation import Determinism, ResolvedGeneration
from domains.inference.masks import MaskFill, ResolvedMask, ResolvedOutpaint
from domains.inference.outcome import RunFinished
from domains.model.model import Model
from tests.domains.inference.on_device.from_picture import from_picture, gradient
from tests.domains.inference.on_device.masked import (
    Pixels,
    levels,
    mask,
    masked_latents,
    scene_of,
    their_masked_latents,
)
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_inpainting import kept_at, picture_of, run

PICTURE = gradient(48, 32)
NOTHING = np.zeros((32, 48), np.uint8)


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def outpaint(**changes: Any) -> ResolvedOutpaint:
    """16 px more at the left and 8 at the bottom, with 8 px of overlap."""
    plain: dict[str, Any] = {"left_px": 16, "top_px": 0, "right_px": 0, "bottom_px": 8, "overlap_px": 8}
    plain["fill"] = MaskFill.EDGE
    return ResolvedOutpaint(**{**plain, **changes})


def asked(
    model: Model, grows: ResolvedOutpaint, strength: float = 0.75, of: ResolvedMask | None = None, **changes: Any
) -> ResolvedGeneration:
    plain: dict[str, Any] = {"steps": 4, "sampler": "euler", "init_image": from_picture(strength), "mask": of}
    plain |= {"outpaint": grows, "width_px": 48 + grows.across_px, "height_px": 32 + grows.down_px}
    return request(model, **{**plain, **changes})


@pytest.mark.filterwarnings("ignore")
def test_the_new_parts_are_those_of_diffusers_on_the_grown_picture(loop: Recorder) -> None:
    wanted = asked(loop.loaded.model, outpaint(fill=MaskFill.NOISE), 1.0, seeds=(3, 9))
    start, white = torch.from_numpy(scene_of(wanted, PICTURE, NOTHING).start), np.full((40, 64), 255, np.uint8)
    white[:24, 24:] = 0
    theirs = their_masked_latents(reference_pipeline(loop.loaded.model), wanted, start, white)
    assert theirs is not None
    ours = masked_latents(loop.loaded, wanted, PICTURE, NOTHING)
    assert float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) < 1e-4


@pytest.mark.parametrize(
    ("changes", "strength", "stays"),
    [
        ({}, 0.75, (24, 0, 64, 24)),
        ({"fill": MaskFill.NOISE}, 0.75, (24, 0, 64, 24)),
        ({"overlap_px": 0}, 0.75, (16, 0, 64, 32)),
        ({}, 0.0, (16, 0, 64, 32)),
        ({"left_px": 0, "top_px": 8, "right_px": 8, "bottom_px": 0}, 0.75, (0, 16, 40, 40)),
    ],
)
def test_the_old_picture_keeps_its_bytes_beyond_the_overlap(
    loop: Recorder,
    tmp_path: Path,
    changes: dict[str, Any],
    strength: float,
    stays: tuple[int, int, int, int],
    request: pytest.FixtureRequest,
) -> None:
    grows, name = outpaint(**changes), request.node.name.replace("/", " ")
    end = run(loop, tmp_path, name, asked(loop.loaded.model, grows, strength), picture=PICTURE)
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 4
    found, whole = picture_of(loop, name), np.zeros((32 + grows.down_px, 48 + grows.across_px, 3), np.uint8)
    whole[grows.top_px : grows.top_px + 32, grows.left_px : grows.left_px + 48] = PICTURE.numpy()
    assert found.shape == whole.shape
    left, top, right, bottom = stays
    changed = (found != whole).any(axis=2)
    assert not changed[top:bottom, left:right].any()
    assert changed.mean() > 0.3


def test_a_mask_counts_beside_the_growth(loop: Recorder, tmp_path: Path) -> None:
    white = levels(48, 32, (24, 4, 40, 16))
    run(loop, tmp_path, "both", asked(loop.loaded.model, outpaint(), of=mask()), white, PICTURE)
    found, before = picture_of(loop, "both")[:32, 16:], PICTURE.numpy()
    changed: Pixels = (found != before).any(axis=2)
    assert changed[4:16, 24:40].mean() > 0.5
    assert not changed[:4, 8:].any()
    assert not changed[16:24, 8:].any()


def test_a_grown_picture_goes_on_to_the_same_bytes(loop: Recorder, tmp_path: Path) -> None:
    wanted = asked(loop.loaded.model, outpaint(), sampler="euler_a", determinism=Determinism.EXACT)
    run(loop, tmp_path, "whole", wanted, picture=PICTURE)
    kept = kept_at(loop, tmp_path, "paused", wanted, 2, picture=PICTURE)
    assert isinstance(run(loop, tmp_path, "resumed", wanted, picture=PICTURE, kept=kept), RunFinished)
    assert loop.files("resumed") == loop.files("whole")
