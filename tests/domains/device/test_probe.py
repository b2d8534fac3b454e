"""What a worker finds out about its device, by trying."""

import platform
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from domains.device.device import Backend
from domains.device.on_device import cuda_driver
from domains.device.on_device import probe as on_device
from domains.device.on_device.features import allocation_alignment, can_compile, features
from domains.device.on_device.probe import (
    _directml,  # pyright: ignore[reportPrivateUsage]  # no DirectML needed
    _identity,  # pyright: ignore[reportPrivateUsage]  # no GPU needed
    probe,
)
from tests.domains.device.fake_dxcore import REMOVED, FakeDxCore, gpu

UUID = "1a2b3c4d-0000-1111-2222-333344445555"


def test_the_processor_is_described_by_what_is_really_there() -> None:
    device = probe("cpu")
    assert device.compute_units == psutil.cpu_count(logical=False)
    assert device.architecture.lower() in (platform.machine().lower(), "x86_64", "aarch64")
    assert 0 < (device.total_memory_bytes or 0) <= psutil.virtual_memory().total
    assert "float32" in device.precisions
    assert (device.driver_name, device.pci_bus_id, device.uuid) == ("", "", "")
    assert abs(device.probe_time_s - time.time()) < 10


def test_a_precision_whose_products_come_out_wrong_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all((one.supported, one.detail) == (True, "") or one.detail for one in probe("cpu").precision_support)
    monkeypatch.setattr(torch, "allclose", lambda *values, **limits: False)  # pyright: ignore[reportUnknownLambdaType]
    wrong = probe("cpu")
    assert wrong.precisions == ()
    assert {one.detail for one in wrong.precision_support} == {"a small matrix product came out wrong"}


def test_memory_of_the_processor_lies_at_multiples_of_the_alignment() -> None:
    alignment = allocation_alignment(torch.device("cpu"))
    assert alignment
    assert alignment & (alignment - 1) == 0
    assert all(torch.empty(size, dtype=torch.uint8).data_ptr() % alignment == 0 for size in range(1, 100))


def test_a_processor_pins_nothing() -> None:
    assert "pinned_memory" not in set(features(torch.device("cpu")))


def test_a_gpu_is_named_by_torch_where_torch_can() -> None:
    facts = SimpleNamespace(uuid=UUID, pci_domain_id=0, pci_bus_id=0x65, pci_device_id=0)
    assert _identity(facts, 0) == (UUID, "0000:65:00.0")


def test_an_older_torch_leaves_the_naming_to_the_driver() -> None:
    assert _identity(SimpleNamespace(), 0) == cuda_driver.identity(0)


def test_the_system_says_what_directml_does_not_of_the_adapter_of_the_same_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = FakeDxCore(gpu("A", speed=2, low=1), gpu("B", speed=1, low=2))
    monkeypatch.setattr(on_device, "directml_adapters", lambda: ("B", "C"))
    monkeypatch.setattr(on_device, "open_dxcore", library.dxcore)
    monkeypatch.setattr(on_device, "features", lambda device: ())  # pyright: ignore[reportUnknownLambdaType]
    known, unknown = (_directml(torch.device("privateuseone", index), ()) for index in range(2))
    assert (known.id, known.display_name, known.adapter_luid) == ("directml-0", "B", 2)
    assert (unknown.id, unknown.display_name, unknown.adapter_luid) == ("directml-1", "C", None)
    assert known.probe_time_s
    library.failing["Sort"] = REMOVED
    assert _directml(torch.device("privateuseone", 0), ()).adapter_luid is None


GFX = "gfx90a:sramecc+:xnack-"
ASCII_UUID = "61316232-6333-6434-6535-663630373138"
"""HIP's: the digits `a1b2c3d4e5f60718` as text."""


@pytest.mark.parametrize(
    ("told", "device_id", "uuid"),
    [
        (ASCII_UUID, "gpu-a1b2c3d4", "GPU-a1b2c3d4e5f60718"),
        (UUID, "gpu-1a2b3c4d", f"GPU-{UUID}"),
        ("", "gpu-2", ""),
    ],
)
def test_a_gpu_of_a_torch_with_rocm_is_no_cuda_device(
    monkeypatch: pytest.MonkeyPatch, told: str, device_id: str, uuid: str
) -> None:
    facts = SimpleNamespace(
        name="AMD Instinct MI210",
        total_memory=64 << 30,
        multi_processor_count=104,
        gcnArchName=GFX,
        uuid=told,
        pci_domain_id=0,
        pci_bus_id=0x65,
        pci_device_id=0,
    )
    monkeypatch.setattr(on_device, "features", lambda device: ())  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(on_device, "allocation_alignment", lambda device: 512)  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(on_device, "_try", lambda device, dtype: None)  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(torch.version, "hip", "6.4.43482-0f2d60242")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)  # pyright: ignore[reportUnknownLambdaType]
    device = probe("cuda:0", 2)
    assert (device.backend, device.vendor, device.runtime_version) == (Backend.ROCM, "AMD", "ROCm 6.4")
    assert (device.aliases, device.id, device.uuid) == (("rocm:2", "2"), device_id, uuid)
    assert (device.architecture, device.compute_capability, device.pci_bus_id) == ("gfx90a", "gfx90a", "0000:65:00.0")


def test_a_temporary_folder_that_cannot_be_written_leaves_a_device_without_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert can_compile(torch.device("cpu")) is False
