"""Quantized denoisers compute what a model of rounded weights computes; the rounding is written anew here, with numpy."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains.inference.given import Given
from domains.inference.on_device.adapters import AdapterPool, Asked
from domains.inference.outcome import LatentsReady, RunFailed, RunFinished
from domains.model.execution import AS_USUAL, BY_COMPONENT, BY_LAYER, Execution
from domains.model.families import FAMILIES
from domains.model.header_facts import header_facts
from domains.model.layers import layer_plans
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, load
from domains.model.weight_quantization import FP8_E4M3, INT8, QUANTIZATIONS
from tests.domains.inference.on_device import test_mixes as mixes
from tests.domains.inference.on_device import test_refiner as refining
from tests.domains.inference.on_device.lora_files import layers, lora_model, resolved
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_in_turns import asked, device, pictures, tick
from tests.domains.inference.on_device.test_loras import CHANGES
from tests.domains.inference.on_device.test_loras import UNET as LORA_LAYERS
from tests.domains.inference.on_device.test_pausing import Runs, stepped
from tests.domains.inference.on_device.test_simulated import Sim
from tests.domains.inference.on_device.test_single_files import SINGLE, single
from tests.domains.inference.on_device.tiny_families import TINY, write_tiny_family
from tests.domains.inference.on_device.tiny_model import tiny_model

pytestmark = pytest.mark.usefixtures("aligned")

_UNET = re.compile(r"(down_blocks|mid_block|up_blocks)\..*(resnets\.\d+\.conv|transformer_blocks\.).*\.?weight$")
_TRANSFORMER = re.compile(r"((joint_|single_)?transformer_blocks|layers|noise_refiner|context_refiner)\.\d+\..*weight$")


def e4m3(values: Any) -> Any:
    """The nearest number of 4 bits of exponent (bias 7) and 3 of mantissa; of two, the even one."""
    size = np.abs(values.astype(np.float64))
    exponents = np.clip(np.frexp(size)[1] - 1, -6, 8)
    step = np.ldexp(1.0, exponents - 3)
    return (np.sign(values) * np.minimum(np.rint(size / step) * step, 448)).astype(np.float32)


def int8(values: Any) -> Any:
    """256 levels for each output channel, the outermost at its largest magnitude."""
    rows = values.reshape(len(values), -1)
    step = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    return (np.rint(rows / step) * step).reshape(values.shape)


ROUNDED: Mapping[str, Callable[[Any], Any]] = {FP8_E4M3: e4m3, INT8: int8}


def weights_of(model: Model) -> Path:
    (path,) = (Path(model.folder) / FAMILIES[model.family].denoiser.id).glob("*.safetensors")
    return path


def large(model: Model, file: Mapping[str, Tensor]) -> set[str]:
    """Names of the weights that become codes."""
    pattern = _UNET if FAMILIES[model.family].denoiser.id == "unet" else _TRANSFORMER
    return {name for name, value in file.items() if value.dim() > 1 and pattern.match(name)}


def rounded(model: Model, quantization: str, folder: Path) -> Model:
    """The same model with rounded weights, as plain floats."""
    shutil.copytree(model.folder, folder)
    made = tiny_model(folder)
    file = load_file(weights_of(made))
    names = large(model, file)
    assert names
    changed = {name: torch.from_numpy(ROUNDED[quantization](file[name].numpy())) for name in names}
    save_file({**file, **changed}, weights_of(made))
    return tiny_model(folder)


def denoiser_bytes(model: Model, quantization: str) -> int:
    file = load_file(weights_of(model))
    names = large(model, file)
    scales = sum(4 * len(file[name]) for name in names) if quantization == INT8 else 0
    return scales + sum(value.numel() * (1 if name in names else 4) for name, value in file.items())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", TINY)
def test_latents_are_those_of_rounded_weights_and_the_headers_tell_the_bytes(
    name: str, quantization: str, tmp_path: Path
) -> None:
    model = write_tiny_family(name, tmp_path / name)
    part, wanted = FAMILIES[model.family].denoiser.id, asked(model).resolved
    plain = load(model, "cpu")
    found = load(model, "cpu", execution=Execution(quantization=quantization))
    latents = final_latents(found, wanted)
    same = load(rounded(model, quantization, tmp_path / "rounded"), "cpu")
    expected = final_latents(same, wanted)
    assert (latents - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(latents, final_latents(found, wanted)), "the same request has the same bytes"
    usual = final_latents(plain, wanted)
    apart = (latents - usual).abs().max() / usual.abs().max()
    assert 1e-4 < apart < (0.5 if quantization == FP8_E4M3 else 0.2), "it is another picture, and a like one"
    held, wide = found.bytes_per_component[part], plain.bytes_per_component[part]
    in_no_file = wide - sum(value.nbytes for value in load_file(weights_of(model)).values())
    assert held == denoiser_bytes(model, quantization) + in_no_file < wide
    facts = (header_facts(model) or {})[part].quantized
    assert facts is not None
    assert wide - facts.saved_bytes(4, quantization) == held


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("family", ["sd1", "sd3", "flux1"])
def test_a_single_file_has_the_codes_of_its_folder(family: str, quantization: str, tmp_path: Path) -> None:
    """Its names are others, and FLUX.1 has queries, keys and values in one tensor there."""
    model = SINGLE[family](tmp_path / "folder")
    how, part = Execution(quantization=quantization), FAMILIES[family].denoiser.id
    one_file = single(tmp_path, model)
    found, folder = (load(one, "cpu", execution=how) for one in (one_file, model))
    of_folder = folder.modules[part].state_dict()
    for name, value in found.modules[part].state_dict().items():
        assert torch.equal(value.float(), of_folder[name].float()), name
    facts = (header_facts(one_file) or {})[part]
    assert facts.layers is not None
    assert facts.quantized is not None
    weights = facts.layers.rest + sum(facts.layers.of_layer.values())
    forecast = weights * 4 - facts.quantized.saved_bytes(4, quantization)
    assert forecast == pytest.approx(found.bytes_per_component[part], rel=0.01)


# Less of it on the device


@pytest.fixture
def sim() -> Iterator[Sim]:
    made = device(64 * 2**20)
    yield made
    made.loop.close()


def bring(sim: Sim, model: Model, execution: Execution) -> OnDeviceModel:
    sim.loop.load("brings", model, execution)
    tick(sim)
    assert isinstance(sim.reports[-1][1], RunFinished), sim.reports[-1]
    return sim.loop.loaded(model.id)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", ["sdxl", "z_image"])
def test_streamed_layers_and_turns_make_the_same_pictures_in_the_bytes_of_the_forecast(
    name: str, quantization: str, sim: Sim, tmp_path: Path
) -> None:
    model = write_tiny_family(name, tmp_path / name)
    part, given = FAMILIES[model.family].denoiser.id, asked(model)
    loaded = bring(sim, model, Execution(quantization=quantization))
    assert sim.loop.resources.model_bytes() == {model.id: loaded.size_bytes}, "the memory book counts codes"
    before, whole = pictures(sim, given), loaded.bytes_per_component[part]
    sim.loop.unload(model.id)
    facts = (header_facts(model) or {})[part]
    for offload in (BY_COMPONENT, BY_LAYER):
        loaded = bring(sim, model, Execution(quantization=quantization, offload=offload))
        assert loaded.turns is not None
        held = loaded.turns.size_of(part)
        if offload == BY_LAYER:
            sizes = facts.placed(4, quantization)
            assert sizes is not None
            assert held == layer_plans({part: sizes}, 0)[part].total_bytes < whole
        else:
            assert held == whole
        assert pictures(sim, given, offload) == before
        sim.loop.unload(model.id)
    assert pictures(sim, given, "plain") != before


# What meets it


class Loops(NamedTuple):
    """One model three ways."""

    plain: Recorder
    quantized: Recorder
    rounded: Recorder


@pytest.fixture(scope="module", params=list(QUANTIZATIONS))
def loops(request: pytest.FixtureRequest, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loops]:
    quantization: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("domains.model.on_device.weights.mapped", lambda file: None)  # pyright: ignore[reportUnknownLambdaType]  # as `aligned`
        same = rounded(tiny, quantization, tmp_path_factory.mktemp("rounded") / "model")
        found = Loops(Recorder(tiny), recorder(tiny, quantization), Recorder(same))
    yield found
    for one in found:
        one.loop.close()


def recorder(model: Model, quantization: str) -> Recorder:
    made = Recorder(model)
    made.loop.unload(model.id)
    made.loop.load("brings", model, Execution(quantization=quantization))
    made.run()
    made.loaded = made.loop.loaded(model.id)
    return made


@pytest.fixture(scope="module")
def files(loops: Loops, tmp_path_factory: pytest.TempPathFactory) -> mixes.Files:
    return mixes.write_files(loops.plain, tmp_path_factory.mktemp("mixes"))


MIXES = [
    mixes.Mix(start="mask", controls=(1.0,), shown=0.5, lora=0.7, seeds=(3, 9)),
    mixes.Mix(start="picture", controls=(0.4, 1.0), lora=-0.5, sampler="dpmpp_2m"),
]


@pytest.mark.parametrize("mix", MIXES, ids=["masked", "picture"])
def test_controls_pictures_that_are_shown_and_loras_meet_codes(
    loops: Loops, files: mixes.Files, mix: mixes.Mix
) -> None:
    found, same, plain = (mixes.ours(one, files, mix) for one in (loops.quantized, loops.rounded, loops.plain))
    assert (found - same).abs().max() <= 1e-5 * same.abs().max()
    assert (found - plain).abs().max() > 1e-4 * same.abs().max()


@pytest.mark.parametrize("change", ["no_alpha_is_a_scale_of_1", "dora", "loha", "lokr"])
def test_adapters_change_what_the_codes_stand_for_and_leave_the_codes(
    loops: Loops, change: str, tmp_path: Path
) -> None:
    tensors: dict[str, Tensor] = {}
    torch.manual_seed(2)
    for number, (path, layer) in enumerate(layers(loops.plain.loaded.modules["unet"], LORA_LAYERS).items()):
        own, _ = CHANGES[change](layer.get_parameter("weight"), layer, number)
        tensors |= {f"lora_unet_{path.replace('.', '_')}.{end}": one for end, one in own.items()}
    lora = lora_model(tmp_path / "it.safetensors", tensors)
    wanted = request(loops.plain.loaded.model, None, steps=2, width_px=32, height_px=32)

    def latents(loop: Recorder) -> Tensor:
        adapters = AdapterPool().adapters(Asked([(resolved(lora), lora)]), loop.loaded)
        return final_latents(loop.loaded, wanted, adapters)

    held = loops.quantized.loaded.modules["unet"].state_dict()
    before = {name: one.clone() for name, one in held.items()}
    found, same = latents(loops.quantized), latents(loops.rounded)
    assert (found - same).abs().max() <= 1e-5 * same.abs().max()
    assert (found - final_latents(loops.quantized.loaded, wanted)).abs().max() > 1e-3 * same.abs().max()
    after = loops.quantized.loaded.modules["unet"].state_dict()
    assert all(torch.equal(after[name].view(torch.uint8), one.view(torch.uint8)) for name, one in before.items())


def test_a_pause_leaves_the_picture_bit_exact(loops: Loops, tiny: Model, tmp_path: Path) -> None:
    runs = Runs(loops.quantized, tmp_path)
    wanted = request(tiny, sampler="euler_a", steps=5, seeds=(1, 2), width_px=16, height_px=16)
    whole = runs.whole(wanted)
    paused = runs.run(wanted, lambda report: report == stepped(2))
    assert runs.loop.files(runs.run(wanted, kept=runs.kept(paused))) == whole


def test_a_quantized_refiner_follows_a_quantized_base(tmp_path: Path) -> None:
    models = write_tiny_family("sdxl", tmp_path / "sdxl"), refining.write_tiny_refiner(tmp_path / "refiner")
    wanted = refining.asked(models)
    plain = Recorder(models[0])
    quantized = recorder(models[0], INT8)
    quantized.loop.load("brings", models[1], Execution(quantization=INT8))
    quantized.run()

    def latents(loop: Recorder) -> list[bytes]:
        reports = refining.run(loop, models, wanted)
        return [one.data for one in reports if isinstance(one, LatentsReady)]

    found = latents(quantized)
    assert quantized.loop.loaded(models[1].id).execution.quantization == INT8
    assert found == latents(quantized)
    assert found != latents(plain)
    for one in (plain, quantized):
        one.loop.close()


def test_a_loaded_model_is_used_as_it_is_and_refused_in_another_quantization(tiny: Model) -> None:
    loop = recorder(tiny, INT8)
    loop.loop.load("usual", tiny, AS_USUAL)
    loop.loop.load("same", tiny, Execution(quantization=INT8))
    for other in ("none", FP8_E4M3):
        loop.loop.load(other, tiny, Execution(quantization=other))
    loop.loop.submit("job", Given(tiny, request(tiny, steps=1, width_px=16, height_px=16)))
    loop.run()
    assert all(isinstance(loop.last(name), RunFinished) for name in ("usual", "same", "job"))
    for other in ("none", FP8_E4M3):
        refused = loop.last(other)
        assert isinstance(refused, RunFailed)
        assert refused.reason == "ILLEGAL_STATE"
        assert f"quantized as int8, not {other}" in refused.message
    loop.loop.close()
