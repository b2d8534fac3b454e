"""Models whose components take turns on the device: the same pictures, with less of the device's memory."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from domains.device.simulated.script import SimDevice
from domains.errors import ErrorReason
from domains.inference.fallback import Fallback
from domains.inference.generation import Previews
from domains.inference.given import Given
from domains.inference.on_device import StepLoop
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.outcome import ImageReady, ModelLoaded, RunFailed, RunFinished, RunStopped
from domains.model.execution import BY_COMPONENT, BY_LAYER, Execution
from domains.model.model import Model
from domains.model.on_device import load
from domains.progress import PreviewReady, Progressed, Stage
from domains.stop import Stop
from tests.domains.inference.on_device.lora_files import of_all_layers, resolved
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_simulated import CANCEL, RUNTIME, Sim
from tests.domains.inference.on_device.tiny_families import TINY, write_tiny_family
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

IN_TURNS = Execution(offload=BY_COMPONENT)
SIZE = {"width_px": 48, "height_px": 32}


@pytest.fixture(params=list(TINY), scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    name: str = request.param
    return write_tiny_family(name, tmp_path_factory.mktemp("families") / name)


@pytest.fixture
def sim() -> Iterator[Sim]:
    made = device(64 * 2**20)
    yield made
    made.loop.close()


def device(room: int) -> Sim:
    """A simulated device with so much room for models and jobs."""
    return Sim(SimDevice(id="sim-0", memory_bytes=RUNTIME + room, runtime_bytes=RUNTIME, speed=1.0, faults=()))


def load_in_turns(sim: Sim, model: Model) -> None:
    sim.loop.load("brings", model, IN_TURNS)
    tick(sim)
    assert isinstance(sim.reports[-1][1], RunFinished), sim.reports[-1]


def tick(sim: Sim) -> None:
    while sim.loop.tick():
        pass


def asked(model: Model, **changes: Any) -> Given:
    plain: dict[str, Any] = {"sampler": model.default_sampler, "steps": 2, "seeds": (7, 8), **SIZE}
    return Given(model, request(model, **{**plain, **changes}))


def pictures(sim: Sim, given: Given, job_id: str = "a") -> list[bytes]:
    sim.loop.submit(job_id, given)
    tick(sim)
    assert isinstance(sim.reports[-1][1], RunFinished), sim.reports[-1]
    return [told.data for name, told in sim.reports if name == job_id and isinstance(told, ImageReady)]


def test_every_family_makes_the_same_pictures_and_never_holds_two_components_that_do_not_compute_together(
    model: Model, sim: Sim
) -> None:
    before = pictures(sim, asked(model))
    sim.loop.unload(model.id)
    sizes = load(model, "cpu").bytes_per_component
    load_in_turns(sim, model)
    assert sim.loop.resources.model_bytes() == {model.id: 0}
    held: list[set[str]] = []
    turns = sim.loop.loaded(model.id).turns
    assert turns is not None
    sim.on_report = lambda job_id, told: held.append(set(turns.here))
    assert pictures(sim, asked(model), "b") == before
    texts = {part for part in sizes if part.startswith("text_encoder")}
    assert all(here <= texts or len(here) == 1 for here in held), held
    assert {"vae"} in held
    assert sim.loop.resources.model_bytes() == {model.id: 0}
    assert all(tensor.is_meta for part in sim.loop.loaded(model.id).modules.values() for tensor in part.parameters())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def largest(tiny: Model) -> int:
    """Bytes of the largest component."""
    return max(load(tiny, "cpu").bytes_per_component.values())


def test_a_job_whose_model_is_larger_than_the_device_has_its_components_take_turns_if_it_permits_that(
    tiny: Model, largest: int
) -> None:
    whole = sum(load(tiny, "cpu").bytes_per_component.values())
    room = (largest + whole) // 2
    given = Given(tiny, request(tiny, steps=1, width_px=16, height_px=16), fallback=Fallback(allow_eviction=False))
    sim = device(room)
    assert len(pictures(sim, given)) == 1
    (told,) = sim.reports[-1][1].receipt.degradations  # pyright: ignore[reportAttributeAccessIssue]
    assert (told.kind, told.reason) == ("offload", "DEVICE_OUT_OF_MEMORY")
    (there,) = [one.loaded for _, one in sim.reports if isinstance(one, ModelLoaded)]
    assert there.offload == BY_COMPONENT
    sim.loop.close()

    sim = device(room)
    sim.loop.submit("a", Given(tiny, given.resolved, fallback=Fallback(allow_eviction=False, allow_offload=False)))
    tick(sim)
    refused = sim.reports[-1][1]
    assert isinstance(refused, RunFailed)
    assert refused.reason == ErrorReason.DEVICE_OUT_OF_MEMORY
    assert refused.facts["would_help"] == "options.fallback.allow_offload, options.fallback.allow_lower_precision"
    sim.loop.close()


def test_previews_and_two_jobs_at_once_take_turns_too(tiny: Model, sim: Sim) -> None:
    def given(seed: int) -> Given:
        return Given(tiny, request(tiny, steps=3, seeds=(seed,), previews=Previews(every_steps=1)))

    before = [pictures(sim, given(seed), f"whole {seed}") for seed in (1, 2)]
    previews = {name: told.data for name, told in sim.reports if isinstance(told, PreviewReady)}
    sim.loop.unload(tiny.id)
    load_in_turns(sim, tiny)
    for seed in (1, 2):
        sim.loop.submit(f"turns {seed}", given(seed))
    tick(sim)
    found = {name: told.data for name, told in sim.reports if isinstance(told, ImageReady)}
    assert [[found["turns 1"]], [found["turns 2"]]] == before
    again = {name: told.data for name, told in sim.reports if isinstance(told, PreviewReady)}
    assert [again[f"turns {seed}"] for seed in (1, 2)] == [previews[f"whole {seed}"] for seed in (1, 2)]


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_change_components_that_take_turns(tiny: Model, sim: Sim, tmp_path: Path, dora: bool) -> None:
    lora = of_all_layers(load(tiny, "cpu"), tmp_path / "style.safetensors", dora=dora)
    given = Given(tiny, request(tiny, steps=2, loras=(resolved(lora),)), loras=(lora,))
    before = pictures(sim, given)
    assert before != pictures(sim, Given(tiny, request(tiny, steps=2)), "without")
    sim.loop.unload(tiny.id)
    load_in_turns(sim, tiny)
    assert pictures(sim, given, "b") == before


def test_a_file_that_has_changed_between_two_turns_is_refused_and_the_model_can_be_loaded_again(
    tmp_path: Path, sim: Sim
) -> None:
    model = write_tiny_model(tmp_path / "changing")
    load_in_turns(sim, model)
    path = Path(model.folder) / "vae/diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    sim.loop.submit("a", Given(model, request(model, steps=1)))
    tick(sim)
    refused = sim.reports[-1][1]
    assert isinstance(refused, RunFailed)
    assert refused.reason == ErrorReason.ILLEGAL_STATE
    sim.loop.unload(model.id)
    save_file(load_file(path), path)
    again = tiny_model(Path(model.folder))
    load_in_turns(sim, again)
    assert pictures(sim, Given(again, request(again, steps=1)), "b")


def as_beside_the_device(*_: object, **__: object) -> KeepOn:
    """Where a device computes beside the thread, nothing else within a unit looks."""
    return regardless


@pytest.mark.parametrize("way", [BY_COMPONENT, BY_LAYER])
def test_components_that_come_back_show_signs_of_life_and_can_be_stopped_whatever_the_device(
    tiny: Model, sim: Sim, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("domains.inference.on_device.load_run._LIFE_S", 0.0)
    given = asked(tiny, seeds=(7,))
    before = pictures(sim, given, "whole")
    sim.loop.unload(tiny.id)
    monkeypatch.setattr(StepLoop, "_keep_on", as_beside_the_device)
    sim.loop.load("brings", tiny, Execution(offload=way))
    tick(sim)
    assert pictures(sim, given, "a") == before
    told = [one.stage for name, one in sim.reports if name == "a" and isinstance(one, Progressed)]
    once = {Stage.CONDITIONING: 0, Stage.DENOISING: 3, Stage.DECODING: 1}
    assert all(told.count(stage) > times + 1 for stage, times in once.items()), told

    for number, stage in enumerate(once):

        def stop_of(job_id: str, stage: Stage = stage) -> Stop | None:
            last = next((one for name, one in reversed(sim.reports) if name == job_id), None)
            return CANCEL if isinstance(last, Progressed) and last.stage is stage else None

        sim.stop_of = stop_of
        sim.loop.submit(f"stopped {number}", given)
        tick(sim)
        assert isinstance(sim.reports[-1][1], RunStopped), stage
    sim.stop_of = lambda job_id: None
    assert pictures(sim, given, "again") == before


def test_unloading_leaves_no_open_file_and_no_memory(tiny: Model, sim: Sim) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    load_in_turns(sim, tiny)
    assert opened() > before
    sim.loop.unload(tiny.id)
    gc.collect()
    assert opened() == before
    assert sim.hardware.room() == sim.device.memory_bytes - RUNTIME - sim.loop.resources.prompt_bytes()


@pytest.mark.parametrize("asked_for", [BY_COMPONENT, "none"])
def test_a_model_that_is_loaded_in_the_other_way_is_named(tiny: Model, sim: Sim, asked_for: str) -> None:
    there = "none" if asked_for == BY_COMPONENT else BY_COMPONENT
    sim.loop.load("first", tiny, Execution(offload=there))
    tick(sim)
    sim.loop.load("second", tiny, Execution(offload=asked_for))
    tick(sim)
    refused = sim.reports[-1][1]
    assert isinstance(refused, RunFailed)
    assert refused.reason == ErrorReason.ILLEGAL_STATE
    assert "turns" in refused.message or "as a whole" in refused.message
