"""Weights on the CPU are the pages of their files, and stay what they are whatever becomes of the files."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, load
from tests.open_files import open_within

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")

UNET = "unet/diffusion_pytorch_model.safetensors"


def pages_of(path: Path) -> list[range]:
    """Where the file is mapped."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    return [range(*(int(edge, 16) for edge in fields[0].split("-"))) for fields in lines]


def values(loaded: OnDeviceModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in loaded.modules["unet"].state_dict().items()}


def in_place(loaded: OnDeviceModel, path: Path) -> int:
    """Bytes of the UNet that are the file's own pages."""
    pages = pages_of(path)
    tensors = loaded.modules["unet"].state_dict().values()
    return sum(one.nbytes for one in tensors if any(one.data_ptr() in some for some in pages))


def test_weights_that_need_no_change_are_the_pages_of_their_file(tiny: Model) -> None:
    path = Path(tiny.folder) / UNET
    loaded = load(tiny, "cpu")
    assert in_place(loaded, path) == loaded.bytes_per_component["unet"]
    assert in_place(load(tiny, "cpu", "bfloat16"), path) == 0


def test_a_blob_that_a_caller_mapped_is_used_in_place_and_told(tiny: Model) -> None:
    blobs = tuple(replace(stamp, blob_id=stamp.path[:4], generation=3) for stamp in tiny.files)
    loaded = load(replace(tiny, files=blobs), "cpu")
    unet = next(part for part in loaded.value("cpu").components if part.id == "unet")
    assert unet.mapped_bytes == unet.bytes == in_place(loaded, Path(tiny.folder) / UNET)
    assert [(one.blob_id, one.generation) for one in unet.sources] == [("unet", 3)]
    converted = load(replace(tiny, files=blobs), "cpu", "bfloat16").value("cpu")
    assert {part.mapped_bytes for part in converted.components} == {0}


def cut_off(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(5000)


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xff" * size)


def cut_off_by_another_process(path: Path) -> None:
    subprocess.run([sys.executable, "-c", f"import os; os.truncate({str(path)!r}, 5000)"], check=True, timeout=40)


@pytest.mark.parametrize("change", [cut_off, overwrite, cut_off_by_another_process])
def test_weights_stay_when_their_file_changes(tiny: Model, change: Callable[[Path], None]) -> None:
    path = Path(tiny.folder) / UNET
    loaded = load(tiny, "cpu")
    before, at = values(loaded), {name: one.data_ptr() for name, one in loaded.modules["unet"].state_dict().items()}
    assert in_place(loaded, path)
    change(path)
    assert in_place(loaded, path) == 0
    for name, value in loaded.modules["unet"].state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.data_ptr() == at[name]


def test_a_file_that_is_open_for_writing_is_read_instead(tiny: Model) -> None:
    path = Path(tiny.folder) / UNET
    with path.open("r+b"):
        loaded = load(tiny, "cpu")
    assert in_place(loaded, path) == 0
    mapped = values(load(tiny, "cpu"))
    assert all(torch.equal(value, mapped[name]) for name, value in values(loaded).items())


def test_changing_weights_changes_no_file(tiny: Model) -> None:
    path = Path(tiny.folder) / UNET
    before, loaded = path.read_bytes(), load(tiny, "cpu")
    for value in loaded.modules["unet"].parameters():
        value.data.fill_(7)
    assert path.read_bytes() == before


def test_a_model_that_is_dropped_ends_its_leases(tiny: Model) -> None:
    loaded = load(tiny, "cpu")
    assert open_within(tiny.folder)
    for module in loaded.modules.values():
        module.to("meta")
    del loaded
    assert not open_within(tiny.folder)
    assert pages_of(Path(tiny.folder) / UNET) == []
