"""Reads simulated devices from a TOML file. See README.md and every_fault.toml."""

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from domains.device.simulated.faults import Fault
from domains.device.simulated.script import MAX_DEVICES, MAX_FAULTS, SimDevice, SimScript
from domains.errors import InvalidRequest, Violation

MAX_FILE_BYTES = 256 * 1024


def read_script(path: Path) -> SimScript:
    """The script in a file. INVALID_FIELD with all violations, also if the file cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _refused(path.name, [_violation(path.name, "", f"cannot be read: {error.strerror}")]) from error
    return parse_script(data, path.name)


def parse_script(data: bytes, name: str) -> SimScript:
    """The script in TOML text; `name` of the file is for messages. INVALID_FIELD with all violations."""
    if len(data) > MAX_FILE_BYTES:
        raise _refused(name, [_violation(name, "", "is too long", f"0..{MAX_FILE_BYTES} bytes")])
    try:
        table = tomllib.loads(data.decode(), parse_float=_finite)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise _refused(name, [_violation(name, "", f"is not TOML: {error or 'nested too deeply'}")]) from error
    reader = _Reader(name)
    devices = reader.devices(table)
    if reader.violations:
        raise _refused(name, reader.violations)
    return SimScript(devices=devices)


class _Reader:
    """Collects all violations, so that one message lists everything to correct."""

    def __init__(self, name: str) -> None:
        self.violations: list[Violation] = []
        self._name = name

    def devices(self, table: dict[str, Any]) -> tuple[SimDevice, ...]:
        for key in table.keys() - {"device"}:
            self.refuse(key, "is unknown; the only tables are [[device]]")
        given: Any = table.get("device")
        # An editor may empty a file before it writes: that must not unplug every device.
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_DEVICES:
            self.refuse("device", f"must be 1..{MAX_DEVICES} tables [[device]]; `present = false` pulls one out")
            return ()
        found = [self._device(entry, f"device[{index}]") for index, entry in enumerate(given)]
        devices = tuple(device for device in found if device is not None)
        for device_id in sorted({one.id for one in devices if [two.id for two in devices].count(one.id) > 1}):
            self.refuse("device.id", f"{device_id} is there more than once")
        return devices

    def _device(self, entry: Any, key: str) -> SimDevice | None:
        faults: tuple[Fault, ...] = ()
        if isinstance(entry, dict) and "fault" in entry:
            faults = self._faults(entry["fault"], f"{key}.fault")
            entry = {name: value for name, value in entry.items() if name != "fault"}
        if isinstance(entry, dict) and "faults" in entry:
            self.refuse(f"{key}.faults", "is unknown; the tables are [[device.fault]]")
            return None
        device = self._convert(entry, SimDevice, key)
        if device is None:
            return None
        self._check(device, key)
        return msgspec.structs.replace(device, faults=faults)

    def _faults(self, given: Any, key: str) -> tuple[Fault, ...]:
        if not isinstance(given, list) or len(given) > MAX_FAULTS:
            self.refuse(key, f"must be at most {MAX_FAULTS} tables [[device.fault]]")
            return ()
        found = [self._convert(entry, Fault, f"{key}[{index}]") for index, entry in enumerate(given)]
        return tuple(fault for fault in found if fault is not None)

    def _check(self, device: SimDevice, key: str) -> None:
        """Check conditions between several fields."""
        heat, power = device.temperature, device.power
        if device.runtime_bytes > device.memory_bytes:
            self.refuse(f"{key}.runtime_bytes", "is more than memory_bytes", f"0..{device.memory_bytes}")
        if heat.loaded_celsius < heat.idle_celsius:
            self.refuse(f"{key}.temperature.loaded_celsius", "is below idle_celsius")
        if power.loaded_watts < power.idle_watts:
            self.refuse(f"{key}.power.loaded_watts", "is below idle_watts")
        if not power.idle_watts <= power.least_limit_watts <= power.most_limit_watts:
            self.refuse(f"{key}.power.least_limit_watts", "must lie between idle_watts and most_limit_watts")

    def _convert(self, entry: Any, kind: Any, key: str) -> Any:
        try:
            return msgspec.convert(entry, kind)
        except (msgspec.ValidationError, OverflowError) as error:
            what, _, where = str(error).partition(" - at `$")
            self.refuse(key + where.rstrip("`"), _plain(what))
            return None

    def refuse(self, key: str, what: str, allowed: str = "") -> None:
        """Note a violation."""
        self.violations.append(_violation(self._name, key, what, allowed))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _plain(what: str) -> str:
    """Words of msgspec's message after a field's name."""
    if "matching regex" in what:
        # The id is the only text with a pattern.
        return "must be sim-0 … sim-9999"
    return re.sub(r"^Expected ", "must be ", re.sub(r"^Object ", "", what)).replace("`", "")


def _violation(name: str, key: str, what: str, allowed: str = "") -> Violation:
    return Violation(field=f"{name}: {key}" if key else name, message=what, allowed=allowed)


def _refused(name: str, violations: list[Violation]) -> InvalidRequest:
    return InvalidRequest(violations, file=name)
