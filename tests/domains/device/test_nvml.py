"""NVML: each figure by itself; a GPU that vanishes is named; a driver that hangs blocks nobody."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from domains.device.device import Backend
from domains.device.nvml import NvmlTelemetry, throttle_reasons
from domains.device.original_limits import OriginalLimits
from domains.device.sample import DeviceSample, ThrottleReason
from domains.device.telemetry import ALWAYS, DeviceGone, TelemetryByBackend
from domains.device.threaded_telemetry import ThreadedTelemetry
from domains.errors import ErrorReason, InternalError, InvalidRequest, NotSupported
from domains.migrations import MIGRATIONS
from domains.storage import DATABASE
from tests.domains.device.fake_nvml import UUID, FakeGpu, FakeNvml, cpu_device, cuda_device

NO = {
    "not supported": -pynvml.NVML_ERROR_NOT_SUPPORTED,
    "no permission": -pynvml.NVML_ERROR_NO_PERMISSION,
    "unknown": -pynvml.NVML_ERROR_UNKNOWN,
    "not found": -pynvml.NVML_ERROR_NOT_FOUND,
}
FIGURES = {
    "UtilizationRates": {"utilization_ratio", "memory_activity_ratio"},
    "MemoryInfo": {"used_memory_bytes", "total_memory_bytes"},
    "Temperature": {"temperature_celsius"},
    "MemoryTemperature": {"memory_temperature_celsius"},
    "PowerUsage": {"power_watts"},
    "ClockInfo": {"clock_mhz", "memory_clock_mhz"},
    "FanSpeed": {"fan_speed_fraction"},
}
DEVICE = cuda_device()


def test_every_figure_is_told_in_the_units_of_the_contract() -> None:
    sample = NvmlTelemetry(FakeNvml(FakeGpu())).sample(DEVICE)
    assert sample == DeviceSample(
        time_s=sample.time_s,
        utilization_ratio=0.75,
        memory_activity_ratio=0.2,
        used_memory_bytes=8 << 30,
        total_memory_bytes=80 << 30,
        temperature_celsius=55,
        memory_temperature_celsius=61,
        power_watts=345.6,
        power_limit_watts=650,
        clock_mhz=1980,
        memory_clock_mhz=1980,
        fan_speed_fraction=0.3,
        throttle_reasons=(ThrottleReason.POWER_LIMIT,),
    )
    assert abs(sample.time_s - time.time()) < 5


@pytest.mark.parametrize("why", NO)
@pytest.mark.parametrize("question", FIGURES)
def test_a_figure_that_cannot_be_had_leaves_the_others(question: str, why: str) -> None:
    gpu = FakeGpu()
    telemetry = NvmlTelemetry(FakeNvml(gpu))
    every = set(telemetry.sample(DEVICE).telemetry)
    gpu.answers[question] = NO[why]
    assert set(telemetry.sample(DEVICE).telemetry) == every - FIGURES[question]


def test_the_limit_that_was_set_is_told_where_the_one_in_force_cannot_be_had() -> None:
    gpu = FakeGpu()
    gpu.answers["EnforcedPowerLimit"] = NO["not supported"]
    driver = FakeNvml(gpu)
    assert NvmlTelemetry(driver).sample(DEVICE).power_limit_watts == 700
    driver.nvmlDeviceGetPowerManagementLimit = driver.nvmlDeviceGetEnforcedPowerLimit
    assert NvmlTelemetry(driver).sample(DEVICE).power_limit_watts is None


def test_what_is_not_supported_is_asked_once_and_what_is_forbidden_again() -> None:
    gpu = FakeGpu()
    gpu.answers |= {"FanSpeed": NO["not supported"], "PowerUsage": NO["no permission"]}
    telemetry = NvmlTelemetry(FakeNvml(gpu))
    for _ in range(3):
        telemetry.sample(DEVICE)
    assert (gpu.asked.count("FanSpeed"), gpu.asked.count("PowerUsage")) == (1, 3)


def test_one_clock_that_is_not_supported_leaves_the_other_of_the_same_question() -> None:
    driver, asked = FakeNvml(FakeGpu()), list[int]()

    def clock(gpu: FakeGpu, kind: int) -> int:
        asked.append(kind)
        if kind == pynvml.NVML_CLOCK_SM:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 2619

    setattr(driver, "nvmlDeviceGetClockInfo", clock)  # noqa: B010  (a module is typed by what it declares)
    telemetry = NvmlTelemetry(driver)
    for _ in range(2):
        sample = telemetry.sample(DEVICE)
        assert (sample.clock_mhz, sample.memory_clock_mhz) == (None, 2619)
    assert asked.count(pynvml.NVML_CLOCK_SM) == 1


def test_a_binding_without_a_function_has_no_such_figure() -> None:
    driver = FakeNvml(FakeGpu())
    delattr(driver, "nvmlDeviceGetFanSpeed")
    assert NvmlTelemetry(driver).sample(DEVICE).fan_speed_fraction is None


def test_a_gpu_is_found_by_its_place_where_its_uuid_is_a_part_of_it() -> None:
    part = cuda_device(uuid="MIG-99999999-0000-1111-2222-333344445555")
    assert NvmlTelemetry(FakeNvml(FakeGpu())).sample(part).utilization_ratio == 0.75


def test_a_gpu_that_vanishes_is_gone_and_comes_back_after_the_driver_is_opened_anew() -> None:
    gpu = FakeGpu()
    telemetry = NvmlTelemetry(FakeNvml(gpu))
    telemetry.sample(DEVICE)
    gpu.present = False
    for _ in range(2):
        with pytest.raises(DeviceGone, match="gpu-1a2b3c4d") as caught:
            telemetry.sample(DEVICE)
        assert caught.value.reason is ErrorReason.DEVICE_LOST
    assert telemetry.inventory() == ()
    telemetry.close()
    with pytest.raises(DeviceGone):
        telemetry.sample(DEVICE)
    gpu.present = True
    telemetry.close()
    assert telemetry.sample(DEVICE).utilization_ratio == 0.75
    assert [adapter.uuid for adapter in telemetry.inventory()] == [UUID]


def test_a_lost_gpu_is_seen_again_by_the_next_look_and_an_error_loses_none() -> None:
    gpu, other = FakeGpu(), FakeGpu(uuid="GPU-99999999-0000-1111-2222-333344445555", place="0000:66:00.0")
    driver = FakeNvml(gpu, other)
    telemetry = NvmlTelemetry(driver)
    everything = telemetry.inventory()
    assert [adapter.uuid for adapter in everything] == [UUID, other.uuid]
    telemetry.sample(DEVICE)
    gpu.answers["UUID"] = NO["unknown"]
    assert telemetry.inventory() == everything
    gpu.answers["UUID"] = UUID
    gpu.present = False
    assert [adapter.uuid for adapter in telemetry.inventory()] == [other.uuid]
    # A handle of before stays that of a lost GPU, as NVML's does.
    driver.gpus[0] = FakeGpu()
    assert [adapter.uuid for adapter in telemetry.inventory()] == [UUID, other.uuid]
    assert telemetry.sample(DEVICE).utilization_ratio == 0.75


def test_a_gpu_that_a_sample_misses_is_looked_for_with_a_driver_opened_anew() -> None:
    gpu = FakeGpu()
    driver = FakeNvml(gpu)
    telemetry = NvmlTelemetry(driver)
    telemetry.inventory()
    gpu.present = False
    with pytest.raises(DeviceGone):
        telemetry.sample(DEVICE)
    gpu.present = True
    for _ in range(2):
        assert [adapter.uuid for adapter in telemetry.inventory()] == [UUID]
        assert driver.init_count == 2


def test_gpus_that_tell_one_name_each_have_figures_of_their_own() -> None:
    by_uuid, by_place = FakeGpu(), FakeGpu(uuid="GPU-other", place="0000:66:00.0")
    by_uuid.answers["Temperature"], by_place.answers["Temperature"] = 40, 50
    telemetry = NvmlTelemetry(FakeNvml(by_uuid, by_place))
    devices = [
        cuda_device(place=""),
        cuda_device(uuid="", place="0000:66:00.0"),
        cuda_device(uuid="GPU-other", place=""),
    ]
    assert [telemetry.sample(device).temperature_celsius for device in devices] == [40, 50, 50]
    assert telemetry.sample(cuda_device(uuid="", place="")).telemetry == ()


def test_looks_that_miss_no_gpu_leave_the_driver_open() -> None:
    driver = FakeNvml(FakeGpu())
    telemetry = NvmlTelemetry(driver)
    telemetry.sample(DEVICE)
    for _ in range(2):
        telemetry.inventory()
    assert (driver.init_count, driver.opened) == (1, 1)


def test_a_gpu_that_does_not_answer_a_look_is_logged_and_a_lost_one_is_not() -> None:
    gpu, lost = FakeGpu(), FakeGpu(uuid="GPU-99999999-0000-1111-2222-333344445555")
    telemetry = NvmlTelemetry(FakeNvml(gpu, lost))
    gpu.answers["UUID"] = NO["unknown"]
    lost.present = False
    with capture_logs() as lines:
        assert telemetry.inventory() == ()
    assert [(line["log_level"], line["index"]) for line in lines] == [("warning", 0)]


def test_a_gpu_that_is_lost_at_the_first_look_is_seen_when_it_comes_back() -> None:
    gpu, driver = FakeGpu(), FakeNvml()
    driver.gpus, gpu.present = [gpu], False
    telemetry = NvmlTelemetry(driver)
    assert telemetry.inventory() == ()
    assert driver.init_count == 1
    driver.gpus = [FakeGpu()]
    assert [adapter.uuid for adapter in telemetry.inventory()] == [UUID]
    assert driver.init_count == 2, "NVML shows it only to whoever opens it anew"


def test_a_gpu_that_is_not_counted_any_more_is_looked_for_with_a_driver_opened_anew() -> None:
    gpu, driver = FakeGpu(), FakeNvml()
    driver.gpus = [gpu]
    telemetry = NvmlTelemetry(driver)
    telemetry.inventory()
    telemetry.sample(DEVICE)
    driver.gpus, gpu.present = [], False
    for _ in range(2):
        assert telemetry.inventory() == ()
    driver.gpus = [FakeGpu()]
    telemetry.inventory()
    assert telemetry.sample(DEVICE).utilization_ratio == 0.75


def test_the_limit_of_before_is_put_back_once() -> None:
    gpu = FakeGpu()
    gpu.limit_mw = 650_000
    driver = FakeNvml(gpu)
    telemetry = NvmlTelemetry(driver)
    telemetry.restore(DEVICE)
    for watts in (300, 400):
        telemetry.set_power_limit(DEVICE, watts)
    telemetry.restore(DEVICE)
    assert gpu.limit_mw == 650_000
    gpu.limit_mw = 500_000
    telemetry.restore(DEVICE)
    assert gpu.limit_mw == 500_000


def test_the_limit_of_before_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    gpu = FakeGpu()
    gpu.limit_mw = 650_000
    driver = FakeNvml(gpu)
    for watts in (300, 400):
        NvmlTelemetry(driver, OriginalLimits(tmp_path)).set_power_limit(DEVICE, watts)
    for after in (650_000, 500_000):
        NvmlTelemetry(driver, OriginalLimits(tmp_path)).restore(DEVICE)
        assert gpu.limit_mw == after
        gpu.limit_mw = 500_000


def test_a_limit_that_was_refused_is_not_put_back_later(tmp_path: Path) -> None:
    gpu = FakeGpu()
    gpu.may_set = False
    with pytest.raises(InternalError):
        NvmlTelemetry(FakeNvml(gpu), OriginalLimits(tmp_path)).set_power_limit(DEVICE, 300)
    assert OriginalLimits(tmp_path).before(DEVICE.id) is None


def write_first_version(folder: Path, limits: bytes) -> None:
    """What a server left that kept its limits in a file."""
    with closing(sqlite3.connect(folder / DATABASE)) as old:
        MIGRATIONS[0](old, folder)
        old.commit()
    (folder / "power-limits.json").write_bytes(limits)


def test_limits_of_a_file_come_into_the_database_once(tmp_path: Path) -> None:
    write_first_version(tmp_path, b'{"gpu": 650000}')
    limits = OriginalLimits(tmp_path)
    assert limits.before("gpu") == 650_000
    assert not limits.note("gpu", 1)
    limits.forget("gpu")
    assert OriginalLimits(tmp_path).before("gpu") is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"gpu": "much"}'])
def test_a_damaged_file_of_limits_knows_nothing_and_stops_nobody(tmp_path: Path, damage: bytes) -> None:
    write_first_version(tmp_path, damage)
    limits = OriginalLimits(tmp_path)
    assert limits.before(DEVICE.id) is None
    assert limits.note(DEVICE.id, 1)
    assert OriginalLimits(tmp_path).before(DEVICE.id) == 1


def test_the_inventory_tells_what_no_worker_is_needed_for() -> None:
    (adapter,) = NvmlTelemetry(FakeNvml(FakeGpu())).inventory()
    assert (adapter.device_id, adapter.pci_bus_id) == ("gpu-1a2b3c4d", "0000:65:00.0")
    assert (adapter.pci_vendor_id, adapter.pci_device_id) == (0x10DE, 0x2330)
    assert (adapter.architecture, adapter.driver_version) == ("hopper", "580.159.03")
    assert (adapter.firmware_version, adapter.max_clock_mhz) == ("96.00.61", 1980)
    assert (adapter.name, adapter.index, adapter.total_memory_bytes) == ("NVIDIA H100", 0, 80 << 30)


def test_a_driver_is_closed_once_and_opened_again_by_the_next_call() -> None:
    driver = FakeNvml(FakeGpu())
    telemetry = NvmlTelemetry(driver)
    telemetry.close()
    assert driver.opened == 0
    for times in (1, 2):
        telemetry.inventory()
        assert (driver.init_count, driver.opened) == (times, 1)
        telemetry.close()
        assert driver.opened == 0


def test_a_driver_that_does_not_close_cleanly_is_logged_and_opened_again() -> None:
    driver = FakeNvml(FakeGpu())
    telemetry = NvmlTelemetry(driver)
    telemetry.inventory()

    def refuse() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    driver.nvmlShutdown = refuse
    with capture_logs() as logs:
        telemetry.close()
    assert [line["event"] for line in logs] == ["the NVIDIA driver did not close cleanly"]
    telemetry.inventory()
    assert driver.init_count == 2


def test_the_inventory_leaves_out_what_a_gpu_does_not_tell() -> None:
    gpu = FakeGpu()
    for question in ("PciInfo", "MemoryInfo", "Architecture", "VbiosVersion", "MaxClockInfo"):
        gpu.answers[question] = NO["not supported"]
    (adapter,) = NvmlTelemetry(FakeNvml(gpu)).inventory()
    assert (adapter.uuid, adapter.name, adapter.pci_bus_id) == (UUID, "NVIDIA H100", "")
    assert (adapter.pci_vendor_id, adapter.pci_device_id, adapter.total_memory_bytes) == (None, None, None)
    assert (adapter.architecture, adapter.firmware_version, adapter.max_clock_mhz) == ("", "", None)


def test_a_driver_that_cannot_count_its_gpus_is_told() -> None:
    driver = FakeNvml(FakeGpu())

    def count() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    driver.nvmlDeviceGetCount = count
    with pytest.raises(InternalError, match="does not list its GPUs") as caught:
        NvmlTelemetry(driver).inventory()
    assert caught.value.reason is ErrorReason.DRIVER_ERROR


def test_without_a_driver_there_are_no_gpus_and_no_figures() -> None:
    driver = FakeNvml()
    driver.init_error = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    telemetry = NvmlTelemetry(driver)
    assert telemetry.inventory() == ()
    assert telemetry.sample(DEVICE).telemetry == ()
    assert telemetry.controls(DEVICE) == ALWAYS


def test_a_driver_that_fails_is_told_and_tried_again() -> None:
    driver = FakeNvml(FakeGpu())
    driver.init_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    telemetry = NvmlTelemetry(driver)
    with pytest.raises(InternalError) as caught:
        telemetry.inventory()
    assert caught.value.reason is ErrorReason.DRIVER_ERROR
    assert telemetry.sample(DEVICE).telemetry == ()
    driver.init_error = 0
    assert len(telemetry.inventory()) == 1


def test_power_is_controlled_only_where_the_driver_lets_us() -> None:
    gpu = FakeGpu()
    telemetry = NvmlTelemetry(FakeNvml(gpu))
    assert telemetry.controls(DEVICE) == (*ALWAYS, "power_limit_watts", "max_temperature_celsius")
    assert gpu.limit_mw == 700_000
    gpu.may_set = False
    assert "power_limit_watts" not in telemetry.controls(DEVICE)
    gpu.may_set = True
    gpu.answers["PowerManagementLimitConstraints"] = [700_000, 700_000]
    assert "power_limit_watts" not in telemetry.controls(DEVICE)
    assert telemetry.power_range(DEVICE) is None


def test_the_power_limit_is_set_and_goes_back_to_the_drivers_default() -> None:
    gpu = FakeGpu()
    telemetry = NvmlTelemetry(FakeNvml(gpu))
    telemetry.set_power_limit(DEVICE, 300.5)
    assert gpu.limit_mw == 300_500
    telemetry.set_power_limit(DEVICE, None)
    assert gpu.limit_mw == 700_000


@pytest.mark.parametrize("watts", [0.0, -5.0, 199.9, 700.1, float("nan"), float("inf")])
def test_a_power_limit_outside_the_range_is_refused_and_the_old_one_holds(watts: float) -> None:
    gpu = FakeGpu()
    with pytest.raises(InvalidRequest) as caught:
        NvmlTelemetry(FakeNvml(gpu)).set_power_limit(DEVICE, watts)
    assert caught.value.violations[0].allowed == "200..700"
    assert gpu.limit_mw == 700_000


def test_missing_rights_are_named() -> None:
    gpu = FakeGpu()
    gpu.may_set = False
    with pytest.raises(InternalError, match="administrator rights") as caught:
        NvmlTelemetry(FakeNvml(gpu)).set_power_limit(DEVICE, 300)
    assert caught.value.reason is ErrorReason.DRIVER_ERROR


@pytest.mark.parametrize("call", ["sample", "power_range", "set_power_limit", "restore"])
def test_whatever_a_vanished_gpu_is_asked_it_is_gone(call: str) -> None:
    gpu = FakeGpu()
    telemetry = NvmlTelemetry(FakeNvml(gpu))
    telemetry.set_power_limit(DEVICE, 300)
    telemetry.close()
    gpu.present = False
    with pytest.raises(DeviceGone, match="gpu-1a2b3c4d"):
        getattr(telemetry, call)(DEVICE, *[300] * (call == "set_power_limit"))


def test_a_gpu_whose_driver_fails_otherwise_is_not_gone_and_has_no_power_range() -> None:
    driver = FakeNvml(FakeGpu())

    def failing(_: bytes) -> FakeGpu:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    for name in ("UUID", "PciBusId"):
        setattr(driver, f"nvmlDeviceGetHandleBy{name}", failing)
    telemetry = NvmlTelemetry(driver)
    assert telemetry.power_range(DEVICE) is None
    assert telemetry.sample(DEVICE).telemetry == ()


def test_a_limit_that_the_driver_does_not_take_back_is_told_and_tried_again(tmp_path: Path) -> None:
    gpu = FakeGpu()
    telemetry = NvmlTelemetry(FakeNvml(gpu), OriginalLimits(tmp_path))
    telemetry.set_power_limit(DEVICE, 300)
    gpu.may_set = False
    with pytest.raises(InternalError, match="refused a power limit of 700 W") as caught:
        telemetry.restore(DEVICE)
    assert caught.value.reason is ErrorReason.DRIVER_ERROR
    gpu.may_set = True
    telemetry.restore(DEVICE)
    assert gpu.limit_mw == 700_000


def test_a_driver_that_does_not_support_the_change_says_so(tmp_path: Path) -> None:
    driver = FakeNvml(FakeGpu())

    def refuse(gpu: FakeGpu, limit_mw: int) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    driver.nvmlDeviceSetPowerManagementLimit = refuse
    limits = OriginalLimits(tmp_path)
    telemetry = NvmlTelemetry(driver, limits)
    with pytest.raises(NotSupported) as caught:
        telemetry.set_power_limit(DEVICE, 300)
    assert caught.value.facts["setting"] == "power_limit_watts"
    assert limits.before(DEVICE.id) is None
    assert telemetry.controls(DEVICE) == (*ALWAYS, "max_temperature_celsius")


def test_a_gpu_without_power_control_says_so() -> None:
    gpu = FakeGpu()
    gpu.answers["PowerManagementLimitConstraints"] = NO["not supported"]
    with pytest.raises(NotSupported) as caught:
        NvmlTelemetry(FakeNvml(gpu)).set_power_limit(DEVICE, 300)
    assert caught.value.reason is ErrorReason.NOT_SUPPORTED_ON_DEVICE


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_any_bits_are_reasons_each_once(bits: int) -> None:
    reasons = throttle_reasons(bits)
    assert len(set(reasons)) == len(reasons)
    assert bool(reasons) == bool(bits)


@pytest.mark.parametrize(
    ("bit", "reason"),
    [
        (0x001, ThrottleReason.IDLE),
        (0x002, ThrottleReason.CLOCK_LIMIT),
        (0x004, ThrottleReason.POWER_LIMIT),
        (0x008, ThrottleReason.HARDWARE_PROTECTION),
        (0x010, ThrottleReason.OTHER),
        (0x020, ThrottleReason.TEMPERATURE),
        (0x040, ThrottleReason.HARDWARE_PROTECTION),
        (0x080, ThrottleReason.HARDWARE_PROTECTION),
        (0x100, ThrottleReason.CLOCK_LIMIT),
        (0x200, ThrottleReason.OTHER),
        (1 << 63, ThrottleReason.OTHER),
    ],
)
def test_a_bit_has_the_meaning_of_nvml_h(bit: int, reason: ThrottleReason) -> None:
    assert throttle_reasons(bit) == (reason,)


def test_a_driver_without_reasons_has_none() -> None:
    gpu = FakeGpu()
    gpu.answers["CurrentClocksEventReasons"] = NO["not supported"]
    assert NvmlTelemetry(FakeNvml(gpu)).sample(DEVICE).throttle_reasons == ()


def test_a_range_of_one_value_is_no_control() -> None:
    gpu = FakeGpu()
    telemetry = NvmlTelemetry(FakeNvml(gpu))
    gpu.answers["PowerManagementLimitConstraints"] = [300_000, 300_000]
    assert telemetry.power_range(DEVICE) is None
    gpu.answers["PowerManagementLimitConstraints"] = [300_000, 300_001]
    told = telemetry.power_range(DEVICE)
    assert told is not None
    assert (told.least_watts, told.most_watts, told.default_watts) == (300.0, 300.001, 700.0)


@pytest.mark.parametrize(("status", "told", "celsius"), [(0, 61, 61.0), (0, 0, None), (3, 61, None), (1, 61, None)])
def test_a_gpu_without_a_sensor_of_its_memory_says_so_by_a_status_or_zero_degrees(
    status: int, told: int, celsius: float | None
) -> None:
    driver = FakeNvml(FakeGpu())

    def values(gpu: FakeGpu, fields: list[int]) -> list[SimpleNamespace]:
        return [SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(uiVal=told))]

    driver.nvmlDeviceGetFieldValues = values
    assert NvmlTelemetry(driver).sample(DEVICE).memory_temperature_celsius == celsius


async def test_a_hanging_driver_costs_its_deadline_once_and_its_device_alone() -> None:
    driver = FakeNvml(FakeGpu())
    both = TelemetryByBackend({Backend.CUDA: NvmlTelemetry(driver)})
    telemetry = ThreadedTelemetry(both, limit_s=0.5)
    driver.hang.clear()
    begin = time.perf_counter()
    assert (await telemetry.sample(DEVICE)).telemetry == ()
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    assert (await telemetry.sample(DEVICE)).telemetry == ()
    assert time.perf_counter() - begin < 0.25 < 0.5 <= first + 0.01
    begin = time.perf_counter()
    await telemetry.sample(cpu_device())
    assert time.perf_counter() - begin < 0.25
    with pytest.raises(InternalError, match="has not answered"):
        await telemetry.set_power_limit(DEVICE, 300)
    driver.hang.set()
    load = None
    for _ in range(200_000):
        load = (await telemetry.sample(DEVICE)).utilization_ratio
        if load is not None:
            break
        await asyncio.sleep(0)
    assert load == 0.75
    telemetry.close()


async def test_a_gone_gpu_is_gone_through_the_thread_too() -> None:
    gpu = FakeGpu()
    gpu.present = False
    telemetry = ThreadedTelemetry(NvmlTelemetry(FakeNvml(gpu)))
    with pytest.raises(DeviceGone):
        await telemetry.sample(DEVICE)
    telemetry.close()


async def test_each_call_goes_through_the_thread_to_the_driver_of_the_devices_backend() -> None:
    gpu = FakeGpu()
    driver = NvmlTelemetry(FakeNvml(gpu))
    telemetry = ThreadedTelemetry(TelemetryByBackend({Backend.CUDA: driver}))
    assert await telemetry.controls(DEVICE) == driver.controls(DEVICE) != ALWAYS
    assert await telemetry.power_range(DEVICE) == driver.power_range(DEVICE) is not None
    await telemetry.set_power_limit(DEVICE, 300)
    assert gpu.limit_mw == 300_000
    await telemetry.restore(DEVICE)
    assert gpu.limit_mw == 700_000
    reach = await telemetry.reach(DEVICE, 3)
    assert (reach.controls, reach.capacity) == (driver.controls(DEVICE), 3)
    assert "utilization_ratio" in reach.telemetry
    telemetry.close()


async def test_a_device_without_a_driver_of_its_own_has_the_settings_that_need_none() -> None:
    telemetry = ThreadedTelemetry(TelemetryByBackend({}))
    cpu = cpu_device()
    assert (await telemetry.controls(cpu), await telemetry.power_range(cpu)) == (ALWAYS, None)
    assert (await telemetry.reach(cpu, 1)).telemetry == ()
    with pytest.raises(NotSupported) as caught:
        await telemetry.set_power_limit(cpu, 300)
    assert caught.value.reason is ErrorReason.NOT_SUPPORTED_ON_DEVICE
    await telemetry.restore(cpu)
    telemetry.close()


async def test_a_device_that_is_gone_reaches_as_far_as_one_without_a_driver() -> None:
    gpu = FakeGpu()
    gpu.present = False
    telemetry = ThreadedTelemetry(NvmlTelemetry(FakeNvml(gpu)))
    reach = await telemetry.reach(DEVICE, 2)
    assert (reach.telemetry, reach.controls, reach.capacity) == ((), ALWAYS, 2)
    telemetry.close()
