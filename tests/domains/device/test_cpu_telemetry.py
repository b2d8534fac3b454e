"""The processor: real load, memory within the container's limit, and nothing where nothing can be read."""

import os
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from domains.device.cgroup import HostMemory, host_memory
from domains.device.cpu_telemetry import CpuTelemetry, temperature
from domains.device.device import Backend, DeviceKind
from domains.device.host_cpu import cpu_architecture, cpu_max_clock_mhz, cpu_name, cpu_vendor
from domains.device.inventory import host_processor
from domains.device.rapl import Rapl
from domains.device.telemetry import ALWAYS
from domains.errors import NotSupported
from tests.domains.device.fake_nvml import cpu_device

DEVICE = cpu_device()
GIB = 1 << 30


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def burn(telemetry: CpuTelemetry, seconds: float) -> float:
    """The load after this thread computed for a while."""
    telemetry.sample(DEVICE)
    busy = psutil.Process().cpu_times().user
    while psutil.Process().cpu_times().user - busy < seconds:
        sum(range(20_000))
    load = telemetry.sample(DEVICE).utilization_ratio
    assert load is not None
    return load


def test_computing_raises_the_load() -> None:
    assert burn(CpuTelemetry(), 0.3) >= 0.8 / (psutil.cpu_count() or 1)


class Times(NamedTuple):
    """Processor times as Linux tells them: `user` and `nice` include the guests'."""

    user: float
    nice: float
    system: float
    idle: float
    iowait: float
    guest: float
    guest_nice: float


