"""The driver's edge: a module with pynvml's functions, over GPUs that a test describes. Constants and errors are its own."""

import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml

from domains.device.device import Backend, Device, DeviceKind

UUID = "GPU-1a2b3c4d-0000-1111-2222-333344445555"
PLACE = "0000:65:00.0"


class FakeGpu:
    """One GPU. An answer that is an int below zero is that of NVML's error of this number: `-3` is NOT_SUPPORTED."""

    def __init__(self, uuid: str = UUID, place: str = PLACE) -> None:
        self.uuid, self.place = uuid, place
        self.present = True
        self.asked: list[str] = []
        self.limit_mw = 700_000
        self.may_set = True
        self.answers: dict[str, Any] = {
            "UUID": uuid,
            "Name": "NVIDIA H100",
            "PciInfo": SimpleNamespace(busId=f"0000{place}", pciDeviceId=0x233010DE),
            "Architecture": pynvml.NVML_DEVICE_ARCH_HOPPER,
            "VbiosVersion": "96.00.61",
            "UtilizationRates": SimpleNamespace(gpu=75, memory=20),
            "MemoryInfo": SimpleNamespace(total=80 << 30, used=8 << 30, free=72 << 30),
            "Temperature": 55,
            "MemoryTemperature": 61,
            "PowerUsage": 345_600,
            "EnforcedPowerLimit": 650_000,
            "ClockInfo": 1980,
            "MaxClockInfo": 1980,
            "FanSpeed": 30,
            "CurrentClocksEventReasons": 0x4,
            "PowerManagementLimitConstraints": [200_000, 700_000],
            "PowerManagementDefaultLimit": 700_000,
        }


class FakeNvml(ModuleType):
    """pynvml as far as it is used here."""

    def __init__(self, *gpus: FakeGpu) -> None:
        super().__init__("fake_nvml")
        self.gpus = list(gpus)
        self.init_error = 0
        self.opened = 0
        self.init_count = 0
        """Times that it was opened."""
        self.hang = threading.Event()
        """While clear, every question about a GPU waits. Set from the start."""
        self.hang.set()
        self.NVMLError = pynvml.NVMLError
        for name in dir(pynvml):
            if name.startswith("NVML_"):
                setattr(self, name, getattr(pynvml, name))
        for name in FakeGpu().answers.keys() - {"MemoryTemperature"}:
            setattr(self, f"nvmlDeviceGet{name}", self._getter(name))

    def _getter(self, name: str) -> Any:
        def get(gpu: FakeGpu, *_: int) -> Any:
            return self._answer(gpu, name)

        return get

    def _answer(self, gpu: FakeGpu, name: str) -> Any:
        gpu.asked.append(name)
        self.hang.wait()
        if not gpu.present:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        answer = gpu.answers[name]
        if isinstance(answer, int) and answer < 0:
            raise pynvml.NVMLError(-answer)
        return answer

    def nvmlInit(self) -> None:
        if self.init_error:
            raise pynvml.NVMLError(self.init_error)
        self.opened += 1
        self.init_count += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.159.03"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._found([self.gpus[index]])

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> FakeGpu:
        return self._found([gpu for gpu in self.gpus if gpu.uuid == uuid.decode()])

    def nvmlDeviceGetHandleByPciBusId(self, place: bytes) -> FakeGpu:
        return self._found([gpu for gpu in self.gpus if gpu.place == place.decode()])

    def _found(self, gpus: list[FakeGpu]) -> FakeGpu:
        if not gpus or not gpus[0].present:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return gpus[0]

    def nvmlDeviceGetFieldValues(self, gpu: FakeGpu, fields: list[int]) -> list[Any]:
        assert fields == [pynvml.NVML_FI_DEV_MEMORY_TEMP]
        answer = self._answer(gpu, "MemoryTemperature")
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=answer))]

    def nvmlDeviceGetPowerManagementLimit(self, gpu: FakeGpu) -> int:
        return gpu.limit_mw

    def nvmlDeviceSetPowerManagementLimit(self, gpu: FakeGpu, limit_mw: int) -> None:
        if not gpu.present:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if not gpu.may_set:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        gpu.limit_mw = limit_mw


def cuda_device(uuid: str = UUID, place: str = PLACE) -> Device:
    """A device as its worker would describe it."""
    return Device(
        id="gpu-1a2b3c4d",
        aliases=("cuda:0", "0"),
        display_name="NVIDIA H100",
        kind=DeviceKind.DISCRETE_GPU,
        backend=Backend.CUDA,
        backend_index=0,
        vendor="NVIDIA",
        total_memory_bytes=80 << 30,
        precision_support=(),
        pci_bus_id=place,
        uuid=uuid,
    )


def cpu_device() -> Device:
    """The host's processor."""
    return Device(
        id="cpu",
        aliases=("cpu:0",),
        display_name="a processor",
        kind=DeviceKind.CPU,
        backend=Backend.CPU,
        backend_index=0,
        vendor="",
        total_memory_bytes=None,
        precision_support=(),
    )
