"""Denoisers whose layers pass through the device: the same pictures, in less memory than the denoiser has."""

import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from domains.errors import ErrorReason
from domains.inference.fallback import Fallback
from domains.inference.given import Given
from domains.inference.outcome import ModelLoaded, RunFailed, RunFinished, RunStopped
from domains.model.execution import BY_COMPONENT, BY_LAYER, Execution
from domains.model.families import FAMILIES
from domains.model.layer_sizes import LayerSizes
from domains.model.layers import layer_of, layer_plan, module_of
from domains.model.model import Model
from domains.model.on_device import load
from domains.model.weights_model import read_file
from tests.domains.inference.on_device.lora_files import UNET, kohya, layers, lora_model, matrices, resolved
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.single_files import contents, give_configs, write_single
from tests.domains.inference.on_device.test_in_turns import asked, device, pictures, tick
from tests.domains.inference.on_device.test_simulated import CANCEL, Sim
from tests.domains.inference.on_device.tiny_families import TINY, WITHOUT, flux, write_parts, write_tiny_family
from tests.domains.inference.on_device.tiny_model import write_tiny_model

DEEP = "flux1 with more layers"
LEAST = Execution(offload=BY_LAYER)


def write(name: str, folder: Path) -> Model:
    if name != DEEP:
        return write_tiny_family(name, folder)
    pipeline, parts = TINY["flux1"]
    denoiser = ("FluxTransformer2DModel", flux(guidance=True, num_layers=2, num_single_layers=5))
    return write_parts(pipeline, {**parts, "transformer": denoiser}, folder, WITHOUT.get("flux1", ()))


