"""A device that is out of memory while a job computes: its models are loaded again with more of them in host memory."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from domains.device.simulated.faults import OutOfMemory
from domains.device.simulated.script import SimDevice
from domains.errors import ErrorReason
from domains.inference.fallback import Fallback
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.batches import Batches, Forward
from domains.inference.on_device.families.family import StepRows
from domains.inference.outcome import (
    CheckpointReady,
    ImageReady,
    LatentsReady,
    ModelLoaded,
    ModelUnloaded,
    RunFailed,
    RunFinished,
    RunStopped,
)
from domains.model.execution import BY_COMPONENT, BY_LAYER, Execution
from domains.model.model import Model
from domains.model.on_device import load
from domains.progress import Degraded, Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.from_picture import from_picture, gradient
from tests.domains.inference.on_device.lora_files import UNET, kohya, layers, lora_model, matrices, resolved
from tests.domains.inference.on_device.recorder import bring
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_hires import hires
from tests.domains.inference.on_device.test_in_turns import pictures, tick
from tests.domains.inference.on_device.test_ladder import FULL, pixels
from tests.domains.inference.on_device.test_refiner import asked as refined
from tests.domains.inference.on_device.test_simulated import ROOM, RUNTIME, Sim
from tests.domains.inference.on_device.tiny_families import write_tiny_family
from tests.domains.inference.on_device.tiny_refiner import write_tiny_refiner

pytestmark = pytest.mark.usefixtures("aligned")

PERMITS = Fallback(allow_smaller_batch=False)


@pytest.fixture
def sims() -> Iterator[list[Sim]]:
    made: list[Sim] = []
    yield made
    for sim in made:
        sim.loop.close()


def device(sims: list[Sim], *faults: Any, memory: int = ROOM) -> Sim:
    sims.append(Sim(SimDevice(id="sim-0", memory_bytes=memory, runtime_bytes=RUNTIME, speed=1.0, faults=faults)))
    return sims[-1]


def given(model: Model, fallback: Fallback = PERMITS, **changes: Any) -> Given:
    plain: dict[str, Any] = {"steps": 4, "seeds": (7, 8), "width_px": 48, "height_px": 32}
    return Given(model, request(model, **{**plain, **changes}), fallback=fallback)


def ways(sim: Sim) -> list[str]:
    """How models came onto the device, in order."""
    return [told.loaded.offload for _, told in sim.reports if isinstance(told, ModelLoaded)]


def given_up(sim: Sim, job_id: str = "a") -> list[str]:
    """What a job gave up, which its receipt and its reports say alike."""
    told = [one for name, one in sim.reports if name == job_id and isinstance(one, Degraded)]
    end = [one for name, one in sim.reports if name == job_id][-1]
    assert isinstance(end, RunFinished | RunFailed)
    assert list(end.receipt.degradations) == told
    return [one.kind for one in told]


def steps_told(sim: Sim, job_id: str = "a") -> list[int]:
    """Completed steps, as they were reported."""
    every = [one for name, one in sim.reports if name == job_id and isinstance(one, Progressed)]
    return [one.completed for one in every if one.stage is Stage.DENOISING]


WALKS: Mapping[str, Mapping[str, Any]] = {
    "of one line a step": {"sampler": "ddim"},
    "with a history and noise": {"sampler": "dpmpp_2m_sde"},
    "of two lines a step": {"sampler": "heun"},
}


@pytest.mark.parametrize("walk", WALKS)
def test_a_step_without_memory_is_done_again_with_the_model_offloaded_and_no_step_twice(
    sims: list[Sim], tiny: Model, walk: str
) -> None:
    asked = given(tiny, **WALKS[walk])
    before = pictures(device(sims), asked)
    sim = device(sims, OutOfMemory(at_step=3, times=1))
    assert pictures(sim, asked) == before
    assert given_up(sim) == ["offload"]
    assert ways(sim) == ["", BY_COMPONENT]
    assert sim.loop.loaded(tiny.id).execution.precision == "float32"
    end = sim.reports[-1][1]
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 4
    # The place is told again when the run goes on there.
    assert steps_told(sim) == [0, 1, 2, 2, 3, 4]


def test_each_further_step_without_memory_halves_what_the_denoiser_has_until_its_layers_allow_no_less(
    sims: list[Sim], tiny: Model
) -> None:
    asked = given(tiny, Fallback(allow_smaller_batch=False, max_attempts=10), steps=8)
    before = pictures(device(sims), asked)
    sim = device(sims, *(OutOfMemory(at_step=step, times=1) for step in (2, 3, 4)))
    held: list[int] = []

    def note(job_id: str, told: object) -> None:
        if isinstance(told, ModelLoaded) and (turns := sim.loop.loaded(tiny.id).turns) is not None:
            held.append(turns.size_of("unet"))

    sim.on_report = note
    assert pictures(sim, asked) == before
    assert given_up(sim) == ["offload"] * 3
    assert ways(sim) == ["", BY_COMPONENT, BY_LAYER, BY_LAYER]
    whole, half, quarter = held
    assert half <= whole // 2
    assert quarter <= half // 2 or not could_hold_less(sim, tiny)

    sim = device(sims, OutOfMemory(at_step=2, times=0))
    sim.loop.submit("a", asked)
    tick(sim)
    end = sim.reports[-1][1]
    assert isinstance(end, RunFailed)
    assert end.facts["would_help"] == "options.fallback.allow_smaller_batch", "no more can be offloaded"
    assert not could_hold_less(sim, tiny)


def could_hold_less(sim: Sim, model: Model) -> bool:
    turns = sim.loop.loaded(model.id).turns
    assert turns is not None
    return turns.could_hold_less("unet")


def test_a_job_whose_tensors_have_no_room_beside_the_whole_model_goes_on(sims: list[Sim], tiny: Model) -> None:
    asked = given(tiny, Fallback(allow_eviction=False, allow_smaller_batch=False))
    roomy = device(sims)
    before = pictures(roomy, asked)
    sim = device(sims, memory=RUNTIME + roomy.loop.peak_bytes - 1)
    assert pictures(sim, asked) == before
    assert given_up(sim) == ["offload"]


@pytest.mark.parametrize("stage", [Stage.CONDITIONING, Stage.ENCODING_INPUT, Stage.DECODING])
def test_other_stages_go_on_too(sims: list[Sim], tiny: Model, stage: Stage, tmp_path: Path) -> None:
    asked = given(tiny, Fallback(allow_tiling=False))
    if stage is Stage.ENCODING_INPUT:
        path = tmp_path / "gradient"
        path.write_bytes(gradient(48, 32).numpy().tobytes())
        file = KeptFile(path=str(path), sha256=sha256(path.read_bytes()).hexdigest())
        changed = request(tiny, steps=4, seeds=(7, 8), width_px=48, height_px=32, init_image=from_picture(0.5))
        asked = Given(tiny, changed, picture=file, fallback=PERMITS)
    before = pictures(device(sims), asked)
    sim = device(sims, OutOfMemory(stage=stage, times=1))  # pyright: ignore[reportArgumentType]
    assert pictures(sim, asked) == before
    assert given_up(sim) == ["offload"]
    assert ways(sim) == ["", BY_COMPONENT]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("component", "deep"),
    [("text_encoder", "final_layer_norm"), ("unet", "conv_out"), ("vae", "decoder.conv_out")],
)
def test_weights_that_leave_are_gone_before_the_model_is_loaded_again(
    sims: list[Sim], tiny: Model, component: str, deep: str, jobs: int
) -> None:
    """What was at work when memory ran out would keep them: the device would have no more room than before."""
    sim = device(sims)
    place = bring(sim.loop, tiny).modules[component].get_submodule(deep)
    assert isinstance(place.weight, nn.Parameter)
    weights, alive = ref(place.weight), list[bool]()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(FULL)

    def note(job_id: str, told: object) -> None:
        if isinstance(told, ModelUnloaded):
            alive.append(weights() is not None)

    place.register_forward_pre_hook(full)
    del place
    sim.on_report = note
    for seed in range(jobs):
        sim.loop.submit(
            f"job {seed}", given(tiny, Fallback(allow_smaller_batch=False, allow_tiling=False), seeds=(seed,))
        )
    tick(sim)
    assert alive == [False]
    assert given_up(sim, "job 0") == ["offload"]


def submit_three(sim: Sim, model: Model) -> dict[str, bytes]:
    """The files of three jobs that may share forwards."""
    bring(sim.loop, model)
    for seed in (1, 2, 3):
        sim.loop.submit(f"job {seed}", given(model, seeds=(seed,)))
    tick(sim)
    return {name: told.data for name, told in sim.reports if isinstance(told, ImageReady)}


def went_on(sim: Sim, files: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    """Check that all jobs were told, did each step once, and made their pictures, but for shared forwards' rounding."""
    assert [given_up(sim, f"job {seed}") for seed in (1, 2, 3)] == [["offload"]] * 3
    ends = [told for name, told in sim.reports if isinstance(told, RunFinished) and name.startswith("job")]
    assert [end.receipt.steps_executed for end in ends] == [4, 4, 4]
    assert files.keys() == expected.keys()
    for name, file in files.items():
        assert np.abs(pixels(file) - pixels(expected[name])).max() <= 1


