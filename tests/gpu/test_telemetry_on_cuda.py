"""Telemetry of a real NVIDIA GPU. Run with `-m gpu`. No setting of the GPU is touched."""

import asyncio
import time

import pytest
import torch

from domains.device.adapter import bare_uuid
from domains.device.device import Device
from domains.device.nvml import NvmlTelemetry
from domains.device.on_device import cuda_driver
from domains.device.on_device.probe import probe
from domains.device.threaded_telemetry import ThreadedTelemetry

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device() -> Device:
    return probe("cuda:0")


def test_the_probe_and_the_drivers_list_tell_of_the_same_gpu(device: Device) -> None:
    listed = {adapter.uuid: adapter for adapter in NvmlTelemetry().inventory()}
    adapter = listed[device.uuid]
    assert (adapter.pci_bus_id, adapter.device_id) == (device.pci_bus_id, device.id)
    assert adapter.name == device.display_name
    assert device.architecture
    assert device.pci_vendor_id == 0x10DE
    assert device.driver_version


def test_torch_and_the_driver_tell_the_same_identity(device: Device) -> None:
    assert cuda_driver.identity(0) == (bare_uuid(device.uuid), device.pci_bus_id)


def test_load_raises_the_figures(device: Device) -> None:
    telemetry = NvmlTelemetry()
    before = telemetry.sample(device)
    left = torch.rand(8192, 8192, device="cuda", dtype=torch.float16)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        left = torch.nn.functional.normalize(left @ left)
        torch.cuda.synchronize()
    during = telemetry.sample(device)
    assert during.utilization_ratio is not None
    assert during.utilization_ratio > 0.5
    assert (during.used_memory_bytes or 0) >= (before.used_memory_bytes or 0) + left.nbytes // 2
    assert {"temperature_celsius", "clock_mhz", "memory_clock_mhz"} <= set(during.telemetry)


def test_a_sample_costs_less_than_a_hundredth_of_a_core_at_1_hz(device: Device) -> None:
    async def samples() -> float:
        telemetry = ThreadedTelemetry(NvmlTelemetry())
        await telemetry.sample(device)
        begin = time.process_time()
        for _ in range(20):
            await telemetry.sample(device)
        telemetry.close()
        return (time.process_time() - begin) / 20

    assert asyncio.run(samples()) < 0.01