@pytest.fixture(params=["sd2", "sdxl", "z_image", DEEP], scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    name: str = request.param
    return write(name, tmp_path_factory.mktemp("families") / "model")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy all weights: a library's sums differ in their last bit where a mapped file aligns a tensor otherwise."""

    def nothing(file: object) -> None: ...

    monkeypatch.setattr("domains.model.on_device.weights.mapped", nothing)


@pytest.fixture
def sim() -> Iterator[Sim]:
    made = device(64 * 2**20)
    yield made
    made.loop.close()


def stream(sim: Sim, model: Model, execution: Execution = LEAST) -> None:
    sim.loop.load("brings", model, execution)
    tick(sim)
    assert isinstance(sim.reports[-1][1], RunFinished), sim.reports[-1]


def denoiser_of(sim: Sim, model: Model) -> tuple[str, nn.Module]:
    part = FAMILIES[model.family].denoiser.id
    return part, sim.loop.loaded(model.id).modules[part]


def bytes_in_turn(sim: Sim, model: Model) -> int:
    """Bytes of the denoiser on the device while it computes."""
    turns = sim.loop.loaded(model.id).turns
    assert turns is not None
    return turns.size_of(FAMILIES[model.family].denoiser.id)


def foretold(model: Model) -> int:
    """The least bytes of the denoiser on the device, from the headers of its files."""
    counts = LayerSizes().counts(model, FAMILIES[model.family].denoiser.id)
    return layer_plan({name: 4 * count for name, count in counts.items()}, 0).total_bytes


def modules_of_layers(module: nn.Module) -> Mapping[str, tuple[int, ...]]:
    """The modules of a denoiser's layers, by path, with what sorts them."""
    names = [name for name, _ in module.named_parameters()]
    return {module_of(name): place for name in names if (place := layer_of(name)) is not None}


def test_the_pictures_are_the_same_and_the_denoiser_never_holds_more_than_its_budget(model: Model, sim: Sim) -> None:
    before = pictures(sim, asked(model))
    _, denoiser = denoiser_of(sim, model)
    whole = sum(tensor.nbytes for tensor in (*denoiser.parameters(), *denoiser.buffers()))
    sim.loop.unload(model.id)
    stream(sim, model)
    least = bytes_in_turn(sim, model)
    assert least < 0.95 * whole
    assert least == foretold(model), "the server reads the same plan from the headers"
    assert sim.loop.resources.model_bytes() == {model.id: 0}
    held: set[int] = set()
    sim.on_report = lambda job_id, told: held.add(sim.loop.resources.model_bytes()[model.id])
    assert pictures(sim, asked(model), "b") == before
    assert least in held, "the denoiser computes in what the plan says"
    assert sim.loop.resources.model_bytes() == {model.id: 0}
    _, denoiser = denoiser_of(sim, model)
    assert all(tensor.is_meta for tensor in denoiser.parameters())

    sim.loop.unload(model.id)
    budget = (least + whole) // 2
    stream(sim, model, Execution(offload=BY_LAYER, offload_budget_bytes=budget))
    assert bytes_in_turn(sim, model) <= budget
    assert pictures(sim, asked(model), "c") == before


def test_layers_of_a_single_file_are_streamed_too(tiny: Model, sim: Sim, tmp_path: Path) -> None:
    file = write_single(tmp_path / "one.safetensors", contents("sd1", Path(tiny.folder)))
    give_configs(file, Path(tiny.folder))
    model = read_file(file, "one", "one")
    before = pictures(sim, asked(model))
    sim.loop.unload(model.id)
    stream(sim, model)
    assert bytes_in_turn(sim, model) == foretold(model)
    assert pictures(sim, asked(model), "b") == before


@pytest.mark.parametrize("name", TINY)
def test_layers_compute_in_the_order_in_which_they_are_sorted(name: str, sim: Sim, tmp_path: Path) -> None:
    model = write_tiny_family(name, tmp_path / "model")
    sim.loop.load("brings", model, Execution())
    tick(sim)
    _, denoiser = denoiser_of(sim, model)
    paths = modules_of_layers(denoiser)
    walked: list[str] = []

    def note(path: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, arguments: walked.append(path)

    for path in paths:
        denoiser.get_submodule(path).register_forward_pre_hook(note(path))
    pictures(sim, asked(model, steps=1, seeds=(7,)))
    expected = sorted(paths, key=lambda path: paths[path])
    assert walked[-len(expected) :] == expected


def test_a_denoiser_larger_than_its_device_is_streamed_if_the_job_permits_that(tiny: Model) -> None:
    sizes = load(tiny, "cpu").bytes_per_component
    largest, second = sorted(sizes.values(), reverse=True)[:2]
    assert largest == sizes["unet"]
    room = (largest + second) // 2
    fallback = Fallback(allow_eviction=False)
    given = Given(tiny, request(tiny, steps=1, width_px=16, height_px=16), fallback=fallback)
    sim = device(room)
    assert len(pictures(sim, given)) == 1
    told = sim.reports[-1][1].receipt.degradations  # pyright: ignore[reportAttributeAccessIssue]
    assert [one.kind for one in told] == ["offload", "offload"], "components in turn do not suffice"
    (there,) = [one.loaded for _, one in sim.reports if isinstance(one, ModelLoaded)]
    assert (there.offload, there.resident_bytes) == (BY_LAYER, 0)
    assert bytes_in_turn(sim, tiny) <= there.offload_budget_bytes <= room
    sim.loop.close()

    sim = device(room)
    forbidden = Fallback(allow_eviction=False, allow_offload=False)
    sim.loop.submit("a", Given(tiny, given.resolved, fallback=forbidden))
    tick(sim)
    refused = sim.reports[-1][1]
    assert isinstance(refused, RunFailed)
    assert refused.reason == ErrorReason.DEVICE_OUT_OF_MEMORY
    sim.loop.close()


def test_a_job_that_is_cancelled_between_two_layers_gives_its_memory_back(tiny: Model, sim: Sim) -> None:
    stream(sim, tiny)
    before = pictures(sim, asked(tiny), "whole")
    sim.loop.resources.forget_prompts()
    room = sim.hardware.room()
    computed: list[int] = []
    _, denoiser = denoiser_of(sim, tiny)
    middle = denoiser.get_submodule("mid_block.resnets.0")

    def note(*_: Any) -> None:
        computed.append(bytes_in_turn(sim, tiny))

    hook = middle.register_forward_pre_hook(note)
    sim.stop_of = lambda job_id: CANCEL if computed else None
    sim.loop.submit("a", asked(tiny, steps=20))
    tick(sim)
    stopped = sim.reports[-1][1]
    assert isinstance(stopped, RunStopped)
    assert len(computed) == 1, "it is left within its first step"
    assert sim.loop.resources.model_bytes() == {tiny.id: 0}
    sim.loop.resources.forget_prompts()
    assert sim.hardware.room() == room
    hook.remove()
    sim.stop_of = lambda job_id: None
    assert pictures(sim, asked(tiny), "again") == before


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_change_layers_that_are_streamed(tiny: Model, sim: Sim, tmp_path: Path, dora: bool) -> None:
    tensors: dict[str, torch.Tensor] = {}
    torch.manual_seed(5)
    for path, layer in layers(load(tiny, "cpu").modules["unet"], UNET).items():
        name = kohya("unet", path)
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = matrices(layer, 2)
        if dora:
            weight = layer.get_parameter("weight")
            tensors[f"{name}.dora_scale"] = torch.rand(len(weight)).view(-1, *[1] * (weight.dim() - 1)) + 0.5
    lora = lora_model(tmp_path / "style.safetensors", tensors)
    given = Given(tiny, request(tiny, steps=2, loras=(resolved(lora),)), loras=(lora,))
    before = pictures(sim, given)
    assert before != pictures(sim, Given(tiny, request(tiny, steps=2)), "without")
    sim.loop.unload(tiny.id)
    stream(sim, tiny)
    assert pictures(sim, given, "b") == before


def test_a_file_that_changes_between_two_steps_ends_the_job(tmp_path: Path, sim: Sim) -> None:
    model = write_tiny_model(tmp_path / "changing")
    stream(sim, model)
    path = next(Path(model.folder).glob("unet/*.safetensors"))
    _, denoiser = denoiser_of(sim, model)
    steps: list[int] = []

    def change(*_: Any) -> None:
        steps.append(0)
        if len(steps) == 2:
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)

    denoiser.get_submodule("mid_block.resnets.0").register_forward_pre_hook(change)
    sim.loop.submit("a", asked(model, steps=4, seeds=(7,)))
    tick(sim)
    refused = sim.reports[-1][1]
    assert isinstance(refused, RunFailed)
    assert refused.reason == ErrorReason.ILLEGAL_STATE
    assert sim.loop.resources.model_bytes() == {model.id: 0}


def test_unloading_leaves_no_open_file_and_no_memory(tiny: Model, sim: Sim) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, room = opened(), sim.hardware.room()
    stream(sim, tiny)
    pictures(sim, asked(tiny))
    sim.loop.unload(tiny.id)
    sim.loop.resources.forget_prompts()
    gc.collect()
    assert (opened(), sim.hardware.room()) == (before, room)


@pytest.mark.parametrize("other", ["none", BY_COMPONENT, "another budget"])
def test_a_model_that_is_loaded_in_another_way_is_named(tiny: Model, sim: Sim, other: str) -> None:
    stream(sim, tiny)
    again = (
        Execution(offload=BY_LAYER, offload_budget_bytes=10**6)
        if other == "another budget"
        else Execution(offload=other)
    )
    sim.loop.load("second", tiny, again)
    tick(sim)
    refused = sim.reports[-1][1]
    assert isinstance(refused, RunFailed)
    assert refused.reason == ErrorReason.ILLEGAL_STATE
    assert "layers" in refused.message
