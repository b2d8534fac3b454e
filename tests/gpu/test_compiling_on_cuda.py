"""Compiled denoisers on a CUDA device: latents as without code, by the kernel of the load, with weights that move."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load as read_tensors
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from domains.inference.given import Given
from domains.inference.outcome import LatentsReady, RunFinished, RunStopped
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.ways import Ways
from domains.progress import Degraded, Stage, StageStarted
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import BRINGS, Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_families import write_tiny_family

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("no_tf32")]

FAMILIES = ("sd2", "sdxl", "sd3", "flux1", "chroma", "auraflow", "z_image")
CLOSE = 1e-3
"""Largest difference of latents in float32, of their deviation: sums are added in another order."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    made: dict[str, Model] = {}

    def write(name: str) -> Model:
        if name not in made:
            made[name] = write_tiny_family(name, tmp_path_factory.mktemp("families") / name)
        return made[name]

    return write


def latents(loop: Recorder, model: Model, job: str = "job", **changes: Any) -> Tensor:
    plain: dict[str, Any] = {"sampler": "euler", "steps": 3, "return_latents": True, "width_px": 64, "height_px": 64}
    loop.loop.submit(job, Given(model, request(model, **{**plain, **changes})))
    loop.run()
    assert isinstance(loop.last(job), RunFinished), loop.last(job)
    told = [one for one in loop.of(job, LatentsReady) if isinstance(one, LatentsReady)]
    return torch.cat([next(iter(read_tensors(one.data).values())) for one in told]).float()


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference, of the deviation: random weights of AuraFlow make latents of hundreds."""
    return float((one - other).abs().max() / other.std())


def usual_told(loop: Recorder, job: str = "job") -> list[str]:
    return [one.detail for one in loop.of(job, Degraded) if isinstance(one, Degraded)]


def compiled_in(loop: Recorder, job: str) -> bool:
    return any(isinstance(one, StageStarted) and one.stage is Stage.COMPILING for one in loop.reports[job])


def ended(loop: Recorder) -> None:
    del loop.loaded
    loop.loop.close()


@pytest.mark.parametrize("name", FAMILIES)
def test_latents_are_those_without_code_for_any_number_of_rows(name: str, family: Callable[[str], Model]) -> None:
    model, found = family(name), list[Tensor]()
    for ways in (Ways(), Ways(compile=True)):
        loop = Recorder(model, "cuda", "float32", ways)
        found.append(
            torch.cat([latents(loop, model, "two", seeds=(1, 2)), latents(loop, model, "three", seeds=(3, 4, 5))])
        )
        assert usual_told(loop, "two") == []
        assert compiled_in(loop, "two") == bool(ways.compile)
        assert not compiled_in(loop, "three")
        ended(loop)
    assert 0 < gap(found[1], found[0]) < CLOSE


@pytest.mark.parametrize(
    ("kernel", "operation"), [("flash", "flash_attention"), ("memory_efficient", "efficient_attention")]
)
@pytest.mark.parametrize("first", ["flash", "math"])
def test_code_computes_attention_by_the_kernel_of_its_load(
    kernel: str, operation: str, first: str, family: Callable[[str], Model]
) -> None:
    model = family("flux1")
    # Code of another load must not be taken.
    other = Recorder(model, "cuda", "float16", Ways(compile=True, attention_kernel=first))
    latents(other, model)
    ended(other)
    loop = Recorder(model, "cuda", "float16", Ways(compile=True, attention_kernel=kernel))
    latents(loop, model)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        latents(loop, model, "again")
    ended(loop)
    attentions = {
        event.key for event in seen.key_averages() if "_attention" in event.key and "_scaled_dot" in event.key
    }
    assert any(operation in one for one in attentions), attentions
    # Some of the tiny text encoders and VAE have heads that a kernel does not take: told, and no matter of the code.
    assert not [one for one in loop.of("again", Degraded) if isinstance(one, Degraded) and one.kind == "compile"]


@pytest.mark.parametrize("offload", ["component", "layer"])
def test_weights_that_move_are_those_that_code_computes_with(offload: str, family: Callable[[str], Model]) -> None:
    for name in ("sd2", "flux1"):
        model, found = family(name), list[Tensor]()
        for ways in (Ways(), Ways(compile=True)):
            loop = Recorder(model, "cuda", "float32", ways)
            del loop.loaded
            loop.loop.unload(model.id)
            loop.loop.load(BRINGS, model, Execution(precision="float32", ways=ways, offload=offload))
            loop.run()
            found += [latents(loop, model), latents(loop, model, "again")]
            assert usual_told(loop) == []
            loop.loop.close()
        assert max(gap(one, found[0]) for one in found) < CLOSE


@pytest.mark.parametrize("quantization", ["int8", "fp8_e4m3"])
def test_codes_are_widened_in_the_code(quantization: str, family: Callable[[str], Model]) -> None:
    model, found = family("flux1"), list[Tensor]()
    for ways in (Ways(), Ways(compile=True)):
        loop = Recorder(model, "cuda", "float32", ways)
        del loop.loaded
        loop.loop.unload(model.id)
        loop.loop.load(BRINGS, model, Execution(precision="float32", ways=ways, quantization=quantization))
        loop.run()
        found.append(latents(loop, model))
        assert usual_told(loop) == []
        loop.loop.close()
    assert gap(found[1], found[0]) < CLOSE


def test_code_keeps_no_device_memory_of_a_model_that_is_unloaded(family: Callable[[str], Model]) -> None:
    model, held = family("flux1"), list[int]()
    for _ in range(3):
        loop = Recorder(model, "cuda", "float32", Ways(compile=True))
        latents(loop, model)
        ended(loop)
        del loop
        gc.collect()
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    # Libraries keep some from their first use on.
    assert held[2] <= held[1]


def test_a_job_is_cancelled_while_its_code_is_made(family: Callable[[str], Model]) -> None:
    model = family("sd3")
    loop = Recorder(model, "cuda", "float32", Ways(compile=True))
    asked: list[float] = []
    loop.on_report = lambda job_id, report: (
        asked.append(0.0) if isinstance(report, StageStarted) and report.stage is Stage.COMPILING else None
    )
    loop.stop_of = lambda job_id: Stop(kind=StopKind.CANCEL) if asked and job_id == "job" else None
    loop.loop.submit("job", Given(model, request(model, sampler="euler", steps=3, width_px=64, height_px=64)))
    loop.run()
    end = loop.last("job")
    assert isinstance(end, RunStopped)
    assert end.latency_s < 2
    latents(loop, model, "next")
    assert usual_told(loop, "next") == []
    ended(loop)
