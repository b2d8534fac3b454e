"""Components whose layers pass through the device: the same pictures, in less memory than the component has."""

import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import nn

from domains.errors import ErrorReason
from domains.inference.fallback import Fallback
from domains.inference.given import Given
from domains.inference.outcome import ModelLoaded, RunFailed, RunFinished, RunStopped
from domains.model.execution import BY_COMPONENT, BY_LAYER, Execution
from domains.model.families import FAMILIES
from domains.model.header_facts import header_facts
from domains.model.layers import layer_of, layer_plans, module_of
from domains.model.model import Model
from domains.model.on_device import load
from domains.model.weights_model import read_file
from tests.domains.inference.on_device.lora_files import of_all_layers, resolved
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.single_files import contents, give_configs, write_single
from tests.domains.inference.on_device.test_in_turns import asked, device, pictures, tick
from tests.domains.inference.on_device.test_simulated import CANCEL, Sim
from tests.domains.inference.on_device.tiny_families import (
    TINY,
    Parts,
    clip,
    clip_projected,
    flux,
    qwen3,
    t5,
    umt5,
    write_parts,
    write_tiny_family,
)
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

pytestmark = pytest.mark.usefixtures("aligned")

DEEP = "flux1 with more layers"
WORDY: Mapping[str, tuple[str, Parts]] = {
    "flux1 with a text encoder larger than all else": (
        "flux1",
        {"text_encoder_2": ("T5EncoderModel", t5(32, inner=2048, layers=9))},
    ),
    "auraflow with more layers of text": ("auraflow", {"text_encoder": ("UMT5EncoderModel", umt5(32, layers=5))}),
    "z_image with more layers of text": ("z_image", {"text_encoder": ("Qwen3Model", qwen3(32, layers=5))}),
    "sdxl with more layers of text": (
        "sdxl",
        {
            "text_encoder": ("CLIPTextModel", clip(16, layers=5)),
            "text_encoder_2": ("CLIPTextModelWithProjection", clip_projected(32, layers=6)),
        },
    ),
}
"""By name: the family, and the text encoder that it has instead of its own."""
LARGEST, *_, CLIPS = WORDY
LEAST = Execution(offload=BY_LAYER)


def write(name: str, folder: Path) -> Model:
    if name not in (DEEP, *WORDY):
        return write_tiny_family(name, folder)
    deep: Parts = {"transformer": ("FluxTransformer2DModel", flux(guidance=True, num_layers=2, num_single_layers=5))}
    family, changed = WORDY.get(name, ("flux1", deep))
    pipeline, parts = TINY[family]
    return write_parts(pipeline, {**parts, **changed}, folder)


