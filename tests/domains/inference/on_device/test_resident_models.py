"""Models that share components, and memory after many loads."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from weakref import ref

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from domains.inference.on_device import StepLoop
from domains.inference.outcome import Report
from domains.model.model import Model
from tests.domains.inference.on_device.recorder import bring
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def loop() -> Iterator[StepLoop]:
    def ignore(job_id: str, report: Report) -> None:
        pass

    steps = StepLoop("cpu", ignore)
    yield steps
    steps.close()


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Model, Model]:
    """Two checkpoints that differ in their UNet alone."""
    first = write_tiny_model(tmp_path / "first")
    shutil.copytree(first.folder, tmp_path / "second")
    path = tmp_path / "second" / UNET
    save_file(
        {name: value.clone() for name, value in (load_file(path) | {"conv_out.bias": torch.ones(4)}).items()}, path
    )
    return first, tiny_model(tmp_path / "second")


def test_two_checkpoints_hold_a_common_component_once(loop: StepLoop, twins: tuple[Model, Model]) -> None:
    first, second = (bring(loop, model) for model in twins)
    assert second.modules["vae"] is first.modules["vae"]
    assert second.modules["text_encoder"] is first.modules["text_encoder"]
    assert second.modules["unet"] is not first.modules["unet"]
    unet = first.bytes_per_component["unet"]
    assert loop.model_bytes() == {"first": first.size_bytes, "second": unet}


@pytest.mark.parametrize("gone", [0, 1])
def test_unloading_one_keeps_what_the_other_shares(loop: StepLoop, twins: tuple[Model, Model], gone: int) -> None:
    loaded = [bring(loop, model) for model in twins]
    stays, vae = twins[1 - gone], ref(loaded[0].modules["vae"])
    unet, whole = loaded[0].bytes_per_component["unet"], loaded[0].size_bytes
    del loaded
    assert loop.unload(twins[gone].id) == unet
    assert loop.model_bytes() == {stays.id: whole}
    assert next(loop.loaded(stays.id).modules["vae"].parameters()).device.type == "cpu"
    assert loop.unload(stays.id) == whole
    assert vae() is None


def test_a_component_in_another_precision_is_another_one(loop: StepLoop, twins: tuple[Model, Model]) -> None:
    first, second = bring(loop, twins[0]), bring(loop, twins[1], "bfloat16")
    assert second.modules["vae"] is not first.modules["vae"]


def test_a_hundred_loads_and_unloads_leave_the_memory_as_it_was(loop: StepLoop, tiny: Model) -> None:
    process = psutil.Process()

    def cycle() -> None:
        bring(loop, tiny)
        loop.unload(tiny.id)

    for _ in range(20):
        cycle()
    gc.collect()
    objects, resident, files = len(gc.get_objects()), process.memory_info().rss, process.num_fds()
    for _ in range(100):
        cycle()
    gc.collect()
    assert process.num_fds() == files
    assert len(gc.get_objects()) - objects < 200
    # 2 MB a model: a leak of one in ten would show.
    assert process.memory_info().rss - resident < 20e6
