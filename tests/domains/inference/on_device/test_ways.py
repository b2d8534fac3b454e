"""A load chooses how its model computes: its jobs follow it, and never do otherwise in silence."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from PIL import Image
from torch import Tensor

from domains.inference.fallback import Fallback
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.on_device import tiles
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.vae_decoder import VaeDecoder
from domains.inference.outcome import RunFailed, RunFinished
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.ways import Ways
from domains.progress import Degraded
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."
Loaded = Callable[..., Recorder]


@pytest.fixture
def loaded(tiny: Model) -> Iterator[Loaded]:
    """Makes a step loop whose model computes in the given ways."""
    made: list[Recorder] = []

    def make(**ways: Any) -> Recorder:
        made.append(Recorder(tiny, ways=Ways(**ways)))
        return made[-1]

    yield make
    for one in made:
        one.loop.close()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of all latents that are decoded at once."""
    shapes: list[tuple[int, ...]] = []
    decode = VaeDecoder.__call__

    def call(self: VaeDecoder, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        shapes.append(tuple(latents.shape))
        return decode(self, latents, keep_on)

    monkeypatch.setattr(VaeDecoder, "__call__", call)
    return shapes


def too_large(monkeypatch: pytest.MonkeyPatch, fits: Callable[[Tensor], bool]) -> None:
    """A device without memory to decode other latents than these."""
    decode = VaeDecoder.__call__

    def call(self: VaeDecoder, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        if not fits(latents):
            raise torch.OutOfMemoryError(FULL)
        return decode(self, latents, keep_on)

    monkeypatch.setattr(VaeDecoder, "__call__", call)


def pictures(loop: Recorder, asked: ResolvedGeneration, fallback: Fallback | None = None) -> list[Any]:
    """The pixels of a job's pictures."""
    loop.loop.submit("job", Given(loop.loaded.model, asked, fallback=fallback or Fallback()))
    loop.run()
    return [np.asarray(Image.open(io.BytesIO(file))).astype(int) for file in loop.files("job")]


def given_up(loop: Recorder) -> list[str]:
    return [one.kind for one in loop.of("job", Degraded) if isinstance(one, Degraded)]


# The VAE


def test_pictures_that_are_decoded_at_once_equal_those_that_are_decoded_one_after_the_other(
    loaded: Loaded, tiny: Model, decoded: list[tuple[int, ...]]
) -> None:
    asked = request(tiny, steps=2, seeds=(1, 2, 3))
    usual = pictures(loaded(), asked)
    assert [shape[0] for shape in decoded] == [1, 1, 1]
    decoded.clear()
    together = pictures(loaded(vae_slicing=False), asked)
    assert [shape[0] for shape in decoded] == [3]
    assert len(together) == 3
    for one, other in zip(usual, together, strict=True):
        # A convolution chooses its blocks by the number of pictures: the last bit differs.
        assert np.abs(one - other).max() <= 1
    assert not any(np.array_equal(together[0], other) for other in together[1:])


def test_pictures_without_memory_to_be_decoded_at_once_are_decoded_one_after_the_other_and_told(
    loaded: Loaded, tiny: Model, decoded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    too_large(monkeypatch, lambda latents: len(latents) == 1)
    loop = loaded(vae_slicing=False)
    assert len(pictures(loop, request(tiny, steps=1, seeds=(1, 2)))) == 2
    assert given_up(loop) == ["smaller_batch"]
    assert [shape[0] for shape in decoded] == [1, 1]
    refusing = loaded(vae_slicing=False)
    assert not pictures(refusing, request(tiny, steps=1, seeds=(1, 2)), Fallback(max_attempts=0))
    end = refusing.last("job")
    assert isinstance(end, RunFailed)
    assert end.facts["would_help"] == "options.fallback.max_attempts"


def test_a_load_with_tiles_decodes_in_tiles_of_that_edge_without_a_seam(
    loaded: Loaded, tiny: Model, decoded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tiny, steps=2, width_px=96, height_px=320)
    (whole,) = pictures(loaded(), asked)
    decoded.clear()
    loop = loaded(vae_tiling=True, vae_tile_px=256)
    (tiled,) = pictures(loop, asked)
    assert len(decoded) == 2
    assert given_up(loop) == [], "it was asked for"
    assert tiled.shape == whole.shape == (320, 96, 3)
    # The same tolerance as for the tiles of a device that is out of memory.
    assert 0 < np.abs(tiled - whole).mean() < 12
    steps = [np.abs(np.diff(picture, axis=0)).mean(axis=(1, 2)) for picture in (whole, tiled)]
    assert steps[1].max() < 1.5 * steps[0].max(), "a line across the picture shows where tiles meet"


def test_a_picture_that_is_no_larger_than_a_tile_is_decoded_as_a_whole(
    loaded: Loaded, tiny: Model, decoded: list[tuple[int, ...]]
) -> None:
    asked = request(tiny, steps=1)
    usual = pictures(loaded(), asked)
    assert np.array_equal(usual, pictures(loaded(vae_tiling=True), asked))
    assert len(decoded) == 2


def test_a_load_that_forbids_tiles_fails_typed_where_memory_is_short(
    loaded: Loaded, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "SMALLEST", 16)
    asked = request(tiny, steps=1, width_px=96, height_px=160)
    too_large(monkeypatch, lambda latents: max(latents.shape[2:]) < 30)
    for tiling, made in ((False, 0), (None, 1), (True, 1)):
        loop = loaded(vae_tiling=tiling)
        assert len(pictures(loop, asked, Fallback(allow_offload=False))) == made
        assert ("vae_tiling" in given_up(loop)) is bool(made)
        if not made:
            end = loop.last("job")
            assert isinstance(end, RunFailed)
            assert end.reason == "DEVICE_OUT_OF_MEMORY"


def test_a_load_with_tiles_refuses_a_picture_whose_edges_fit_together_before_its_first_step(
    loaded: Loaded, tiny: Model
) -> None:
    loop = loaded(vae_tiling=True)
    assert not pictures(loop, request(tiny, steps=1, seamless_x=True))
    end = loop.last("job")
    assert isinstance(end, RunFailed)
    assert (end.reason, end.receipt.steps_executed) == ("UNSUPPORTED_COMBINATION", 0)
    assert "generation.seamless_x" in end.message
    usual = loaded()
    assert len(pictures(usual, request(tiny, steps=1, seamless_x=True))) == 1
    assert isinstance(usual.last("job"), RunFinished)


# Who shares a loaded model


TILED = Ways(vae_tiling=True, vae_tile_px=256)


@pytest.mark.parametrize(
    ("there", "asked", "told"),
    [
        (TILED, Ways(), ""),
        (TILED, TILED, ""),
        (TILED, Ways(vae_slicing=True), ""),
        (TILED, Ways(vae_tiling=False), "with vae_tiling true"),
        (TILED, Ways(vae_tiling=True, vae_tile_px=512), "with vae_tile_px 256"),
        (Ways(vae_tiling=True), Ways(vae_tiling=True, vae_tile_px=512), ""),
        (Ways(), Ways(vae_tiling=False), "with no vae_tiling"),
        (Ways(), Ways(vae_slicing=True), ""),
        (Ways(), Ways(vae_slicing=False), "with vae_slicing true"),
    ],
)
def test_a_load_in_other_ways_than_those_of_the_loaded_model_is_refused_by_name(
    loaded: Loaded, tiny: Model, there: Ways, asked: Ways, told: str
) -> None:
    loop = loaded(**structs.asdict(there))
    loop.loop.load("other", tiny, Execution(ways=asked))
    loop.run()
    end = loop.last("other")
    if not told:
        assert isinstance(end, RunFinished)
        return
    assert isinstance(end, RunFailed)
    assert (end.reason, told in end.message) == ("ILLEGAL_STATE", True)