@pytest.fixture(params=["sd2", "sdxl", "z_image", DEEP], scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    name: str = request.param
    return write(name, tmp_path_factory.mktemp("families") / "model")


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


def foretold(model: Model, budget: int = 0) -> Mapping[str, int]:
    """Bytes on the device of the components with layers, from the headers of their files; without a budget the least."""
    facts = header_facts(model) or {}
    sizes = {part: one.layers.times(4) for part, one in facts.items() if one.layers is not None}
    return {part: plan.total_bytes for part, plan in layer_plans(sizes, budget).items()}


def modules_of_layers(module: nn.Module, part: str) -> Mapping[str, tuple[int, ...]]:
    """The modules of a component's layers, by path, with what sorts them."""
    names = [name for name, _ in module.named_parameters()]
    return {module_of(name, part): place for name in names if (place := layer_of(name, part)) is not None}


def test_the_pictures_are_the_same_and_the_denoiser_never_holds_more_than_its_budget(model: Model, sim: Sim) -> None:
    before = pictures(sim, asked(model))
    _, denoiser = denoiser_of(sim, model)
    whole = sum(tensor.nbytes for tensor in (*denoiser.parameters(), *denoiser.buffers()))
    sim.loop.unload(model.id)
    stream(sim, model)
    least = bytes_in_turn(sim, model)
    assert least < 0.95 * whole
    assert least == foretold(model)[FAMILIES[model.family].denoiser.id], (
        "the server reads the same plan from the headers"
    )
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
    assert bytes_in_turn(sim, model) == foretold(model)["unet"]
    assert pictures(sim, asked(model), "b") == before


def test_text_encoders_of_a_single_file_are_streamed_too(sim: Sim, tmp_path: Path) -> None:
    folder = Path(write(CLIPS, tmp_path / "folder").folder)
    # OpenCLIP's queries, keys and values are one tensor there.
    file = write_single(tmp_path / "one.safetensors", contents("sdxl", folder))
    give_configs(file, folder)
    model = read_file(file, "one", "one")
    before = pictures(sim, asked(model))
    sim.loop.unload(model.id)
    stream(sim, model)
    assert pictures(sim, asked(model), "b") == before
    assert texts_in_turn(sim, model) < 0.95 * whole_texts(sim, model)
    told = foretold(model)
    assert texts_in_turn(sim, model) == pytest.approx(told["text_encoder"] + told["text_encoder_2"], rel=0.1)


def texts_in_turn(sim: Sim, model: Model) -> int:
    """Bytes of the text encoders on the device while they compute."""
    loaded = sim.loop.loaded(model.id)
    assert loaded.turns is not None
    return sum(map(loaded.turns.size_of, loaded.tokenizers))


def whole_texts(sim: Sim, model: Model) -> int:
    """Bytes of all weights of the text encoders."""
    loaded = sim.loop.loaded(model.id)
    assert loaded.turns is not None
    return sum(map(loaded.turns.whole_bytes, loaded.tokenizers))


@pytest.mark.parametrize("name", WORDY)
def test_text_encoders_never_hold_more_than_their_budget_and_the_pictures_are_the_same(
    name: str, sim: Sim, tmp_path: Path
) -> None:
    model = write(name, tmp_path / "model")
    before = pictures(sim, asked(model))
    texts = list(sim.loop.loaded(model.id).tokenizers)
    sim.loop.unload(model.id)
    stream(sim, model)
    least, whole = texts_in_turn(sim, model), whole_texts(sim, model)
    assert least < 0.95 * whole
    for budget in (0, (least + whole) // 2):
        if budget:
            sim.loop.unload(model.id)
            stream(sim, model, Execution(offload=BY_LAYER, offload_budget_bytes=budget))
        assert texts_in_turn(sim, model) <= max(least, budget)
        assert texts_in_turn(sim, model) == pytest.approx(sum(foretold(model, budget)[one] for one in texts), rel=0.1)
        sim.loop.resources.forget_prompts()
        assert pictures(sim, asked(model), f"budget {budget}") == before


def test_a_tensor_that_a_file_holds_under_two_names_is_forecast_once_as_the_device_holds_it(
    sim: Sim, tmp_path: Path
) -> None:
    model = write("chroma", tmp_path / "model")
    before = foretold(model)["text_encoder"]
    (path,) = (tmp_path / "model/text_encoder").glob("*.safetensors")
    tensors = load_file(path)
    save_file({**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"].clone()}, path)
    again = tiny_model(tmp_path / "model")
    assert foretold(again)["text_encoder"] == before
    stream(sim, again)
    assert texts_in_turn(sim, again) == before


def test_a_text_encoder_larger_than_its_device_is_streamed(tmp_path: Path) -> None:
    model = write(LARGEST, tmp_path / "model")
    sizes = load(model, "cpu").bytes_per_component
    roomy = device(64 * 2**20)
    before = pictures(roomy, asked(model, seeds=(7,)))
    roomy.loop.close()
    sim = device(sizes["text_encoder_2"] * 3 // 5)
    given = Given(model, asked(model, seeds=(7,)).resolved, fallback=Fallback(allow_eviction=False))
    assert pictures(sim, given) == before
    (there,) = [one.loaded for _, one in sim.reports if isinstance(one, ModelLoaded)]
    assert there.offload == BY_LAYER
    sim.loop.close()


@pytest.mark.parametrize("name", TINY)
def test_layers_compute_in_the_order_in_which_they_are_sorted(name: str, sim: Sim, tmp_path: Path) -> None:
    model = write_tiny_family(name, tmp_path / "model")
    sim.loop.load("brings", model, Execution())
    tick(sim)
    loaded = sim.loop.loaded(model.id)
    parts = [FAMILIES[model.family].denoiser.id, *loaded.tokenizers]
    walked: dict[str, list[str]] = {part: [] for part in parts}

    def note(part: str, path: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, arguments: walked[part].append(path)

    paths = {part: modules_of_layers(loaded.modules[part], part) for part in parts}
    for part, every in paths.items():
        for path in every:
            loaded.modules[part].get_submodule(path).register_forward_pre_hook(note(part, path))
    pictures(sim, asked(model, steps=1, seeds=(7,)))
    for part, every in paths.items():
        expected = sorted(every, key=lambda path: every[path])
        assert expected
        assert walked[part][-len(expected) :] == expected


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
    lora = of_all_layers(load(tiny, "cpu"), tmp_path / "style.safetensors", dora=dora)
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
