"""A load can have its denoiser compiled: its jobs make the same pictures, and tell where they were computed as usual."""

import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as read_tensors
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func

from domains.inference.code_folder import CODE_FOLDER
from domains.inference.generation import Determinism
from domains.inference.given import Given
from domains.inference.on_device.compiling import inductor, twins
from domains.inference.outcome import LatentsReady, RunFailed, RunFinished, RunStopped
from domains.inference.regions import Rectangle, ResolvedRegion
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.ways import Ways
from domains.progress import Degraded, Progressed, Stage, StageStarted
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device import compiled_jobs
from tests.domains.inference.on_device.compiled_jobs import COMPILED, asked, gap, latents, timing, told_usual
from tests.domains.inference.on_device.lora_files import of_all_layers, resolved
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.tiny_families import write_tiny_family

CLOSE = 1e-4
"""Largest difference of latents, whose deviation is about 1, after all steps in float32."""
Backend = Callable[[Any, Sequence[Any]], Callable[..., Any]]
Loaded = Callable[..., Recorder]


def traced(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
    """In place of the compiler behind torch's tracer: computes the graph operation by operation."""
    return graph.forward


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Backend], None]:
    """Puts a function in the compiler's place. What is traced, shared, guarded and computed with stays torch's."""
    return lambda quick: monkeypatch.setattr(inductor, "BACKENDS", [quick])


