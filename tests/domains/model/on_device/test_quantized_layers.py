"""Weights in fewer bits: how far each is from the weight that the file has, and what the device then holds."""

import copy
import gc
import shutil
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from domains.device.on_device.quantizations import tried_quantizations
from domains.errors import ErrorReason, NotSupported
from domains.model.execution import BY_COMPONENT, Execution
from domains.model.model import Model
from domains.model.on_device import (
    HostTier,
    SharedModules,
    cuda_reading,
    file_map,
    load,
    loading,
    quantized_layers,
    skeleton_key,
)
from domains.model.on_device.cuda_reading import read_to_cuda
from domains.model.on_device.flat import Flat, Slot, Slots
from domains.model.on_device.quantized_layers import CODES, hold_codes, put_codes, weight_dtype, weight_shape, widened
from domains.model.weight_file import WeightFile
from domains.model.weight_quantization import FP8_E4M3, INT8, QUANTIZATIONS
from tests.domains.inference.on_device.tiny_model import tiny_model
from tests.domains.model.on_device.test_cuda_reading import DTYPES, HOST, UNET, HostCopies, ScriptedDriver, keeps
from tests.domains.model.on_device.test_host_tier import end_of


def coded(values: Tensor, quantization: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight that is computed with."""
    codes = torch.empty_like(values, dtype=CODES[quantization])
    scales = torch.empty(len(values)) if quantization == INT8 else None
    put_codes(values, codes, scales)
    return widened(codes, scales, dtype)


def half_steps(values: Tensor, quantization: str) -> Tensor:
    """Half the distance of the two numbers of the format between which each value lies."""
    if quantization == INT8:
        most = values.flatten(1).abs().amax(dim=1)
        return (most / 127 / 2).view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    exponents = torch.frexp(values)[1] - 1
    return torch.ldexp(torch.full(values.shape, 0.5), exponents.clamp(min=-6) - 3)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(7, 5), (6, 4, 3, 3)], ids=str)
def test_each_weight_differs_by_half_a_step_at_most(
    quantization: str, stored: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized_layers, "_AT_ONCE", 2 * shape[1])  # so that a tensor has several parts
    values = (torch.randn(shape) * torch.logspace(-4, 2, shape[0]).view(-1, *[1] * (len(shape) - 1))).to(stored)
    error = (coded(values, quantization) - values.float()).abs()
    assert (error <= half_steps(values.float(), quantization) * (1 + 1e-5)).all()
    assert error.max() > 0
    once = coded(values, quantization, torch.float32)
    assert torch.equal(coded(values, quantization, torch.float16), once.to(torch.float16)), "rounded once"
    if quantization == FP8_E4M3:
        assert torch.equal(coded(once, quantization), once), "numbers of the format stay as they are"
        assert torch.equal(coded(values, quantization, torch.bfloat16).float(), once), "and every float holds them"


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_convolutions_keep_the_layout_of_the_device(quantization: str) -> None:
    values = torch.randn(6, 4, 3, 3)
    made = coded(values.to(memory_format=torch.channels_last), quantization)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made, coded(values, quantization))


def test_channels_of_zeros_large_and_broken_weights_have_codes() -> None:
    values = torch.tensor([[0.0, 0.0], [500.0, -1000.0], [float("nan"), 1.0], [float("inf"), 1.0]])
    fp8, int8 = (coded(values, quantization) for quantization in (FP8_E4M3, INT8))
    assert torch.equal(fp8[:2], torch.tensor([[0.0, 0.0], [448.0, -448.0]])), "the largest number, not infinity"
    assert torch.allclose(int8[:2], values[:2], atol=1000 / 254)
    for made in (fp8, int8):
        assert not made[2:].isfinite().all(dim=1).any(), "a broken weight breaks the picture, and is not hidden"


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_layer_is_computed_with_its_widened_weight(quantization: str) -> None:
    x, picture = torch.randn(2, 5), torch.randn(1, 4, 6, 6)
    for layer, given in ((nn.Linear(5, 7), x), (nn.Conv2d(4, 6, 3), picture)):
        wide = copy.deepcopy(layer)
        wide.weight.data = coded(layer.weight.data, quantization)
        values = layer.weight.data
        hold_codes(layer, torch.float32, scaled=quantization == INT8)
        codes = torch.empty_like(values, dtype=CODES[quantization])
        scales = torch.empty(len(values)) if quantization == INT8 else None
        put_codes(values, codes, scales)
        layer._parameters["weight"] = nn.Parameter(codes, requires_grad=False)  # pyright: ignore[reportPrivateUsage]
        if scales is not None:
            layer._parameters["weight_scale"] = nn.Parameter(scales, requires_grad=False)  # pyright: ignore[reportPrivateUsage]
        assert torch.equal(layer(given), wide(given))
        assert (weight_shape(layer), weight_dtype(layer)) == (values.shape, torch.float32)
        assert isinstance(layer, type(wide))


def test_the_processor_has_every_quantization_and_a_device_without_float8_lacks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tried_quantizations(HOST) == tuple(QUANTIZATIONS)
    own = torch.empty

    def without(*shape: Any, **how: Any) -> Tensor:
        if how.get("dtype") is torch.float8_e4m3fn:
            raise TypeError("Trying to convert Float8_e4m3fn to the MPS backend")
        return own(*shape, **how)

    monkeypatch.setattr(torch, "empty", without)
    assert tried_quantizations(HOST) == (INT8,)


# A model


def large(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of linear layers and convolutions in the repeated layers of a U-Net."""
    inside = (".resnets.", ".transformer_blocks.")
    return {
        name: value
        for name, value in tensors.items()
        if value.dim() > 1 and any(part in name for part in inside) and "time_emb_proj" not in name
    }


def expected_bytes(file: Mapping[str, Tensor], quantization: str, width: int) -> int:
    coded_weights = large(file)
    scales = sum(4 * len(value) for value in coded_weights.values()) if quantization == INT8 else 0
    others = sum(value.numel() * width for name, value in file.items() if name not in coded_weights)
    return others + sum(value.numel() for value in coded_weights.values()) + scales


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_device_holds_a_byte_for_each_large_weight(tiny: Model, quantization: str, precision: str) -> None:
    file = load_file(Path(tiny.folder) / UNET)
    loaded = load(tiny, "cpu", execution=Execution(precision=precision, quantization=quantization))
    unet = loaded.modules["unet"]
    width = getattr(torch, precision).itemsize
    held = sum(one.nbytes for one in (*unet.parameters(), *unet.buffers()))
    assert held == loaded.bytes_per_component["unet"] == expected_bytes(file, quantization, width)
    assert held < 0.8 * sum(value.numel() * width for value in file.values())
    assert loaded.precision_of("unet") == precision, "it computes in the precision of the load"
    assert loaded.value("cpu").way.quantization == quantization
    kinds = {str(one.dtype) for name, one in unet.named_parameters() if name in large(file)}
    assert kinds == {str(CODES[quantization])}
    assert not any(name in large(file) for name, one in unet.named_parameters() if one.dtype is torch.float32)
    vae = loaded.modules["vae"]
    assert {one.dtype for one in vae.parameters()} == {getattr(torch, precision)}, "other components stay as they are"


def test_weights_that_a_file_has_in_the_format_are_its_very_bytes(tiny: Model, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "fp8")
    path = tmp_path / "fp8" / UNET
    file = load_file(path)
    stored = {name: value.to(torch.float8_e4m3fn) for name, value in large(file).items()}
    save_file({**file, **stored}, path)
    held = load(tiny_model(tmp_path / "fp8"), "cpu", execution=Execution(quantization=FP8_E4M3)).modules["unet"]
    codes = dict(held.named_parameters())
    assert all(torch.equal(codes[name].view(torch.uint8), one.view(torch.uint8)) for name, one in stored.items())
    of_wide = dict(load(tiny, "cpu", execution=Execution(quantization=FP8_E4M3)).modules["unet"].named_parameters())
    assert all(torch.equal(of_wide[name].float(), codes[name].float()) for name in stored)


@contextmanager
def most_bytes() -> Generator[list[int]]:
    """What torch's allocator held beside that from before, at most; in the list at the end."""
    found: list[int] = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        yield found
    results: Any = seen.profiler
    now = most = 0
    for event in sorted(results.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    found.append(most)


def test_a_load_never_holds_the_wide_denoiser(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(file: object) -> None: ...

    monkeypatch.setattr("domains.model.on_device.weights.mapped", nothing)  # as on a device with memory of its own
    file = load_file(Path(tiny.folder) / UNET)
    wide = sum(value.nbytes for value in file.values())
    others = load(tiny, "cpu").size_bytes - wide
    largest = max(value.nbytes for value in file.values())
    for quantization in QUANTIZATIONS:
        gc.collect()
        with most_bytes() as most:
            loaded = load(tiny, "cpu", execution=Execution(quantization=quantization))
        quantized = loaded.bytes_per_component["unet"]
        # Conversion takes a few float32 copies of one tensor.
        assert quantized + others <= most[0] <= quantized + others + 4 * largest
        assert 4 * largest + quantized < wide, "else the bound says nothing"
    with most_bytes() as most:
        load(tiny, "cpu")
    assert most[0] >= wide + others, "what is measured is all of it"


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("refuses_from", [None, 0], ids=["registered", "refused"])
def test_codes_arrive_the_way_to_a_gpu_too(
    tiny: Model, quantization: str, refuses_from: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (file_map, cuda_reading):
        monkeypatch.setattr(module, "PIECE", 16384)  # so that tensors lie across pieces
    with WeightFile(tiny, UNET) as file:
        file_tensors = load_file(Path(tiny.folder) / UNET)
        wanted = large(file_tensors)
        slots = Slots(
            Slot(
                name,
                file,
                entry,
                DTYPES[entry.dtype],
                CODES[quantization] if name in wanted else torch.bfloat16,
                torch.Size(entry.shape),
                quantization=quantization if name in wanted else "",
            )
            for name, entry in file.tensors.items()
        )
        flat = Flat(slots, HOST)
        with ExitStack() as ending:
            tier = keeps(0, ScriptedDriver(refuses_from))
            for piece in read_to_cuda(slots, flat, HostCopies(), tier, ending, iter(())):
                piece.ready.wait()
        found = flat.tensors(slots)
    for name, value in wanted.items():
        made = widened(found[name], found.get(f"{name}_scale"), torch.float32)
        assert torch.equal(made, coded(value, quantization)), name
        assert made.dim() != 4 or made.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(found[name], file_tensors[name].bfloat16()) for name in file_tensors.keys() - wanted.keys())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("offload", ["", BY_COMPONENT])
def test_a_model_that_comes_back_from_the_host_tier_has_its_codes(tiny: Model, quantization: str, offload: str) -> None:
    tier, how = HostTier(lambda: 0), Execution(quantization=quantization, offload=offload)

    def values() -> dict[str, Tensor]:
        if loaded.turns is not None:
            loaded.turns.bring(["unet"])
        return {name: one.clone() for name, one in loaded.modules["unet"].state_dict().items()}

    loaded = end_of(loading(tiny, "cpu", how, tier=tier))
    before, module = values(), loaded.modules["unet"]
    assert loaded.skeleton is not None
    if loaded.turns is not None:
        loaded.turns.close()
    tier.keep(skeleton_key(tiny, loaded.execution), loaded.skeleton, ())
    assert all(one.is_meta for one in module.parameters())
    loaded = end_of(loading(tiny, "cpu", how, tier=tier))
    assert loaded.modules["unet"] is module
    after = values()
    # Codes of float8 are compared by their bytes.
    assert all(torch.equal(after[name].view(torch.uint8), one.view(torch.uint8)) for name, one in before.items())
    assert end_of(loading(tiny, "cpu", Execution(offload=offload), tier=tier)).modules["unet"] is not module
    if loaded.turns is not None:
        loaded.turns.close()
    tier.clear()


def test_models_share_a_denoiser_only_in_the_same_quantization(tiny: Model) -> None:
    shared = SharedModules()
    ways = ["", "none", FP8_E4M3, INT8]
    found = [end_of(loading(tiny, "cpu", Execution(quantization=way), shared=shared)) for way in ways]
    plain, none, fp8, int8 = (one.modules for one in found)
    assert plain["unet"] is none["unet"]
    assert len({plain["unet"], fp8["unet"], int8["unet"]}) == 3
    assert plain["vae"] is fp8["vae"] is int8["vae"]
    assert end_of(loading(tiny, "cpu", Execution(quantization=INT8), shared=shared)).modules["unet"] is int8["unet"]


def test_an_unknown_quantization_is_refused_with_those_we_know(tiny: Model) -> None:
    with pytest.raises(NotSupported, match="known: fp8_e4m3, int8") as refused:
        load(tiny, "cpu", execution=Execution(quantization="nf4"))
    assert refused.value.reason is ErrorReason.NOT_SUPPORTED_ON_DEVICE
