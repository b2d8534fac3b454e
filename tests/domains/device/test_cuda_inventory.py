"""Which GPUs are ours, and what a driver costs that does not answer."""

import asyncio
import threading

import pytest

from domains.device.adapter import Adapter
from domains.device.device import Backend, Device, DeviceKind
from domains.device.device_names import ordinal, refusal, worker_name
from domains.device.inventory import CudaInventory
from domains.device.nvml import NvmlTelemetry
from domains.device.visible import names_parts, visible
from domains.errors import ErrorReason, InternalError
from tests.domains.device.fake_nvml import PLACE, UUID, FakeGpu, FakeNvml

UUIDS = ("GPU-1a2b3c4d-0000", "GPU-1a2bffff-0000", "GPU-99999999-0000")
ADAPTERS = [Adapter(uuid=uuid, name="", index=index) for index, uuid in enumerate(UUIDS)]


@pytest.mark.parametrize(
    ("setting", "ours"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2,0", [0, 2]),
        ("0,-1,1", [0]),
        ("0,7,1", [0]),
        ("GPU-99", [2]),
        ("gpu-1a2bf , 2", [1, 2]),
        ("GPU-1a2b", []),
        ("MIG-1a2b3c4d", [0, 1, 2]),
    ],
)
def test_a_gpu_that_is_hidden_from_us_is_not_ours(setting: str | None, ours: list[int]) -> None:
    assert [adapter.index for adapter in visible(ADAPTERS, setting)] == ours
    assert names_parts(setting) is (setting is not None and setting.startswith("MIG"))


def test_only_the_visible_and_wanted_are_listed_under_the_drivers_numbers() -> None:
    gpus = [FakeGpu(uuid=uuid) for uuid in UUIDS]
    telemetry = NvmlTelemetry(FakeNvml(*gpus))
    assert list(CudaInventory(telemetry, None, "1,2").look_now()) == ["cuda:1", "cuda:2"]
    assert list(CudaInventory(telemetry, ["cuda:0", "cuda:2"], "1,2").look_now()) == ["cuda:2"]


def test_a_gpu_is_described_as_far_as_nvml_tells_before_a_worker_probes_it() -> None:
    telemetry = NvmlTelemetry(FakeNvml(FakeGpu(uuid=UUIDS[2]), FakeGpu()))
    assert CudaInventory(telemetry).look_now()["cuda:1"] == Device(
        id="gpu-1a2b3c4d",
        aliases=("cuda:1", "1"),
        display_name="NVIDIA H100",
        kind=DeviceKind.DISCRETE_GPU,
        backend=Backend.CUDA,
        backend_index=1,
        vendor="NVIDIA",
        architecture="hopper",
        total_memory_bytes=80 << 30,
        precision_support=(),
        driver_name="nvidia",
        driver_version="580.159.03",
        firmware_version="96.00.61",
        pci_bus_id=PLACE,
        pci_vendor_id=0x10DE,
        pci_device_id=0x2330,
        uuid=UUID,
    )


def test_a_gpu_has_the_same_id_whatever_its_number_in_the_next_server() -> None:
    def ids(*uuids: str) -> list[str]:
        gpus = [FakeGpu(uuid=uuid) for uuid in uuids]
        return [adapter.device_id for adapter in NvmlTelemetry(FakeNvml(*gpus)).inventory()]

    before = ids(*UUIDS)
    assert len({*before}) == len(UUIDS)
    assert ids(*reversed(UUIDS)) == before[::-1]
    assert ids(UUIDS[1]) == [before[1]]


async def test_a_driver_that_hangs_costs_one_thread_however_often_it_is_asked() -> None:
    driver = FakeNvml(FakeGpu())
    inventory = CudaInventory(NvmlTelemetry(driver))
    driver.hang.clear()
    with pytest.raises(InternalError) as caught:
        inventory.look_now(limit_s=0.01)
    assert caught.value.reason is ErrorReason.DRIVER_ERROR
    threads = threading.active_count()
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await inventory.look()
    assert threading.active_count() == threads
    driver.hang.set()
    assert list(await inventory.look()) == ["cuda:0"]
    inventory.close()


@pytest.mark.parametrize(
    "name", ["auto", "cpu", "cuda", "cuda:11", "rocm", "rocm:1", "directml", "directml:1", "sim", "sim:3"]
)
def test_these_names_may_be_configured(name: str) -> None:
    assert not refusal(name)


@pytest.mark.parametrize(
    "name", ["", "gpu", "cuda:", "cuda:x", "cpu:0", "CUDA:0", "cuda:-1", "sim-0", "cuda:00000", "auto "]
)
def test_others_may_not(name: str) -> None:
    assert refusal(name)


@pytest.mark.parametrize("name", ["xpu", "xpu:0", "mps"])
def test_a_backend_that_nothing_here_drives_is_refused_with_the_reason(name: str) -> None:
    assert f"torch.{name.partition(':')[0]}" in refusal(name)
    assert "rocm:N" in refusal(name)


def test_the_first_adapter_is_meant_where_no_number_is_said() -> None:
    assert [worker_name(name) for name in ("directml", "rocm", "cuda:1")] == ["directml:0", "rocm:0", "cuda:1"]
    assert (ordinal("cpu"), ordinal("cuda:11")) == (0, 11)
