"""What the operating system says of its processor: on Linux in a file, on Windows in the registry."""

import platform
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from domains.device import host_cpu

EPYC = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9654: 96 cores\nflags\t\t: fpu\n"
)
GRAVITON = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\n"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(host_cpu, "_CPUINFO", file)
    monkeypatch.setitem(sys.modules, "winreg", None)
    monkeypatch.setattr(platform, "processor", lambda: "")
    return file


@pytest.mark.parametrize(
    ("said", "vendor"),
    [
        (EPYC, "AMD"),
        (EPYC.replace("AuthenticAMD", "GenuineIntel"), "Intel"),
        (EPYC.replace("AuthenticAMD", "CentaurHauls"), "CentaurHauls"),
        (GRAVITON, "ARM"),
        (GRAVITON.replace("0x41", "0x61"), "Apple"),
        ("vendor_id\nmodel name\n", ""),
    ],
)
def test_the_vendor_has_its_common_name_and_an_unknown_one_its_own_id(cpuinfo: Path, said: str, vendor: str) -> None:
    cpuinfo.write_text(said)
    assert host_cpu.cpu_vendor() == vendor


def test_the_name_is_that_of_the_model_or_else_the_architecture(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo.write_text(EPYC)
    assert host_cpu.cpu_name() == "AMD EPYC 9654: 96 cores"
    cpuinfo.unlink()
    assert host_cpu.cpu_name() == platform.machine()
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert host_cpu.cpu_name() == "arm"


def test_on_windows_name_and_vendor_come_from_the_registry(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"ProcessorNameString": "Intel(R) Core(TM) i7 ", "VendorIdentifier": "GenuineIntel"}

    def open_key(root: str, path: str) -> Any:
        assert (root, path) == ("HKLM", r"HARDWARE\DESCRIPTION\System\CentralProcessor\0")
        return nullcontext(values)

    def query(key: dict[str, str], name: str) -> tuple[str, int]:
        return key[name], 1

    registry = SimpleNamespace(HKEY_LOCAL_MACHINE="HKLM", OpenKey=open_key, QueryValueEx=query)
    monkeypatch.setitem(sys.modules, "winreg", registry)
    assert (host_cpu.cpu_name(), host_cpu.cpu_vendor()) == ("Intel(R) Core(TM) i7", "Intel")


@pytest.mark.parametrize(
    ("machine", "told"), [("AMD64", "x86_64"), ("x86_64", "x86_64"), ("arm64", "aarch64"), ("RISCV64", "riscv64")]
)
def test_an_architecture_has_one_name_on_every_system(machine: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert host_cpu.cpu_architecture() == told


@pytest.mark.parametrize(
    ("current", "most", "told"),
    [(2399.6, 3700.4, (2400, 3700)), (0.0, 3700.0, (None, 3700)), (2400.0, 0.0, (2400, None))],
)
def test_clocks_are_whole_megahertz_and_zero_is_none(
    current: float, most: float, told: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=current, min=0.0, max=most))
    assert (host_cpu.cpu_clock_mhz(), host_cpu.cpu_max_clock_mhz()) == told


@pytest.mark.parametrize("problem", [OSError, RuntimeError, NotImplementedError, None])
def test_a_system_that_tells_no_clocks_has_none(
    problem: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> None:
        if problem is not None:
            raise problem

    monkeypatch.setattr(psutil, "cpu_freq", ask)
    assert (host_cpu.cpu_clock_mhz(), host_cpu.cpu_max_clock_mhz()) == (None, None)