def test_guests_count_once_and_waiting_for_a_disk_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([Times(100, 10, 50, 200, 20, 30, 5), Times(104, 12, 51, 205, 21, 33, 6)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    clock = Hand()
    telemetry = CpuTelemetry(clock)
    clock.at += 1
    # 7 s busy (4 user, 2 nice, 1 system) of 13 s.
    assert telemetry.sample(DEVICE).utilization_ratio == pytest.approx(7 / 13)


@pytest.mark.parametrize(("busy", "idle", "load"), [(-1, 3, 0.0), (3, -1, 1.0), (0, 0, None)])
def test_counters_that_run_backwards_give_no_load_outside_its_range(
    monkeypatch: pytest.MonkeyPatch, busy: float, idle: float, load: float | None
) -> None:
    readings = iter([Times(100, 0, 0, 200, 0, 0, 0), Times(100 + busy, 0, 0, 200 + idle, 0, 0, 0)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    clock = Hand()
    telemetry = CpuTelemetry(clock)
    clock.at += 1
    assert telemetry.sample(DEVICE).utilization_ratio == load


class FewTimes(NamedTuple):
    """Processor times of a system without guests and waits."""

    user: float
    system: float
    idle: float


def test_a_system_that_tells_fewer_times_has_a_load_too(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([FewTimes(10, 10, 10), FewTimes(11, 12, 14)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    clock = Hand()
    telemetry = CpuTelemetry(clock)
    clock.at += 1
    assert telemetry.sample(DEVICE).utilization_ratio == pytest.approx(3 / 7)


def test_each_sample_has_the_load_since_the_one_before_however_often_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, busy = Hand(), 0.0
    monkeypatch.setattr(psutil, "cpu_times", lambda: FewTimes(busy, 0, clock.at - busy))
    telemetry = CpuTelemetry(clock)

    def passed(seconds: float, busy_s: float) -> float | None:
        nonlocal busy
        clock.at += seconds
        busy += busy_s
        return telemetry.sample(DEVICE).utilization_ratio

    assert [passed(0.125, busy_s) for busy_s in (0.125, 0.0, 0.0625)] == [1.0, 0.0, 0.5]
    # Many samples at once share the span before them.
    assert {passed(0.0, 0.0) for _ in range(40)} == {0.5}
    assert None not in {passed(0.001, 0.0) for _ in range(40)}
    assert passed(0.25, 0.25) == pytest.approx(1.0, abs=0.05)


def test_a_share_of_too_short_a_time_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hand()
    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(clock.at, 0, 0, clock.at, 0, 0, 0))
    telemetry = CpuTelemetry(clock)
    for at, load in ((0.0625, None), (0.125, 0.5)):
        clock.at = 100.0 + at
        assert telemetry.sample(DEVICE).utilization_ratio == load


def test_the_temperature_is_that_of_the_hottest_package_or_else_of_the_hottest_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = [SimpleNamespace(label="Core 0", current=91.0), SimpleNamespace(label="Core 1", current=80.0)]
    packages = [SimpleNamespace(label="Package id 0", current=70.0), SimpleNamespace(label="Tctl", current=75)]
    other = [SimpleNamespace(label="Package", current=99.0)]
    for sensors, celsius in (
        ({"coretemp": [*cores, *packages], "acpitz": other}, 75.0),
        ({"k10temp": cores, "acpitz": other}, 91.0),
        ({"acpitz": other}, None),
    ):
        monkeypatch.setattr(psutil, "sensors_temperatures", partial(dict, sensors), raising=False)
        assert temperature() == celsius

    def fail() -> None:
        raise OSError

    monkeypatch.setattr(psutil, "sensors_temperatures", fail, raising=False)
    assert temperature() is None


def test_two_samples_at_once_share_the_span_before_them() -> None:
    telemetry = CpuTelemetry()
    burn(telemetry, 0.15)
    again = telemetry.sample(DEVICE).utilization_ratio
    assert again is not None
    assert again >= 0.6 / (psutil.cpu_count() or 1)


def test_before_any_time_has_passed_there_is_no_load() -> None:
    assert CpuTelemetry(clock=Hand()).sample(DEVICE).utilization_ratio is None


def test_samples_may_be_taken_from_several_threads() -> None:
    telemetry = CpuTelemetry()
    loads: list[float | None] = []

    def take() -> None:
        loads.extend(telemetry.sample(DEVICE).utilization_ratio for _ in range(50))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 200
    assert all(load is None or 0 <= load <= 1 for load in loads)


def test_memory_is_that_of_the_machine_where_nothing_limits_it(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    found, machine = host_memory(tmp_path, tmp_path / "cgroup"), psutil.virtual_memory()
    assert found.total_bytes == machine.total
    assert found.used_bytes + machine.available == pytest.approx(machine.total, rel=0.1)


@pytest.mark.parametrize("inner", ["pod/box", "pod"])
def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path, inner: str) -> None:
    (tmp_path / "cgroup").write_text("0::/pod/box\n")
    (tmp_path / "pod/box").mkdir(parents=True)
    for folder in ("pod", "pod/box"):
        limit = str(GIB) if folder == inner else "max"
        (tmp_path / folder / "memory.max").write_text(f"{limit}\n")
        (tmp_path / folder / "memory.current").write_text(f"{GIB // 2}\n")
        (tmp_path / folder / "memory.stat").write_text(f"anon 1\ninactive_file {GIB // 8}\n")
    found = host_memory(tmp_path, tmp_path / "cgroup")
    assert found == HostMemory(total_bytes=GIB, used_bytes=GIB // 2 - GIB // 8)


def test_memory_is_that_of_the_machine_where_no_groups_are_told(tmp_path: Path) -> None:
    assert host_memory(tmp_path, tmp_path / "none").total_bytes == psutil.virtual_memory().total


def test_of_equal_limits_the_one_of_which_most_is_in_use_counts(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/pod/box\n")
    (tmp_path / "pod/box").mkdir(parents=True)
    for folder, used in (("pod", GIB // 2), ("pod/box", GIB // 4)):
        (tmp_path / folder / "memory.max").write_text(f"{GIB}\n")
        (tmp_path / folder / "memory.current").write_text(f"{used}\n")
        (tmp_path / folder / "memory.stat").write_text("inactive_file 0\n")
    assert host_memory(tmp_path, tmp_path / "cgroup").used_bytes == GIB // 2


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("5:cpu,cpuacct:/\n4:memory:/host/path/not/here\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text(f"{GIB}\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("4096\n")
    (tmp_path / "memory/memory.stat").write_text("total_inactive_file 96\n")
    assert host_memory(tmp_path, tmp_path / "cgroup") == HostMemory(total_bytes=GIB, used_bytes=4000)


@pytest.mark.parametrize(("stat", "used"), [("anon 1", 100), ("inactive_file 100", 0), ("inactive_file 101", 0)])
def test_file_caches_are_not_used_and_use_is_not_below_zero(tmp_path: Path, stat: str, used: int) -> None:
    (tmp_path / "cgroup").write_text("0::/a:b\n")
    (tmp_path / "a:b").mkdir()
    for name, content in {"max": str(GIB), "current": "100", "stat": stat}.items():
        (tmp_path / "a:b" / f"memory.{name}").write_text(content)
    assert host_memory(tmp_path, tmp_path / "cgroup") == HostMemory(total_bytes=GIB, used_bytes=used)


def test_a_limit_above_the_machine_is_none(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    for name, content in {"max": str(1 << 62), "current": "1", "stat": ""}.items():
        (tmp_path / f"memory.{name}").write_text(content)
    assert host_memory(tmp_path, tmp_path / "cgroup").total_bytes == psutil.virtual_memory().total


def test_power_is_the_energy_since_the_reading_before(tmp_path: Path) -> None:
    clock = Hand()
    for name, energy in {"intel-rapl:0": 1_000_000, "intel-rapl:1": 9_000_000, "intel-rapl:0:0": 5}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{energy}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    rapl = Rapl(tmp_path, clock)
    assert rapl.watts() is None
    clock.at += 2
    (tmp_path / "intel-rapl:0/energy_uj").write_text("41000000")
    # This counter has come to its end and begun anew: 9 J to 10 J, then 3 J.
    (tmp_path / "intel-rapl:1/energy_uj").write_text("3000000")
    assert rapl.watts() == pytest.approx((40 + 4) / 2)


def test_power_of_a_counter_that_rests_is_zero_and_of_one_without_a_known_end_is_not_made_up(tmp_path: Path) -> None:
    clock = Hand()
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "energy_uj").write_text("5000000")
    (package / "max_energy_range_uj").write_text("10000000")
    rapl = Rapl(tmp_path, clock)
    clock.at += 0.5
    assert rapl.watts() == 0.0
    (package / "energy_uj").write_text("5500000")
    clock.at += 0.5
    assert rapl.watts() == 1.0
    (package / "energy_uj").write_text("1000000")
    (package / "max_energy_range_uj").unlink()
    clock.at += 0.5
    assert rapl.watts() == 0.0
    (package / "energy_uj").unlink()
    clock.at += 0.5
    assert (rapl.watts(), rapl.watts()) == (None, None)


def test_power_is_absent_without_counters(tmp_path: Path) -> None:
    clock = Hand()
    rapl = Rapl(tmp_path, clock)
    clock.at += 1
    assert rapl.watts() is None


def test_a_processor_has_no_power_control_and_a_ceiling_only_with_a_thermometer() -> None:
    telemetry = CpuTelemetry()
    hot = telemetry.sample(DEVICE).temperature_celsius is not None
    assert telemetry.controls(DEVICE) == ALWAYS + ("max_temperature_celsius",) * hot
    assert telemetry.power_range(DEVICE) is None
    with pytest.raises(NotSupported):
        telemetry.set_power_limit(DEVICE, 50)


def test_the_processor_is_described_without_a_worker() -> None:
    device = host_processor()
    assert (device.id, device.aliases, device.kind, device.backend) == ("cpu", ("cpu:0",), DeviceKind.CPU, Backend.CPU)
    assert (device.backend_index, device.precision_support) == (0, ())
    assert (device.display_name, device.vendor, device.architecture) == (cpu_name(), cpu_vendor(), cpu_architecture())
    assert device.total_memory_bytes == host_memory().total_bytes
    assert device.compute_units in (psutil.cpu_count(logical=False), os.cpu_count())
    assert device.max_clock_mhz == cpu_max_clock_mhz()


def test_the_processor_has_a_name() -> None:
    assert cpu_name()
    assert cpu_vendor() != "AuthenticAMD"
