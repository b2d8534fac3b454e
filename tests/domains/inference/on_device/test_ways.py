"""A load chooses how its model computes: its jobs follow it, and never do otherwise in silence."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from msgspec import structs
from PIL import Image
from torch import Tensor
from torch._C import _len_torch_function_stack  # pyright: ignore[reportPrivateUsage]

from domains.inference.fallback import Fallback
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.on_device import attending, tiles
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.vae_decoder import VaeDecoder
from domains.inference.outcome import RunFailed, RunFinished, RunStopped
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.ways import Ways
from domains.progress import Degraded
from domains.stop import Stop, StopKind
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
    asked = request(tiny, steps=2, width_px=32, height_px=320)
    (whole,) = pictures(loaded(), asked)
    decoded.clear()
    loop = loaded(vae_tiling=True, vae_tile_px=256)
    (tiled,) = pictures(loop, asked)
    assert len(decoded) == 2
    assert given_up(loop) == [], "it was asked for"
    assert tiled.shape == whole.shape == (320, 32, 3)
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


# Attention


Takes = Callable[[bool, int], bool]
"""Whether a kernel that is not `math` takes a call, which is causal or masked, or is not, with so many heads."""


def no_masks(causal: bool, heads: int) -> bool:
    """No text encoder's."""
    return not causal


def no_wide_heads(causal: bool, heads: int) -> bool:
    """No VAE's, which has one head of the whole width."""
    return causal or heads > 1


