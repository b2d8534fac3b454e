"""Models that share components, and memory after many loads."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from domains.errors import FailedPrecondition
from domains.inference.on_device import StepLoop
from domains.inference.on_device.hardware import RealHardware
from domains.inference.on_device.resident_models import ResidentModels
from domains.inference.outcome import Report
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.on_device import HostTier, OnDeviceModel
from tests.domains.inference.on_device.recorder import bring
from tests.domains.inference.on_device.tiny_families import TINY, clip, unet, vae, write_parts
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
    assert loop.resources.model_bytes() == {"first": first.size_bytes, "second": unet}


@pytest.mark.parametrize("gone", [0, 1])
def test_unloading_one_keeps_what_the_other_shares(loop: StepLoop, twins: tuple[Model, Model], gone: int) -> None:
    loaded = [bring(loop, model) for model in twins]
    stays, vae = twins[1 - gone], ref(loaded[0].modules["vae"])
    unet, whole = loaded[0].bytes_per_component["unet"], loaded[0].size_bytes
    del loaded
    assert loop.unload(twins[gone].id) == unet
    assert loop.resources.model_bytes() == {stays.id: whole}
    assert next(loop.loaded(stays.id).modules["vae"].parameters()).device.type == "cpu"
    assert loop.unload(stays.id) == whole
    assert vae() is None


def test_a_shared_component_whose_file_has_changed_is_refused(loop: StepLoop, twins: tuple[Model, Model]) -> None:
    bring(loop, twins[0])
    path = Path(twins[1].folder) / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    with pytest.raises(FailedPrecondition):
        bring(loop, twins[1])
    assert list(loop.resources.model_bytes()) == [twins[0].id]


def test_a_component_in_another_precision_is_another_one(loop: StepLoop, twins: tuple[Model, Model]) -> None:
    first, second = bring(loop, twins[0]), bring(loop, twins[1], "bfloat16")
    assert second.modules["vae"] is not first.modules["vae"]


def shallow(folder: Path) -> Model:
    """A model of 2 MB in few modules, whose number is what a load takes."""
    level: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
        "block_out_channels": (40,),
    }
    name, parts = TINY["sd2"]
    few = {
        "text_encoder": ("CLIPTextModel", clip(32, layers=1)),
        "unet": ("UNet2DConditionModel", unet(cross_attention_dim=32, attention_head_dim=2, **level)),
        "vae": (
            "AutoencoderKL",
            vae(
                4,
                block_out_channels=(16,),
                down_block_types=("DownEncoderBlock2D",),
                up_block_types=("UpDecoderBlock2D",),
            ),
        ),
    }
    return write_parts(name, {**parts, **few}, folder)


def test_a_hundred_loads_and_unloads_leave_the_memory_as_it_was(loop: StepLoop, tmp_path: Path) -> None:
    process, tiny = psutil.Process(), shallow(tmp_path / "shallow")

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


def test_a_model_that_comes_back_from_the_host_tier_has_its_weights(twins: tuple[Model, Model]) -> None:
    """The tier keeps empty modules; they are not taken for those of a loaded model."""
    tier = HostTier(lambda: 0)
    models = ResidentModels(torch.device("cpu"), RealHardware(torch.device("cpu")), tier)

    def brought(model: Model) -> OnDeviceModel:
        load = models.bring("a", model, Execution())
        while load.there is None:
            load.advance("a")
        models.leave("a", load)
        return load.there[0]

    first, second = twins
    values = {name: value.clone() for name, value in brought(first).modules["unet"].state_dict().items()}
    for _ in range(2):
        models.unload(first.id)
        placed = brought(first).modules["unet"].state_dict()
        assert all(torch.equal(placed[name], value) for name, value in values.items())
    shares = brought(second)
    models.unload(first.id)  # its text encoder and VAE stay with the other
    assert not any(value.is_meta for module in shares.modules.values() for value in module.parameters())
    assert brought(first).modules["vae"] is shares.modules["vae"]
    for model_id in models.ids():
        models.unload(model_id)
    tier.clear()
