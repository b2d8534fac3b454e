"""Simulated devices and their properties. `script_file` reads them from a file."""

from typing import Annotated

import msgspec

from domains.device.simulated.faults import Fault
from domains.errors import InvalidRequest, Violation

MAX_DEVICES = 64
MAX_FAULTS = 64
"""Maximum per device."""

_Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
_Celsius = Annotated[float, msgspec.Meta(ge=-50, le=200)]
_Watts = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
_Id = Annotated[str, msgspec.Meta(pattern="^sim-(0|[1-9][0-9]{0,3})\\Z")]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Speed = Annotated[float, msgspec.Meta(ge=0.0001, le=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Temperature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Temperature of a device."""

    idle_celsius: _Celsius = 35.0
    loaded_celsius: _Celsius = 70.0
    heating_s: _Seconds = 30.0
    """Time from a change of load until 95 % of the change in temperature. 0: at once."""


class Power(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Power draw, and the accepted limits."""

    idle_watts: _Watts = 20.0
    loaded_watts: _Watts = 200.0
    least_limit_watts: _Watts = 100.0
    most_limit_watts: _Watts = 250.0


class SimDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One simulated device."""

    id: _Id
    """`sim-0`."""
    name: _Name = "Simulated device"
    """For people."""
    present: bool = True
    """False: the device is unplugged."""
    memory_bytes: _Bytes = 8 * 2**30
    """Total memory, including that of the runtime."""
    runtime_bytes: _Bytes = 256 * 2**20
    """Memory that a driver's context would take when a worker starts."""
    speed: _Speed = 1.0
    """Relative to the host's CPU: at 0.5 each unit of work takes twice as long."""
    temperature: Temperature = Temperature()
    power: Power = Power()
    faults: Annotated[tuple[Fault, ...], msgspec.Meta(max_length=MAX_FAULTS)] = ()

    @property
    def index(self) -> int:
        """The number in the id."""
        return int(self.id.removeprefix("sim-"))


class SimScript(msgspec.Struct, frozen=True, kw_only=True):
    """All simulated devices."""

    devices: tuple[SimDevice, ...]

    def device(self, device_id: str) -> SimDevice | None:
        """The device with this id, present or not; None: the script has no such device."""
        return next((device for device in self.devices if device.id == device_id), None)

    @property
    def present(self) -> tuple[SimDevice, ...]:
        """Devices that are plugged in."""
        return tuple(device for device in self.devices if device.present)


def default_script(count: int) -> SimScript:
    """Devices without faults, `sim-0`, `sim-1` …, for `--device sim:COUNT`. INVALID_FIELD outside 1..64."""
    if not 1 <= count <= MAX_DEVICES:
        message = f"{count} simulated devices were asked for; choose 1..{MAX_DEVICES}"
        raise InvalidRequest([Violation(field="device", message=message, allowed=f"1..{MAX_DEVICES}")])
    return SimScript(devices=tuple(SimDevice(id=f"sim-{index}", name=f"Simulated {index}") for index in range(count)))
