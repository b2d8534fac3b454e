"""The devices of this machine and how each is doing."""

from collections.abc import Sequence

import msgspec

from domains.device.device import Device, DeviceState
from domains.errors import ErrorReason, NotFound, Unavailable


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """A device and its present state."""

    device: Device
    state: DeviceState
    running: int
    """Jobs that run on it."""
    etag: str


class Devices:
    """What the workers told. Filled as each worker says hello; a lost worker's device stays listed, with its state."""

    def __init__(self, expected: Sequence[str] = ()) -> None:
        """`expected`: devices whose workers are being started; requests may name them already."""
        self._expected = set(expected)
        self._views: dict[str, DeviceView] = {}
        self._changes = 0

    def put(self, device: Device, state: DeviceState, running: int) -> None:
        """Note how a device is now."""
        known = self._views.get(device.id)
        if known and (known.device, known.state, known.running) == (device, state, running):
            return
        self._changes += 1
        self._views[device.id] = DeviceView(device=device, state=state, running=running, etag=f"{self._changes:x}")

    def list(self) -> list[DeviceView]:
        """All devices, accelerators first."""
        return sorted(self._views.values(), key=lambda view: (view.device.backend == "cpu", view.device.id))

    def check(self, name: str) -> None:
        """Refuse a name that is no device's, and will not be one when all workers have started."""
        if name not in self._expected:
            self.get(name)

    def get(self, name: str) -> DeviceView:
        """By id or alias; DEVICE_NOT_FOUND names those there are."""
        for view in self._views.values():
            if name == view.device.id or name in view.device.aliases:
                return view
        if name in self._expected:
            message = f"the worker of device {name!r} is still starting; try again in a few seconds"
            raise Unavailable(message, ErrorReason.STARTING, device_id=name)
        known = ", ".join(view.device.id for view in self.list()) or "none yet"
        raise NotFound(
            f"there is no device {name!r}; known: {known}", ErrorReason.DEVICE_NOT_FOUND, device_id=name, known=known
        )
