"""The engine on a CUDA device. Run with `-m gpu`."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from domains.inference.fallback import Fallback
from domains.inference.generation import Previews
from domains.inference.given import Given
from domains.inference.on_device.batches import Batches, Forward
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.family import StepRows, regardless
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.in_turns import InTurns
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import begin, walk_together
from domains.inference.outcome import RunFailed, RunFinished, RunStopped
from domains.model.execution import BY_COMPONENT, BY_LAYER, Execution
from domains.model.layers import layer_of
from domains.model.model import Model
from domains.model.on_device import load
from domains.model.weight_quantization import QUANTIZATIONS
from domains.progress import Degraded, PreviewReady
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import COMPARED, final_latents, reference_latents, reference_pipeline
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.inference.on_device.tiny_model import write_tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("no_tf32")]

WAYS = COMPARED


@pytest.fixture
def tiny(tmp_path: Path) -> Model:
    return write_tiny_model(tmp_path / "tiny")


@pytest.mark.parametrize(("sampler", "schedule"), WAYS)
def test_final_latents_equal_those_of_diffusers(sampler: str, schedule: str) -> None:
    asked = request(embedded_model(), sampler=sampler, sigma_schedule=schedule, steps=8, negative_prompt="red")
    theirs = reference_latents(reference_pipeline(embedded_model()).to("cuda"), asked)
    ours = final_latents(load(embedded_model(), "cuda", "float32"), asked)
    assert (ours - theirs).abs().max().item() <= 1e-3


@pytest.mark.parametrize(("sampler", "schedule"), WAYS)
def test_nothing_in_a_step_waits_for_the_device(sampler: str, schedule: str) -> None:
    loaded = load(embedded_model(), "cuda")
    family = family_of(loaded)
    asked = request(embedded_model(), sampler=sampler, sigma_schedule=schedule, steps=6, seeds=(1, 2))
    with torch.inference_mode():
        conditions = condition(loaded, family, asked, PromptCache()).conditions
        trajectory = begin(family, asked, loaded.scheduler_config, conditions, loaded.device)
        walk_together([trajectory])  # the first step may set up libraries
        torch.cuda.set_sync_debug_mode("error")
        try:
            while not trajectory.done:
                walk_together([trajectory])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert trajectory.latents.isfinite().all()


def test_jobs_finish_with_previews_device_time_and_peak() -> None:
    recorder = Recorder(embedded_model(), "cuda")
    for name in ("a", "b"):
        asked = request(embedded_model(), steps=12, seeds=(1, 2), previews=Previews(every_steps=4))
        recorder.loop.submit(name, Given(recorder.loaded.model, asked))
    recorder.run()
    for name in ("a", "b"):
        end = recorder.last(name)
        assert isinstance(end, RunFinished)
        assert end.receipt.steps_executed == 12
        assert (end.receipt.peak_device_bytes or 0) > recorder.loaded.size_bytes
        timings = {timing.stage.value: timing.device_s for timing in end.receipt.timings}
        assert (timings["denoising"] or 0) > 0
        assert (timings["decoding"] or 0) > 0
        assert recorder.of(name, PreviewReady)
    assert recorder.files("a") == recorder.files("b")
    recorder.loop.close()


def test_cancelling_gives_memory_back_and_unloading_the_rest(tiny: Model) -> None:
    held = [_cancelled_and_unloaded(tiny) for _ in range(2)]
    assert held[0] == held[1]  # the first round pays for the libraries' workspaces


def _cancelled_and_unloaded(tiny: Model) -> int:
    """Bytes that stay allocated after a cancelled job and its model are gone."""
    recorder = Recorder(tiny, "cuda")
    recorder.loop.submit("a", Given(recorder.loaded.model, request(tiny, steps=500, seeds=(1, 2))))
    for _ in range(6):
        recorder.loop.tick()
    recorder.loop.stop("a", Stop(kind=StopKind.CANCEL))
    recorder.run()
    end = recorder.last("a")
    assert isinstance(end, RunStopped)
    assert (end.freed_bytes or 0) > 0
    size = recorder.loaded.size_bytes
    del recorder.loaded
    assert (recorder.loop.unload(tiny.id) or 0) >= size
    recorder.loop.close()
    return torch.cuda.memory_allocated()


def test_a_picture_too_large_is_out_of_device_memory_and_the_next_job_works(tiny: Model) -> None:
    recorder = Recorder(tiny, "cuda")
    recorder.loop.submit(
        "large", Given(recorder.loaded.model, request(tiny, steps=1, width_px=1 << 16, height_px=1 << 16))
    )
    recorder.run()
    end = recorder.last("large")
    assert isinstance(end, RunFailed)
    assert end.reason == "DEVICE_OUT_OF_MEMORY"
    recorder.loop.submit("next", Given(recorder.loaded.model, request(tiny, steps=2)))
    recorder.run()
    assert isinstance(recorder.last("next"), RunFinished)
    recorder.loop.close()


def test_components_that_take_turns_make_the_same_picture_in_less_memory() -> None:
    model = embedded_model()
    recorder = Recorder(model, "cuda")
    sizes = recorder.loaded.bytes_per_component
    asked = Given(model, request(model, steps=3))
    recorder.loop.submit("whole", asked)
    recorder.run()
    recorder.loaded = None  # pyright: ignore[reportAttributeAccessIssue]  # it would keep the weights
    recorder.loop.unload(model.id)
    before = torch.cuda.memory_allocated()
    recorder.loop.load("load", model, Execution(offload=BY_COMPONENT))
    recorder.run()
    assert isinstance(recorder.last("load"), RunFinished)
    assert torch.cuda.memory_allocated() == before
    torch.cuda.reset_peak_memory_stats()
    recorder.loop.submit("turns", asked)
    recorder.run()
    assert isinstance(recorder.last("turns"), RunFinished)
    assert recorder.files("turns") == recorder.files("whole")
    recorder.loop.resources.forget_prompts()
    assert torch.cuda.memory_allocated() - before < min(sizes.values())
    recorder.loop.close()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_quantized_denoiser_makes_the_same_picture_however_much_of_it_is_on_the_device(quantization: str) -> None:
    model = embedded_model()
    found: list[list[bytes]] = []
    for offload in ("none", BY_COMPONENT, BY_LAYER):
        recorder = Recorder(model, "cuda")
        if not found:
            recorder.loop.submit("wide", Given(model, request(model, steps=3)))
            recorder.run()
            found.append(recorder.files("wide"))
        recorder.loaded = None  # pyright: ignore[reportAttributeAccessIssue]  # it would keep the weights
        recorder.loop.unload(model.id)
        recorder.loop.load("load", model, Execution(quantization=quantization, offload=offload))
        recorder.loop.submit("a", Given(model, request(model, steps=3)))
        recorder.run()
        assert isinstance(recorder.last("a"), RunFinished), recorder.last("a")
        found.append(recorder.files("a"))
        recorder.loop.close()
    wide, whole, *others = found
    assert whole != wide
    assert all(one == whole for one in others)


def largest_layer(unet: torch.nn.Module) -> int:
    """Bytes of the largest layer. In a function of its own: a tensor that is kept here keeps its whole component."""
    layers: dict[object, int] = {}
    for name, tensor in unet.named_parameters():
        layers[layer_of(name)] = layers.get(layer_of(name), 0) + tensor.nbytes
    return max(size for layer, size in layers.items() if layer is not None)


@pytest.mark.parametrize("budget", [0, 12 * 2**20])
def test_a_denoiser_whose_layers_pass_through_the_device_makes_the_same_picture_in_its_budget(budget: int) -> None:
    model = embedded_model()
    recorder = Recorder(model, "cuda")
    asked = Given(model, request(model, steps=3))
    recorder.loop.submit("whole", asked)
    recorder.run()
    recorder.loaded = None  # pyright: ignore[reportAttributeAccessIssue]  # it would keep the weights
    recorder.loop.unload(model.id)
    before = torch.cuda.memory_allocated()
    recorder.loop.load("load", model, Execution(offload=BY_LAYER, offload_budget_bytes=budget))
    recorder.run()
    assert isinstance(recorder.last("load"), RunFinished)
    assert torch.cuda.memory_allocated() == before
    turns = recorder.loop.loaded(model.id).turns
    assert turns is not None
    turns.bring(["unet"])
    there = torch.cuda.memory_allocated() - before
    largest = largest_layer(recorder.loop.loaded(model.id).modules["unet"])
    # Beside the plan: what waits on the device for its place, and tensors of the file that become others.
    assert turns.size_of("unet") <= there <= turns.size_of("unet") + 8 * largest
    assert turns.size_of("unet") < turns.whole_bytes("unet")
    recorder.loop.submit("layers", asked)
    recorder.run()
    assert isinstance(recorder.last("layers"), RunFinished)
    assert recorder.files("layers") == recorder.files("whole")
    recorder.loop.resources.forget_prompts()
    assert torch.cuda.memory_allocated() - before < 2**20
    recorder.loop.close()


@pytest.mark.parametrize("times", [1, 2])
def test_a_step_without_memory_goes_on_with_more_of_the_model_in_host_memory(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = embedded_model()
    recorder = Recorder(model, "cuda")
    asked = Given(model, request(model, steps=4), fallback=Fallback(allow_smaller_batch=False))
    recorder.loop.submit("whole", asked)
    recorder.run()
    calls, whole = 0, Batches.__call__

    def short_of_memory(self: Batches, jobs: Sequence[StepRows], forward: Forward) -> list[torch.Tensor]:
        nonlocal calls
        calls += 1
        if 2 < calls <= 2 + times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, jobs, forward)

    monkeypatch.setattr(Batches, "__call__", short_of_memory)
    recorder.loop.submit("offloaded", asked)
    recorder.run()
    assert isinstance(recorder.last("offloaded"), RunFinished)
    assert recorder.files("offloaded") == recorder.files("whole")
    assert [one.kind for one in recorder.of("offloaded", Degraded) if isinstance(one, Degraded)] == ["offload"] * times
    assert recorder.loop.loaded(model.id).execution.offload == (BY_COMPONENT, BY_LAYER)[times - 1]
    assert calls == 4 + times
    recorder.loop.close()


def test_layers_that_pass_through_the_device_make_no_step_wait_for_it() -> None:
    loaded = load(embedded_model(), "cuda", execution=Execution(offload=BY_LAYER))
    assert loaded.turns is not None
    family = InTurns(loaded, loaded.turns, family_of, lambda size: None, regardless)
    asked = request(embedded_model(), steps=6, seeds=(1, 2))
    with torch.inference_mode():
        conditions = condition(loaded, family, asked, PromptCache()).conditions
        trajectory = begin(family, asked, loaded.scheduler_config, conditions, loaded.device)
        walk_together([trajectory])
        torch.cuda.set_sync_debug_mode("error")
        try:
            while not trajectory.done:
                walk_together([trajectory])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert trajectory.latents.isfinite().all()
    loaded.turns.close()
