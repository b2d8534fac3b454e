"""Applies settings that callers choose for a device, at once."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence

import msgspec
import structlog

from domains.device.device import Device, DeviceState
from domains.device.devices import Devices
from domains.device.record import DeviceView, next_view
from domains.device.settings import DeviceSettings, changed
from domains.device.threaded_telemetry import ThreadedTelemetry
from domains.errors import Aborted, DeviceOpsError, ErrorReason
from domains.processing.lanes.lanes import Lanes

_log = structlog.get_logger()


class DeviceChange(msgspec.Struct, frozen=True, kw_only=True):
    """The device after a change, and the jobs that the change affects."""

    view: DeviceView
    finishing: tuple[str, ...] = ()
    """Running jobs that may finish after draining or disabling."""
    stranded: tuple[str, ...] = ()
    """Queued jobs that no device can run now."""


class DeviceControl:
    """Applies settings: all of them or none."""

    def __init__(
        self,
        devices: Devices,
        lanes: Lanes,
        telemetry: ThreadedTelemetry,
        start: Callable[[str, Device], None],
        pump: Callable[[], None],
        stranded_without: Callable[[str], tuple[str, ...]],
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        """`start` starts the worker of a device, by its name. `pump` starts queued jobs that can start now.

        `stranded_without`: ids of the queued jobs that only this device could run.
        """
        self._devices = devices
        self._lanes = lanes
        self._telemetry = telemetry
        self._start = start
        self._pump = pump
        self._stranded_without = stranded_without
        self._spawn = spawn
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By device. A change awaits the driver; other changes of the device wait meanwhile."""
        self._limited: set[str] = set()
        """Devices whose power limit was changed here."""
        devices.listeners.append(self._device_changed)

    async def _apply_again(self, device_id: str) -> None:
        """Set the power limit again on a device that was lost and has returned: its driver no longer has the limit."""
        async with self._changing[device_id]:
            view = self._devices.get(device_id)
            watts = view.settings.power_limit_watts
            if watts is None:
                return
            try:
                await self._telemetry.set_power_limit(view.device, watts)
            except DeviceOpsError as error:
                _log.warning("power limit could not be set again", device=device_id, problem=error.message)
                settings = msgspec.structs.replace(self._devices.get(device_id).settings, power_limit_watts=None)
                self._devices.set_settings(device_id, settings, "its driver refused its power limit when it came back")

    async def restore_limits(self) -> None:
        """Restore the power limits from before the server's changes, when the server stops."""
        for device_id in sorted(self._limited):
            view = self._devices.find(device_id)
            if view is not None and view.state is not DeviceState.LOST:
                await self._restore(view)

    async def _restore_left_over(self, device_id: str) -> None:
        """Restore the power limit that a killed server left behind, when a device is first seen."""
        async with self._changing[device_id]:
            if device_id not in self._limited:
                await self._restore(self._devices.get(device_id))

    async def _restore(self, view: DeviceView) -> None:
        try:
            await self._telemetry.restore(view.device)
        except DeviceOpsError as error:
            _log.warning("power limit could not be put back", device=view.device.id, problem=error.message)

    async def update(
        self, name: str, new: DeviceSettings, mask: Sequence[str], *, etag: str, validate_only: bool, cause: str
    ) -> DeviceChange:
        """Change the settings in the mask.

        Raises INVALID_FIELD, ETAG_MISMATCH, NOT_SUPPORTED_ON_DEVICE, DEVICE_LOST; DRIVER_ERROR if the driver refused, in
        which case the former settings hold.
        """
        device_id = self._devices.get(name).device.id
        async with self._changing[device_id]:
            return await self._update(device_id, new, mask, etag, validate_only, cause)

    async def _update(
        self, device_id: str, new: DeviceSettings, mask: Sequence[str], etag: str, validate_only: bool, cause: str
    ) -> DeviceChange:
        view = self._devices.get(device_id)
        if etag and etag != view.etag:
            message = f"device {device_id} has changed since its etag was read; read it again"
            raise Aborted(message, ErrorReason.ETAG_MISMATCH, device_id=device_id, etag=view.etag)
        # The driver is asked only for a power limit: a device whose driver hangs can still be disabled.
        asked = "power_limit_watts" in mask and not validate_only
        power = await self._telemetry.power_range(view.device) if asked else None
        span = (power.least_watts, power.most_watts) if power else None
        settings = changed(view.settings, new, mask, view.reach.controls, span, view.reach.capacity)
        self._devices.there(device_id)
        if validate_only:
            condition = msgspec.structs.replace(view.condition, settings=settings)
            return self._impact(next_view(view, condition=condition))
        if settings.power_limit_watts != view.settings.power_limit_watts:
            # Before anything else changes, because the driver may refuse.
            await self._telemetry.set_power_limit(view.device, settings.power_limit_watts)
            self._limited.add(device_id)
        if settings.enabled and not view.settings.enabled:
            self._start(view.name, view.device)
        changed_view = self._devices.set_settings(device_id, settings, cause)
        self._pump()
        return self._impact(changed_view)

    def _impact(self, view: DeviceView) -> DeviceChange:
        if view.settings.enabled and not view.settings.draining:
            return DeviceChange(view=view)
        lane = self._lanes.of(view.device.id)
        return DeviceChange(
            view=view,
            finishing=tuple(lane.running) if lane else (),
            stranded=self._stranded_without(view.device.id),
        )

    def _device_changed(self, view: DeviceView, before: DeviceView | None) -> None:
        if before is None:
            self._spawn(self._restore_left_over(view.device.id))
        elif before.state is DeviceState.LOST and view.state is not DeviceState.LOST:
            self._spawn(self._apply_again(view.device.id))