class Kernels:
    """Records which kernels torch may choose in each call of attention, and takes what a device's kernels take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: Takes = lambda causal, heads: True) -> None:
        """`takes`: see `Takes`."""
        self.seen: list[tuple[bool, bool]] = []
        """(whether `flash`, whether `math` was permitted)."""
        self.sizes: list[int] = []
        """Scores of each call that is not causal."""
        self.on_call: Callable[[], None] = lambda: None
        self._takes = takes
        self._compute = F.scaled_dot_product_attention
        monkeypatch.setattr(F, "scaled_dot_product_attention", self._call)

    def _call(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **more: Any) -> Tensor:
        if _len_torch_function_stack():
            # The whole, of which the slices come here, too.
            return self._compute(query, key, value, attn_mask=attn_mask, **more)
        permitted = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()
        causal = attn_mask is not None or bool(more.get("is_causal"))
        if not permitted[1] and not self._takes(causal, query.shape[1]):
            raise RuntimeError("No available kernel. Aborting execution.")
        self.on_call()
        self.seen.append(permitted)
        if not causal:
            self.sizes.append(query[..., 0].numel() * key.shape[-2])
        return self._compute(query, key, value, attn_mask=attn_mask, **more)


@pytest.mark.parametrize(
    ("kernel", "permitted"), [("", (True, True)), ("flash", (True, False)), ("math", (False, True))]
)
def test_all_attention_is_computed_by_the_kernel_of_the_load(
    loaded: Loaded, tiny: Model, monkeypatch: pytest.MonkeyPatch, kernel: str, permitted: tuple[bool, bool]
) -> None:
    asked = request(tiny, steps=2, negative_prompt="dog")
    usual = pictures(loaded(), asked)
    kernels = Kernels(monkeypatch)
    loop = loaded(attention_kernel=kernel)
    (made,) = pictures(loop, asked)
    assert set(kernels.seen) == {permitted}
    assert given_up(loop) == []
    assert np.abs(made - usual[0]).max() <= 1
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.math_sdp_enabled()


@pytest.mark.parametrize(
    ("takes", "part"),
    [
        (no_masks, "the text encoders"),
        (no_wide_heads, "the VAE"),
    ],
    ids=["masks", "wide heads"],
)
def test_a_part_whose_attention_the_kernel_does_not_take_computes_it_with_math_and_the_job_tells(
    loaded: Loaded, tiny: Model, monkeypatch: pytest.MonkeyPatch, takes: Takes, part: str
) -> None:
    asked = request(tiny, steps=2, seeds=(1, 2))
    usual = pictures(loaded(), asked)
    loop = loaded(attention_kernel="flash")
    kernels = Kernels(monkeypatch, takes)
    made = pictures(loop, asked)
    assert set(kernels.seen) == {(True, False), (True, True)}, "the other parts compute with the kernel alone"
    (told,) = loop.of("job", Degraded)
    assert isinstance(told, Degraded)
    assert (told.kind, told.reason) == ("attention_kernel", "NOT_SUPPORTED_ON_DEVICE")
    assert told.detail == f"flash does not take the attention of {part} of model {tiny.id}; math computes it"
    for one, other in zip(usual, made, strict=True):
        assert np.abs(one - other).max() <= 1


def test_the_kernel_is_chosen_for_calls_that_compute_alone(tiny: Model) -> None:
    class Tells:
        """A family whose answers say whether `math` may compute, which `flash` alone excludes."""

        def shared_bytes(self) -> int:
            return int(torch.backends.cuda.math_sdp_enabled())

        def preview(self, x0: Tensor, size: tuple[int, int]) -> Tensor:
            return torch.tensor(torch.backends.cuda.math_sdp_enabled())

    tells: Any = Tells()
    family = attending.attending(tiny, tells, Ways(attention_kernel="flash"))
    assert family.shared_bytes() == 1
    assert not family.preview(torch.zeros(1), (8, 8))


def test_a_denoiser_whose_attention_the_kernel_does_not_take_is_refused_by_name(loaded: Loaded, tiny: Model) -> None:
    # Torch has no such kernel for a CPU.
    loop = loaded(attention_kernel="memory_efficient")
    assert not pictures(loop, request(tiny, steps=2))
    end = loop.last("job")
    assert isinstance(end, RunFailed)
    assert (end.reason, end.facts["attention_kernel"]) == ("NOT_SUPPORTED_ON_DEVICE", "memory_efficient")
    assert "the unet of model" in end.message
    assert "math takes all" in end.message


def test_attention_in_slices_has_no_more_scores_at_once_and_the_same_pictures(
    loaded: Loaded, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tiny, steps=2, seeds=(1, 2), width_px=48, height_px=64)
    usual = pictures(loaded(attention_kernel="math"), asked)
    monkeypatch.setattr(attending, "SLICE_SCORES", 200_000)
    kernels = Kernels(monkeypatch)
    whole = pictures(loaded(), asked)
    assert max(kernels.sizes) > 200_000
    kernels.sizes.clear()
    sliced = pictures(loaded(attention_slicing=True, attention_kernel="math"), asked)
    assert 0 < max(kernels.sizes) <= 200_000
    assert kernels.seen[-1] == (False, True)
    for one, other, third in zip(usual, sliced, whole, strict=True):
        assert np.abs(one - other).max() <= 1
        assert np.abs(third - other).max() <= 1


def test_a_job_is_cancelled_between_two_slices(loaded: Loaded, tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "SLICE_SCORES", 1000)
    loop = loaded(attention_slicing=True)
    kernels = Kernels(monkeypatch)
    stops: list[Stop] = []

    def third_slice() -> None:
        if len(kernels.sizes) == 2:
            stops.append(Stop(kind=StopKind.CANCEL, cause="the caller"))
            assert kernels.sizes[0] == kernels.sizes[1], "both are slices of one attention"

    kernels.on_call = third_slice
    loop.stop_of = lambda job_id: stops[-1] if stops else None
    assert not pictures(loop, request(tiny, steps=2, width_px=64, height_px=96))
    assert isinstance(loop.last("job"), RunStopped)
    assert len(kernels.sizes) == 3


@pytest.mark.parametrize("mask", [None, (1, 1, 1, 40), (1, 1, 50, 40)], ids=["none", "of keys", "of both"])
def test_slices_of_attention_with_a_mask_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, mask: tuple[int, ...] | None
) -> None:
    monkeypatch.setattr(attending, "SLICE_SCORES", 3 * 4 * 40 * 7)
    query, key, value = torch.randn(3, 4, 50, 8), torch.randn(3, 4, 40, 8), torch.randn(3, 4, 40, 8)
    added = None if mask is None else torch.randn(mask)
    whole = F.scaled_dot_product_attention(query, key, value, added)
    calls = 0

    def keep_on() -> None:
        nonlocal calls
        calls += 1

    with attending._Slicing(keep_on):  # pyright: ignore[reportPrivateUsage]
        sliced = F.scaled_dot_product_attention(query, key, value, added)
    torch.testing.assert_close(sliced, whole)
    assert calls == 8


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
        (Ways(attention_kernel="flash"), Ways(attention_kernel="flash", attention_slicing=False), ""),
        (Ways(attention_kernel="flash"), Ways(attention_kernel="math"), "with attention_kernel flash"),
        (Ways(), Ways(attention_kernel="math"), "with no attention_kernel"),
        (Ways(), Ways(attention_slicing=True), "with attention_slicing false"),
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
