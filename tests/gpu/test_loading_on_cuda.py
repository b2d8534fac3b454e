"""Loading onto a CUDA device. Run with `-m gpu`."""

import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from domains.inference.given import Given
from domains.inference.outcome import ModelLoaded, RunFinished, RunStopped
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.on_device import load, loading
from domains.model.on_device.cuda_reading import CudaCopies, _streams  # pyright: ignore[reportPrivateUsage]
from domains.model.on_device.file_map import CudaDriver
from domains.model.weight_quantization import QUANTIZATIONS
from domains.progress import Stage, StageStarted
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import Recorder, bring
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}
CANCEL = Stop(kind=StopKind.CANCEL, cause="not wanted")


@pytest.fixture
def tiny(tmp_path: Path) -> Model:
    return write_tiny_model(tmp_path / "tiny")


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver refuses to register, as old kernels and network disks do."""

    def refused(self: CudaDriver, address: int, size: int) -> bool:
        return False

    monkeypatch.setattr(CudaDriver, "register", refused)


@pytest.mark.parametrize("refused", [False, True], ids=["registered", "refused"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_weights_on_the_device_are_those_of_the_file(
    tiny: Model, precision: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refused:
        refuse(monkeypatch)
    loaded = load(tiny, "cuda", precision)
    for name, file in FILES.items():
        placed = loaded.modules[name].state_dict()
        for key, value in load_file(Path(tiny.folder) / file).items():
            # A VAE that leaves float16's range stays in float32.
            assert torch.equal(placed[key].cpu(), value.to(getattr(torch, loaded.precision_of(name)))), key
            assert placed[key].device.type == "cuda"


@pytest.mark.parametrize("refused", [False, True], ids=["registered", "refused"])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_codes_on_the_device_are_those_of_the_host(
    tiny: Model, quantization: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refused:
        refuse(monkeypatch)
    how = Execution(precision="bfloat16", quantization=quantization)
    there, here = (load(tiny, device, execution=how) for device in ("cuda", "cpu"))
    placed = there.modules["unet"].state_dict()
    for name, value in here.modules["unet"].state_dict().items():
        assert placed[name].dtype is value.dtype
        assert torch.equal(placed[name].cpu().float(), value.float()), name
    assert there.bytes_per_component == here.bytes_per_component


def test_pieces_take_no_memory_that_steps_beside_have_freed_meanwhile() -> None:
    copies = CudaCopies(torch.device("cuda:0"), 2**20)
    copies.begin()
    taken = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(3):
        copies.bring(torch.ones(2**20, dtype=torch.uint8))
        with copies.copying():
            pass
    copies.settle()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == taken


def test_a_model_that_is_there_holds_its_weights_and_nothing_of_its_load(tiny: Model) -> None:
    before = torch.cuda.memory_allocated()
    recorder = Recorder(tiny, "cuda")
    held = torch.cuda.memory_allocated() - before
    # What brought it were buffers of 128 MiB.
    assert held - recorder.loaded.size_bytes < 2**20
    recorder.loop.close()


@pytest.mark.parametrize("stored", ["float64", "float16", "float8_e4m3fn"])
def test_other_floats_are_converted_on_the_device_as_on_the_host(tiny: Model, stored: str) -> None:
    path = Path(tiny.folder) / FILES["unet"]
    save_file({name: value.to(getattr(torch, stored)) for name, value in load_file(path).items()}, path)
    placed = load(tiny_model(Path(tiny.folder)), "cuda", "bfloat16").modules["unet"].state_dict()
    for name, value in load_file(path).items():
        assert torch.equal(placed[name].cpu(), value.float().to(torch.bfloat16)), name


def test_a_cancelled_load_gives_its_memory_back(tiny: Model) -> None:
    load(tiny, "cuda")
    for after in (1, 6, 9):
        gc.collect()
        before = torch.cuda.memory_allocated()
        steps = loading(tiny, "cuda")
        for _ in range(after):
            next(steps, None)
        steps.close()
        gc.collect()
        assert torch.cuda.memory_allocated() == before


def test_a_load_cancelled_beside_others_is_proven_and_the_next_one_works(tiny: Model, tmp_path: Path) -> None:
    recorder = Recorder(tiny, "cuda")
    other = write_tiny_model(tmp_path / "other")
    recorder.loop.load("a", other)  # A tick may load all of so small a model.
    assert recorder.loop.stop("a", CANCEL)
    recorder.run()
    end = recorder.last("a")
    assert isinstance(end, RunStopped)
    assert end.stage in (Stage.LOADING, Stage.QUEUED)
    assert bring(recorder.loop, other).size_bytes > 0
    recorder.loop.close()


def test_a_job_computes_while_its_model_comes_and_makes_the_same_picture(tiny: Model) -> None:
    recorder = Recorder(tiny, "cuda")
    # First the job whose model is there: the first kernels of a process are loaded meanwhile, for which the driver waits.
    for name in ("there", "coming"):
        if name == "coming":
            recorder.loop.unload(tiny.id)
            with torch.cuda.stream(_streams(torch.device("cuda"))[1]):
                torch.cuda._sleep(1_000_000_000)  # pyright: ignore[reportPrivateUsage]  # half a second before the first copy
        recorder.loop.submit(name, Given(tiny, request(tiny, steps=3)))
        while not [one for one in recorder.of(name, StageStarted) if one == StageStarted(stage=Stage.DENOISING)]:
            recorder.loop.tick()
        if name == "coming":
            assert not recorder.of(name, ModelLoaded)
        recorder.run()
        assert isinstance(recorder.last(name), RunFinished)
    assert recorder.of("coming", ModelLoaded)
    assert recorder.files("coming") == recorder.files("there")
    recorder.loop.close()


def test_a_model_that_comes_back_from_host_memory_has_the_weights_of_its_files(tiny: Model) -> None:
    recorder = Recorder(tiny, "cuda")
    first = {name: value.cpu() for name, value in recorder.loaded.modules["unet"].state_dict().items()}
    assert recorder.loop.resources.pinned_bytes() > 0
    recorder.loop.unload(tiny.id)
    again = bring(recorder.loop, tiny)
    assert again.modules["unet"] is recorder.loaded.modules["unet"]
    for name, value in again.modules["unet"].state_dict().items():
        assert torch.equal(value.cpu(), first[name]), name
    recorder.loop.resources.forget_host_copies()
    assert recorder.loop.resources.pinned_bytes() == 0
    recorder.loop.close()


def test_a_hundred_loads_and_unloads_leave_the_memory_as_it_was(tiny: Model) -> None:
    recorder = Recorder(tiny, "cuda")
    del recorder.loaded
    recorder.loop.unload(tiny.id)
    gc.collect()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(100):
        bring(recorder.loop, tiny)
        recorder.loop.unload(tiny.id)
    gc.collect()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
    recorder.loop.close()