@pytest.fixture
def graphs(backend: Callable[[Backend], None]) -> list[Any]:
    """The graphs that were made, one for each code; the compiler is left out."""
    made: list[Any] = []

    def note(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        made.append(graph)
        return traced(graph, inputs)

    backend(note)
    return made


@pytest.fixture
def loaded(sd2: Model) -> Iterator[Loaded]:
    """Makes a step loop whose model computes in the given ways."""
    made: list[Recorder] = []

    def make(model: Model = sd2, ways: Ways = COMPILED) -> Recorder:
        made.append(Recorder(model, ways=ways))
        return made[-1]

    yield make
    for one in made:
        one.loop.close()


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """All its attention blocks are of one kind: torch traces one of them for each shape."""
    return write_tiny_family("sd2", tmp_path_factory.mktemp("models") / "sd2")


# The latents


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux1", "z_image"])
def test_latents_of_every_family_are_those_without_code(
    name: str, graphs: list[Any], loaded: Loaded, tmp_path: Path
) -> None:
    model = write_tiny_family(name, tmp_path / name)
    wanted = asked(model, seeds=(1, 2), steps=1)
    usual = latents(loaded(model, Ways()), wanted)
    assert not graphs
    loop = loaded(model)
    assert gap(latents(loop, wanted), usual) < CLOSE
    assert told_usual(loop) == []
    assert graphs
    made = len(graphs)
    latents(loop, wanted, "again")
    assert len(graphs) == made, "code is made once"


def test_code_serves_any_number_of_rows_from_two_on(graphs: list[Any], loaded: Loaded, sd2: Model) -> None:
    usual, loop = loaded(ways=Ways()), loaded()
    latents(loop, asked(sd2, seeds=(1,)), "two rows")
    made = len(graphs)
    for job, seeds in {"four": (1, 2), "six": (3, 4, 5)}.items():
        assert gap(latents(loop, asked(sd2, seeds=seeds), job), latents(usual, asked(sd2, seeds=seeds), job)) < CLOSE
    assert len(graphs) == made
    # Jobs that share steps, one of them without guidance.
    mixed = {"guided": asked(sd2, seeds=(7,)), "unguided": asked(sd2, seeds=(8,), guidance_scale=1.0)}
    for one in (loop, usual):
        for job, wanted in mixed.items():
            one.loop.submit(job, Given(sd2, wanted))
        one.run()
    for job in mixed:
        pair = [next(one for one in each.of(job, LatentsReady)) for each in (loop, usual)]
        ours, theirs = (next(iter(read_tensors(one.data).values())) for one in pair if isinstance(one, LatentsReady))
        assert gap(ours, theirs) < CLOSE
    latents(loop, asked(sd2, seeds=(1,), width_px=64), "other size")
    assert len(graphs) > made


@pytest.mark.parametrize("how", [{"offload": "layer"}, {"quantization": "int8"}])
def test_weights_that_come_and_go_or_are_codes_are_those_that_code_computes_with(
    how: dict[str, Any], graphs: list[Any], tmp_path: Path
) -> None:
    model = write_tiny_family("flux1", tmp_path / "flux1")
    wanted = asked(model)
    found: list[Tensor] = []
    for ways in (Ways(), COMPILED):
        loop = Recorder(model, ways=ways)
        del loop.loaded
        loop.loop.unload(model.id)
        loop.loop.load("brings", model, Execution(ways=ways, **how))
        loop.run()
        found += [latents(loop, wanted, model=model), latents(loop, wanted, "again", model)]
        assert told_usual(loop) == []
        loop.loop.close()
    assert graphs
    assert max(gap(one, found[0]) for one in found) < CLOSE


def test_code_computes_attention_by_the_kernel_of_its_load(
    backend: Callable[[Backend], None], loaded: Loaded, sd2: Model
) -> None:
    operations: list[str] = []

    def note(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        operations.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    # The operations below torch's own choice of a kernel, which is made while the code is.
    backend(aot_autograd(fw_compiler=note))
    for kernel in ("flash", "math", "flash"):
        operations.clear()
        latents(loaded(ways=Ways(compile=True, attention_kernel=kernel)), asked(sd2, steps=1))
        assert operations
        assert any("flash_attention" in one for one in operations) is (kernel == "flash")


# Where steps are computed as usual


def test_an_exact_picture_has_the_bits_of_a_model_without_code(graphs: list[Any], loaded: Loaded, sd2: Model) -> None:
    wanted = asked(sd2, determinism=Determinism.EXACT)
    loop = loaded()
    assert torch.equal(latents(loop, wanted), latents(loaded(ways=Ways()), wanted))
    assert not graphs
    assert timing(loop, Stage.COMPILING) is None
    assert "an exact picture" in told_usual(loop)[0]


def test_jobs_that_change_the_layers_compute_as_usual_and_tell(
    graphs: list[Any], loaded: Loaded, sd2: Model, tmp_path: Path
) -> None:
    loop, usual = loaded(sd2), loaded(sd2, Ways())
    lora = of_all_layers(usual.loaded, tmp_path / "changes.safetensors", dora=False)
    whole = Rectangle(left_px=0, top_px=0, width_px=48, height_px=32)
    region = ResolvedRegion(rectangle=whole, prompt="a lighthouse", weight=0.5)
    guided: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
        "lora": ({"loras": (resolved(lora),)}, {"loras": (lora,)}, "LoRAs"),
        "region": ({"regions": (region,)}, {"regions": (None,)}, "prompts of regions"),
    }
    # With code there, too: it knows no hooks.
    latents(loop, asked(sd2), "plain")
    made = len(graphs)
    for job, (changes, given, told) in guided.items():
        wanted = asked(sd2, **changes)
        assert torch.equal(latents(loop, wanted, job, **given), latents(usual, wanted, job, **given))
        assert len(told_usual(loop, job)) == 1
        assert told in told_usual(loop, job)[0]
    latents(loop, asked(sd2), "plain again")
    assert told_usual(loop, "plain again") == []
    assert len(graphs) == made


def test_a_block_that_cannot_be_compiled_computes_as_usual_and_the_job_tells(
    backend: Callable[[Backend], None], loaded: Loaded, sd2: Model
) -> None:
    tries: list[int] = []

    def broken(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        tries.append(1)
        raise RuntimeError("g++ has disappeared")

    backend(broken)
    wanted = asked(sd2)
    loop = loaded()
    assert torch.equal(latents(loop, wanted), latents(loaded(ways=Ways()), wanted))
    (told,) = told_usual(loop)
    assert "cannot be compiled" in told
    assert "g++ has disappeared" in told
    tried = len(tries)
    latents(loop, wanted, "again")
    assert len(tries) == tried, "it is not tried at every step"
    assert len(told_usual(loop, "again")) == 1
    assert [one.reason for one in loop.of("again", Degraded) if isinstance(one, Degraded)] == [
        "NOT_SUPPORTED_ON_DEVICE"
    ]


def test_code_that_lacks_memory_is_not_taken_for_code_that_cannot_be_made(
    backend: Callable[[Backend], None], loaded: Loaded, sd2: Model
) -> None:
    def full(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        return run

    backend(full)
    loop = loaded()
    loop.loop.submit("job", Given(sd2, asked(sd2)))
    loop.run()
    end = loop.last("job")
    assert isinstance(end, RunFailed)
    assert end.reason == "DEVICE_OUT_OF_MEMORY"


# While code is made


class Slow:
    """A compiler that takes until it is told to end."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def __call__(self, graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        self.began.set()
        assert self.may_end.wait(60)
        return traced(graph, inputs)


def test_a_job_whose_code_is_made_shows_life_and_its_steps_count_without_that(
    backend: Callable[[Backend], None], loaded: Loaded, sd2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domains.inference.on_device.load_run._LIFE_S", 0.0)
    slow = Slow()
    backend(slow)
    loop = loaded()
    lives: list[Progressed] = []

    def end(job_id: str, report: Any) -> None:
        if isinstance(report, Progressed) and report.stage is Stage.COMPILING:
            lives.append(report)
            if len(lives) > 3:
                slow.may_end.set()

    loop.on_report = end
    latents(loop, asked(sd2))
    assert len(lives) > 3
    stages = [one.stage for one in loop.of("job", StageStarted) if isinstance(one, StageStarted)]
    begin = stages.index(Stage.DENOISING)
    assert stages[begin : begin + 3] == [Stage.DENOISING, Stage.COMPILING, Stage.DENOISING]
    compiling, denoising = timing(loop, Stage.COMPILING), timing(loop, Stage.DENOISING)
    assert compiling is not None
    assert denoising is not None
    assert compiling.wall_s > denoising.wall_s


@pytest.mark.parametrize("kind", [StopKind.CANCEL, StopKind.PAUSE])
def test_a_job_is_stopped_while_code_is_made_and_the_next_one_waits_for_that(
    kind: StopKind, backend: Callable[[Backend], None], loaded: Loaded, sd2: Model
) -> None:
    slow = Slow()
    backend(slow)
    loop, usual = loaded(), loaded(ways=Ways())
    loop.stop_of = lambda job_id: Stop(kind=kind) if job_id == "job" and slow.began.is_set() else None
    loop.loop.submit("job", Given(sd2, asked(sd2)))
    loop.run()
    assert isinstance(loop.last("job"), RunStopped)
    assert not slow.may_end.is_set(), "the compiler still works"
    # A model without code computes meanwhile.
    wanted = asked(sd2, seeds=(4,))
    expected = latents(usual, wanted)
    loop.loop.submit("next", Given(sd2, wanted))
    threading.Timer(0.2, slow.may_end.set).start()
    loop.run()
    assert isinstance(loop.last("next"), RunFinished)
    (told,) = loop.of("next", LatentsReady)
    assert isinstance(told, LatentsReady)
    assert gap(next(iter(read_tensors(told.data).values())), expected) < CLOSE


def test_code_keeps_no_weights_of_a_model_that_is_unloaded(graphs: list[Any], loaded: Loaded, sd2: Model) -> None:
    loop = loaded()
    latents(loop, asked(sd2, steps=1))
    kept = [weakref.ref(one) for one in loop.loaded.modules["unet"].parameters()]
    del loop.loaded
    loop.loop.unload(sd2.id)
    gc.collect()
    assert graphs
    assert not [one for one in kept if one() is not None]


# What code is made of


def test_a_twin_has_neither_weights_nor_hooks_and_leaves_the_block_as_it_is() -> None:
    class Block(nn.Module):
        def __init__(self, width: int, heads: int = 2) -> None:
            super().__init__()
            self.heads = heads
            self.inner = nn.Linear(width, width)

    block = Block(4)
    calls: list[int] = []
    block.inner.register_forward_hook(lambda module, given, found: calls.append(1))
    block.__dict__["forward"] = calls
    twin = twins.twin_of(block)
    assert [one.device.type for one in twin.parameters()] == ["meta", "meta"]
    assert "forward" not in vars(twin)
    assert vars(block)["forward"] is calls
    twin.inner(torch.empty(1, 4, device="meta"))  # pyright: ignore[reportCallIssue]
    assert not calls
    kinds = [twins.kind_of(one) for one in (block, Block(4), Block(5), Block(4, heads=4), twin)]
    assert kinds[0] == kinds[1] == kinds[4]
    assert len({hash(kind) for kind in kinds}) == 3


# With torch's compiler behind its tracer


@pytest.fixture(scope="module")
def of_torchs_compiler(sd2: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `compiled_jobs` finds in a process of its own, and the files that it leaves."""
    folder = tmp_path_factory.mktemp("compiler")
    home, temporary, code = (folder / name for name in ("home", "temporary", "code"))
    for one in (home, temporary):
        one.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(temporary), CODE_FOLDER: str(code)}
    # Without the optimiser the C++ compiler takes a third of the time. It need not compile a trial for each extension of
    # the processor's instructions either: the code itself shows that it knows them.
    quick = {"TORCHINDUCTOR_DEBUG_COMPILE": "1", "TORCHINDUCTOR_VEC_ISA_OK": "1"}
    told = subprocess.run(
        [sys.executable, "-m", compiled_jobs.__name__, sd2.folder],
        env={**os.environ, **places, **quick},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    left = [str(one) for one in (*code.iterdir(), *home.rglob("*"), *temporary.iterdir())]
    return {**json.loads(told.stdout), "left": left}


# SD3 and FLUX.1 pass it, too; each of their shapes takes the compiler as long again.
@pytest.mark.timeout(400)
def test_code_of_torchs_compiler_makes_the_latents_of_those_without(of_torchs_compiler: dict[str, Any]) -> None:
    assert of_torchs_compiler["usual"] == []
    assert 0 < of_torchs_compiler["gap"] < CLOSE, "without any difference, nothing was compiled"
    assert of_torchs_compiler["compiling_s"] > 1


@pytest.mark.timeout(400)
def test_the_compiler_unpickles_nothing_and_leaves_no_file(of_torchs_compiler: dict[str, Any]) -> None:
    assert of_torchs_compiler["pickles"] == []
    assert of_torchs_compiler["left"] == []
