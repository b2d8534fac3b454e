"""A device that is out of memory: the job gives up what it may and goes on from the stage that failed."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from domains.inference.fallback import Fallback
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.on_device import tiles
from domains.inference.on_device.batches import Batches, Forward
from domains.inference.on_device.families.family import KeepOn, StepRows, regardless
from domains.inference.on_device.networks.vae_decoder import VaeDecoder
from domains.inference.outcome import CheckpointReady, RunFailed, RunFinished
from domains.inference.prompts.reading import Syntax
from domains.model.model import Model
from domains.progress import Degraded
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def run(loop: Recorder, job_id: str, asked: ResolvedGeneration, fallback: Fallback) -> None:
    loop.loop.submit(job_id, Given(loop.loaded.model, asked, fallback=fallback))
    loop.run()


def told(loop: Recorder, job_id: str) -> list[tuple[str, str]]:
    """What the job gave up, which its receipt and its reports say alike."""
    end = loop.last(job_id)
    assert isinstance(end, RunFinished | RunFailed)
    reported = loop.of(job_id, Degraded)
    assert reported == list(end.receipt.degradations)
    return [(one.kind, one.reason) for one in reported if isinstance(one, Degraded)]


def too_large(monkeypatch: pytest.MonkeyPatch, pictures: int) -> None:
    """A device without memory for a forward of so many pictures of one job, or more."""
    compute = Batches.__call__

    def call(self: Batches, jobs: Sequence[StepRows], forward: Forward) -> list[Tensor]:
        if max(len(job.latents) for job in jobs) >= pictures:
            raise torch.OutOfMemoryError(FULL)
        return compute(self, jobs, forward)

    monkeypatch.setattr(Batches, "__call__", call)


def one_row_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without memory for a forward of two rows."""
    compute = Batches.__call__

    def call(self: Batches, jobs: Sequence[StepRows], forward: Forward) -> list[Tensor]:
        if sum(len(job.latents) * job.conditions.rows for job in jobs) > 1:
            raise torch.OutOfMemoryError(FULL)
        return compute(self, jobs, forward)

    monkeypatch.setattr(Batches, "__call__", call)