def test_jobs_that_share_the_model_go_on_with_it_and_are_told(sims: list[Sim], tiny: Model) -> None:
    expected = submit_three(device(sims), tiny)
    sim = device(sims, OutOfMemory(at_step=3, times=1))
    went_on(sim, submit_three(sim, tiny), expected)


def test_jobs_whose_shared_forward_fails_go_on_when_one_of_them_fails_alone(
    sims: list[Sim], tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = submit_three(device(sims), tiny)
    compute, failed = Batches.__call__, list[int]()

    def call(self: Batches, jobs: Sequence[StepRows], forward: Forward) -> list[Tensor]:
        # The shared forward first, then that of the first of its jobs.
        if (not failed and len(jobs) > 1) or (len(failed) == 1 and len(jobs) == 1):
            failed.append(len(jobs))
            raise torch.OutOfMemoryError(FULL)
        return compute(self, jobs, forward)

    sim = device(sims)
    monkeypatch.setattr(Batches, "__call__", call)
    files = submit_three(sim, tiny)
    assert failed[0] > 1
    went_on(sim, files, expected)


def test_a_job_that_forbids_it_keeps_the_model_of_those_beside_as_it_is(sims: list[Sim], tiny: Model) -> None:
    sim = device(sims, OutOfMemory(at_step=2, times=1))
    bring(sim.loop, tiny)
    sim.loop.submit("hit", given(tiny, seeds=(1,)))
    sim.loop.submit("forbids", given(tiny, Fallback(allow_offload=False), seeds=(2,)))
    tick(sim)
    ends = {name: told for name, told in sim.reports if isinstance(told, RunFinished | RunFailed)}
    hit = ends["hit"]
    assert isinstance(hit, RunFailed)
    assert hit.reason == ErrorReason.DEVICE_OUT_OF_MEMORY
    assert isinstance(ends["forbids"], RunFinished)
    assert set(ways(sim)) == {""}


def test_a_request_that_forbids_it_fails_with_what_would_have_helped_and_keeps_its_progress(
    sims: list[Sim], tiny: Model
) -> None:
    sim = device(sims, OutOfMemory(at_step=3, times=1))
    sim.loop.submit("a", given(tiny, Fallback(allow_smaller_batch=False, allow_offload=False)))
    tick(sim)
    end = sim.reports[-1][1]
    assert isinstance(end, RunFailed)
    assert end.facts["would_help"] == "options.fallback.allow_smaller_batch, options.fallback.allow_offload"
    (kept,) = [told for _, told in sim.reports if isinstance(told, CheckpointReady)]
    assert kept.step == 2


def test_a_model_that_was_asked_for_as_a_whole_stays_so(sims: list[Sim], tiny: Model) -> None:
    sim = device(sims, OutOfMemory(at_step=2, times=1))
    sim.loop.load("brings", tiny, Execution(offload="none"))
    tick(sim)
    sim.loop.submit("a", given(tiny))
    tick(sim)
    assert isinstance(sim.reports[-1][1], RunFailed)
    assert sim.loop.loaded(tiny.id).execution.offload == "none"


def test_a_model_comes_back_in_the_precisions_in_which_it_was_loaded(sims: list[Sim], tiny: Model) -> None:
    how = Execution(precision="bfloat16", vae_precision="float32")

    def made(sim: Sim) -> list[bytes]:
        sim.loop.load("brings", tiny, how)
        tick(sim)
        return pictures(sim, given(tiny))

    before = made(device(sims))
    sim = device(sims, OutOfMemory(at_step=2, times=1))
    assert made(sim) == before
    assert given_up(sim) == ["offload"]


def test_a_pause_while_the_model_comes_back_keeps_the_progress(sims: list[Sim], tiny: Model) -> None:
    sim = device(sims, OutOfMemory(at_step=3, times=1))
    pause = Stop(kind=StopKind.PAUSE, cause="wanted")

    def stop(job_id: str, told: object) -> None:
        if isinstance(told, Degraded):
            sim.loop.stop("a", pause)

    sim.on_report = stop
    sim.loop.submit("a", given(tiny))
    tick(sim)
    assert isinstance(sim.reports[-1][1], RunStopped)
    (kept,) = [told for _, told in sim.reports if isinstance(told, CheckpointReady)]
    assert kept.step == 2


def test_loras_and_forwards_of_one_row_go_on_as_they_were(sims: list[Sim], tiny: Model, tmp_path: Path) -> None:
    tensors: dict[str, Any] = {}
    for path, layer in layers(load(tiny, "cpu").modules["unet"], UNET).items():
        name = kohya("unet", path)
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = matrices(layer, 2)
    lora = lora_model(tmp_path / "style.safetensors", tensors)
    asked = Given(tiny, request(tiny, steps=4, seeds=(7,), loras=(resolved(lora),)), loras=(lora,), fallback=Fallback())
    first = OutOfMemory(at_step=2, times=1)
    before = device(sims, first)
    files = pictures(before, asked)
    assert given_up(before) == ["smaller_batch"]
    sim = device(sims, first, OutOfMemory(at_step=3, times=1))
    assert pictures(sim, asked) == files
    assert given_up(sim) == ["smaller_batch", "offload"]


def test_a_second_pass_goes_on_and_the_first_is_not_computed_again(sims: list[Sim], tiny: Model) -> None:
    second = hires(strength=1.0, steps=3)
    asked = given(tiny, steps=1, width_px=32, height_px=16, hires_pass=second, return_latents=True)
    before = device(sims)
    files = pictures(before, asked)
    sim = device(sims, OutOfMemory(at_step=2, times=1))
    assert pictures(sim, asked) == files
    assert latents(sim) == latents(before)
    assert given_up(sim) == ["offload"]
    assert steps_of(sim) == steps_of(before)


def test_a_refiner_without_memory_has_both_models_take_turns(sims: list[Sim], tmp_path: Path) -> None:
    models = write_tiny_family("sdxl", tmp_path / "sdxl"), write_tiny_refiner(tmp_path / "refiner")
    wanted = refined(models, start=0.2)
    asked = Given(models[0], wanted, later=models[1:], fallback=PERMITS)
    before = device(sims)
    files = pictures(before, asked)
    sim = device(sims, OutOfMemory(at_step=3, times=1))
    assert pictures(sim, asked) == files
    assert latents(sim) == latents(before)
    assert given_up(sim) == ["offload"]
    assert ways(sim) == ["", "", BY_COMPONENT, BY_COMPONENT]
    assert steps_of(sim) == steps_of(before)


def latents(sim: Sim) -> list[bytes]:
    return [told.data for _, told in sim.reports if isinstance(told, LatentsReady)]


def steps_of(sim: Sim) -> int:
    end = sim.reports[-1][1]
    assert isinstance(end, RunFinished)
    return end.receipt.steps_executed