def too_wide(monkeypatch: pytest.MonkeyPatch, edge: int) -> None:
    """A device without memory to decode latents of such an edge, or a longer one."""
    decode = VaeDecoder.__call__

    def call(self: VaeDecoder, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        if max(latents.shape[2:]) >= edge:
            raise torch.OutOfMemoryError(FULL)
        return decode(self, latents, keep_on)

    monkeypatch.setattr(VaeDecoder, "__call__", call)


def pixels(file: bytes) -> Any:
    with Image.open(io.BytesIO(file)) as opened:
        return np.asarray(opened).astype(int)


def test_pictures_that_do_not_fit_together_are_denoised_one_after_the_other_and_told(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tiny, steps=3, seeds=(1, 2, 3))
    run(loop, "plenty", asked, Fallback())
    too_large(monkeypatch, 2)
    run(loop, "little", asked, Fallback())
    assert told(loop, "little") == [("smaller_batch", "DEVICE_OUT_OF_MEMORY")]
    end = loop.last("little")
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 3
    for one, other in zip(loop.files("plenty"), loop.files("little"), strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


@pytest.mark.parametrize(
    ("seeds", "changes"),
    [
        ((1,), {}),
        ((1, 2), {"guidance_rescale": 0.5}),
        ((1,), {"prompt": "a cat AND a hat :0.5", "prompt_syntax": Syntax.A1111}),
    ],
)
def test_the_rows_of_a_guided_picture_are_denoised_one_after_the_other_and_told(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch, seeds: tuple[int, ...], changes: Mapping[str, Any]
) -> None:
    asked = request(tiny, steps=3, seeds=seeds, guidance_scale=4.0, **changes)
    run(loop, "plenty", asked, Fallback())
    one_row_at_a_time(monkeypatch)
    run(loop, "little", asked, Fallback())
    assert told(loop, "little") == [("smaller_batch", "DEVICE_OUT_OF_MEMORY")] * len(seeds)
    for one, other in zip(loop.files("plenty"), loop.files("little"), strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


def test_a_picture_without_guidance_has_no_rows_to_give_up(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_large(monkeypatch, 1)
    run(loop, "a", request(tiny, steps=2, guidance_scale=1.0), Fallback(allow_offload=False))
    assert told(loop, "a") == []
    assert isinstance(loop.last("a"), RunFailed)


def test_an_error_of_the_forward_once_costs_one_rung_and_no_step(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, calls = Batches.__call__, iter(range(100))

    def call(self: Batches, jobs: Sequence[StepRows], forward: Forward) -> list[Tensor]:
        if next(calls) == 1:
            raise torch.OutOfMemoryError(FULL)
        return compute(self, jobs, forward)

    monkeypatch.setattr(Batches, "__call__", call)
    run(loop, "a", request(tiny, steps=4, seeds=(1, 2)), Fallback())
    assert told(loop, "a") == [("smaller_batch", "DEVICE_OUT_OF_MEMORY")]
    end = loop.last("a")
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 4


def test_a_picture_too_large_to_decode_is_decoded_in_ever_smaller_tiles_without_a_seam(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "SMALLEST", 16)
    asked = request(tiny, steps=2, width_px=96, height_px=160)
    run(loop, "plenty", asked, Fallback())
    too_wide(monkeypatch, 30)
    run(loop, "little", asked, Fallback())
    assert told(loop, "little") == [("vae_tiling", "DEVICE_OUT_OF_MEMORY")] * 2
    (whole,), (tiled,) = ([pixels(file) for file in loop.files(job_id)] for job_id in ("plenty", "little"))
    assert tiled.shape == whole.shape == (160, 96, 3)
    # The normalisation of a tile sees the tile alone: the random weights of the tiny model make that visible.
    assert np.abs(tiled - whole).mean() < 12
    steps = [np.abs(np.diff(picture, axis=0)).mean(axis=(1, 2)) for picture in (whole, tiled)]
    assert steps[1].max() < 1.5 * steps[0].max(), "a line across the picture shows where tiles meet"


AS_A_WHOLE = partial(Fallback, allow_offload=False)
FORBIDS: dict[str, tuple[Fallback, Callable[[pytest.MonkeyPatch], None]]] = {
    "allow_smaller_batch": (AS_A_WHOLE(allow_smaller_batch=False), lambda patch: too_large(patch, 2)),
    "allow_tiling": (AS_A_WHOLE(allow_tiling=False), lambda patch: too_wide(patch, 33)),
    "max_attempts": (Fallback(max_attempts=0), lambda patch: too_wide(patch, 33)),
}


@pytest.mark.parametrize("field", FORBIDS)
def test_what_the_request_forbids_fails_typed_with_what_would_have_helped_and_keeps_the_progress(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    fallback, full = FORBIDS[field]
    full(monkeypatch)
    run(loop, "a", request(tiny, steps=2, seeds=(1, 2), width_px=80, height_px=80), fallback)
    end = loop.last("a")
    assert isinstance(end, RunFailed)
    fields = [field] if field == "max_attempts" else [field, "allow_offload"]
    named = ", ".join(f"options.fallback.{one}" for one in fields)
    assert (end.reason, end.facts["would_help"]) == ("DEVICE_OUT_OF_MEMORY", named)
    assert f"options.fallback.{field}" in end.message
    assert told(loop, "a") == []
    (kept,) = loop.of("a", CheckpointReady)
    assert isinstance(kept, CheckpointReady)
    assert kept.step == end.receipt.steps_executed


def test_a_device_that_stays_full_ends_the_job_after_its_last_rung(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_large(monkeypatch, 1)
    run(loop, "a", request(tiny, steps=2, seeds=(1, 2)), Fallback(max_attempts=9))
    end = loop.last("a")
    assert isinstance(end, RunFailed)
    assert end.reason == "DEVICE_OUT_OF_MEMORY"
    assert "would_help" not in end.facts
    kinds = [kind for kind, _ in told(loop, "a")]
    offloads = kinds.count("offload")
    # Components in turns, then ever fewer layers of the denoiser.
    assert 2 <= offloads <= 4
    assert kinds == ["smaller_batch", "smaller_batch", *["offload"] * offloads]


def test_a_tile_that_is_no_number_is_no_black_place(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_wide(monkeypatch, 33)
    decode, parts = VaeDecoder.__call__, iter(range(100))

    def call(self: VaeDecoder, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        found = decode(self, latents, keep_on)
        return found.fill_(float("nan")) if next(parts) == 2 else found

    monkeypatch.setattr(VaeDecoder, "__call__", call)
    run(loop, "a", request(tiny, steps=1, width_px=80, height_px=80), Fallback())
    end = loop.last("a")
    assert isinstance(end, RunFailed)
    assert end.reason == "NUMERIC_FAILURE"
    assert not loop.files("a")


@pytest.mark.parametrize("size", [(33, 47), (64, 32), (100, 70)])
def test_tiles_cover_every_pixel_of_a_picture(size: tuple[int, int]) -> None:
    latents = torch.rand(1, 4, *size)

    def enlarged(part: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(part[:, :3], scale_factor=8.0, mode="nearest")

    torch.testing.assert_close(tiles.in_tiles(latents, 32, enlarged, 8), enlarged(latents))
