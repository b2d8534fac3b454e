"""The devices of this machine and their states."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from domains.device.benchmark import BenchmarkReport
from domains.device.device import Device, DeviceState
from domains.device.device_events import DeviceEvents
from domains.device.record import (
    TAKES_WORK,
    Condition,
    DeviceFigures,
    DeviceReach,
    DeviceView,
    first_view,
    next_view,
)
from domains.device.settings import DeviceSettings
from domains.errors import Aborted, DeviceOpsError, ErrorReason, NotFound, NotSupported, Unavailable, excerpt
from domains.events import EventLog
from domains.failure import Failure

FINAL = frozenset({ErrorReason.FEATURE_NOT_INSTALLED, ErrorReason.DEVICE_NOT_FOUND})
"""Reasons for which a worker is not started again: an installation or a setting is missing."""


class Devices:
    """Holds the state of every device. All changes go through its methods."""

    def __init__(self, events: EventLog, expected: Sequence[str] = (), clock: Callable[[], float] = time.time) -> None:
        """`expected`: devices whose workers are being started; requests may name them already."""
        self.events = DeviceEvents(events)
        self._clock = clock
        self._instance = secrets.token_hex(4)
        self._expected: dict[str, DeviceOpsError | None] = dict.fromkeys(expected)
        """By name: why the worker was not ready at its last start."""
        self._views: dict[str, DeviceView] = {}
        self.listeners: list[Callable[[DeviceView, DeviceView | None], None]] = []
        """Called after each change, with the view before the change (None: a new device)."""
        self._changed = asyncio.Event()

    def list(self) -> list[DeviceView]:
        """All devices, lost ones too; accelerators first, the CPU last."""
        return sorted(self._views.values(), key=lambda view: (view.device.backend == "cpu", view.device.id))

    def check(self, name: str) -> None:
        """Raises DEVICE_NOT_FOUND unless the name is a device's, or will be when its worker has started."""
        if name not in self._expected or _cannot_be(self._expected[name]):
            self.get(name)

    def get(self, name: str) -> DeviceView:
        """The device with this id or alias. DEVICE_NOT_FOUND lists the devices that exist; STARTING for an expected one."""
        view = self.find(name)
        if view is not None:
            return view
        if name in self._expected:
            raise _not_ready(name, self._expected[name])
        known = ", ".join(view.device.id for view in self.list()) or "none yet"
        shown = excerpt(name)
        message = f"there is no device {shown!r}; known: {known}"
        raise NotFound(message, ErrorReason.DEVICE_NOT_FOUND, device_id=shown, known=known)

    def there(self, name: str) -> DeviceView:
        """The device with this id or alias, as `get`; DEVICE_LOST if it is lost."""
        view = self.get(name)
        if view.state is DeviceState.LOST:
            raise device_lost(view.device.id)
        return view

    def never_ready(self, name: str) -> DeviceOpsError | None:
        """Why no worker of this device has been ready yet: STARTING, or what keeps it from starting. None: one was, or there
        is no such device."""
        view = self.find(name)
        if view is None:
            return _not_ready(name, self._expected[name]) if name in self._expected else None
        refusal, device_id = view.condition.refusal, view.device.id
        if view.condition.worker_was_ready or not view.condition.present:
            return None
        if refusal is not None:
            return NotSupported(refusal.message, refusal.reason, device_id=device_id)
        if view.state is DeviceState.QUARANTINED:
            message = f"device {device_id} is quarantined before its first start: {view.state_reason}"
            return Unavailable(message, ErrorReason.DEVICE_RECOVERING, device_id=device_id)
        last = view.condition.health.last_failure
        problem = None if last is None else DeviceOpsError(last.message, last.reason)
        return _not_ready(device_id, problem) if view.state is DeviceState.STARTING else None

    @property
    def expects(self) -> bool:
        """Whether a worker is starting whose device is not known yet."""
        return not all(map(_cannot_be, self._expected.values()))

    def check_known(self) -> None:
        """Raises STARTING until the first device is known, as long as a worker may still report one."""
        if not self._views and self.expects:
            raise Unavailable("the devices are not known yet; try again in a few seconds", ErrorReason.STARTING)

    def find(self, name: str) -> DeviceView | None:
        """The device with this id or alias; None: there is none (yet)."""
        if name in self._views:
            return self._views[name]
        # A present device takes precedence over a lost one with the same alias.
        present = sorted(self._views.values(), key=lambda view: view.state is DeviceState.LOST)
        return next((view for view in present if name in view.device.aliases), None)

    def takes_work(self, device_id: str) -> bool:
        """Whether new jobs may start on the device."""
        view = self._views.get(device_id)
        return view is not None and view.state in TAKES_WORK

    def described(
        self, name: str, device: Device, reach: DeviceReach, *, ready: bool, settings: DeviceSettings | None = None
    ) -> DeviceView:
        """Record a device that its worker described (`ready`) or that the server found without one.

        `settings`: those that a new device begins with; not enabled: it was not chosen at the start.
        """
        for known_as in (name, device.id):
            self._expected.pop(known_as, None)
        view = self._views.get(device.id)
        if view is None:
            settings = settings or DeviceSettings()
            condition = Condition(
                worker_ready=ready, worker_was_ready=ready, settings=settings, chosen=settings.enabled
            )
            view = first_view(name, device, condition, reach, self._instance)
            self._put(view, None)
            return view
        changes: dict[str, Any] = {"worker_ready": ready}
        if ready:
            changes |= {"worker_was_ready": True, "refusal": None}
        return self._change(device.id, device=device, reach=reach, **changes)

    def unready(self, name: str, problem: DeviceOpsError) -> None:
        """Record that a worker ended before it was ready: an error of the device, or an installation that is missing."""
        view = self.find(name)
        if view is None:
            if name in self._expected:
                self._expected[name] = problem
        elif _cannot_be(problem):
            failure = Failure.of(problem)
            self._change(view.device.id, refusal=failure, failure=failure)
        else:
            self.failed(view.device.id, problem)

    def tried_again(self, device_id: str) -> None:
        """Forget why the worker could not serve the device: the installation may have changed."""
        self._change(device_id, refusal=None)

    def worker_gone(self, device_id: str, problem: DeviceOpsError | None) -> None:
        """Record that a worker has ended. `problem`: an error that ended it; None: the server ended it on purpose."""
        if device_id in self._views:
            failure = problem and Failure.of(problem)
            self._change(device_id, worker_ready=False, running=0, silent="", failure=failure)
            if problem is not None:
                self.failed(device_id, problem)

    def running(self, device_id: str, count: int) -> None:
        """Record how many jobs run on the device."""
        if device_id in self._views:
            self._change(device_id, running=count)

    def lost(self, device_id: str, why: str) -> int:
        """Record that the device is gone; returns the event's number."""
        problem = device_lost(device_id, why)
        failure = Failure.of(problem)
        self._change(device_id, present=False, worker_ready=False, running=0, silent="", failure=failure)
        return self.events.fault(device_id)

    def returned(self, device_id: str) -> None:
        """Record that a lost device is present again. Its worker has yet to start; its errors are cleared."""
        view = self._views[device_id]
        self.events.returned(view)
        self._change(device_id, present=True, worker_was_ready=True, health=view.health.cleared())

    def resetting(self, device_id: str, value: bool) -> None:
        """Record whether a reset is in progress."""
        self._change(device_id, resetting=value)

    def too_hot(self, device_id: str, value: bool) -> None:
        """Record whether the device is above its temperature ceiling."""
        self._change(device_id, too_hot=value)

    def silent(self, device_id: str, why: str) -> None:
        """Record that running work sends no reports (`why`), or that it sends them again (empty)."""
        view = self._views.get(device_id)
        if view is not None and view.condition.silent != why:
            self.events.silent(view, why)
            self._change(device_id, silent=why)

    def hangs(self) -> bool:
        """Whether every device that takes work is silent; False if none takes work."""
        working = [view for view in self._views.values() if view.state in TAKES_WORK]
        return bool(working) and all(view.condition.silent for view in working)

    def set_settings(self, device_id: str, settings: DeviceSettings, cause: str = "") -> DeviceView:
        """Apply settings that a caller chose."""
        before = self._views[device_id]
        too_hot = before.condition.too_hot and settings.max_temperature_celsius is not None
        chosen = before.condition.chosen or settings.enabled
        condition = msgspec.structs.replace(before.condition, settings=settings, too_hot=too_hot, chosen=chosen)
        view = next_view(before, condition=condition)
        if view is not before:
            # The event comes before the change of state that it causes.
            sequence = self.events.settings_changed(view, cause or "UpdateDevice")
            self._put(view, before, cause=sequence)
        return view

    def measured(self, report: BenchmarkReport, figures: DeviceFigures) -> None:
        """Record benchmark figures; capabilities and advice use them."""
        view = self._views[report.device_id]
        self._put(next_view(view, figures=figures, benchmark=report), view)

    def succeeded(self, device_id: str) -> None:
        """Record that a job or a check succeeded."""
        view = self._views.get(device_id)
        if view is not None and view.health.consecutive and not view.health.quarantined:
            health = msgspec.structs.replace(view.health.without_old_errors(self._clock()), consecutive=0)
            self._change(device_id, health=health)

    def forget_old_errors(self, device_id: str) -> None:
        """Drop errors that are older than the window."""
        self._change(device_id, health=self._views[device_id].health.without_old_errors(self._clock()))

    def failed(self, device_id: str, error: DeviceOpsError) -> None:
        """Record an error of device, driver or worker; repeated errors degrade the device, then quarantine it."""
        view = self._views.get(device_id)
        if view is None:
            return
        failure = Failure.of(error)
        self.events.error(view, failure)
        self._change(device_id, health=view.health.after(failure, self._clock()), failure=failure)

    def quarantine(self, device_id: str, error: DeviceOpsError) -> None:
        """Record a failed check: the device takes no work until a check passes."""
        self.failed(device_id, error)
        health = msgspec.structs.replace(self._views[device_id].health, quarantined=True)
        self._change(device_id, health=health, failure=Failure.of(error))

    def passed(self, device_id: str) -> None:
        """Record a passed check: the device's errors are cleared."""
        self._change(device_id, health=self._views[device_id].health.cleared())

    async def until(self, device_id: str, accept: Callable[[DeviceView], bool]) -> DeviceView:
        """Wait until the device's view is accepted."""
        while (view := self._views.get(device_id)) is None or not accept(view):
            await self._changed.wait()
        return view

    def _change(
        self,
        device_id: str,
        *,
        device: Device | None = None,
        reach: DeviceReach | None = None,
        failure: Failure | None = None,
        **changes: Any,
    ) -> DeviceView:
        before = self._views[device_id]
        condition = msgspec.structs.replace(before.condition, **changes)
        view = next_view(before, condition=condition, device=device, reach=reach)
        if view is not before:
            self._put(view, before, failure)
        return view

    def _put(self, view: DeviceView, before: DeviceView | None, failure: Failure | None = None, cause: int = 0) -> None:
        self._views[view.device.id] = view
        if before is None:
            self.events.appeared(view)
        elif view.state is not before.state:
            self.events.state_changed(view, before.state, failure, cause)
        for listener in self.listeners:
            listener(view, before)
        self._changed.set()
        self._changed = asyncio.Event()


def _not_ready(name: str, problem: DeviceOpsError | None) -> DeviceOpsError:
    """Why a worker is not ready. `problem`: why it was not at its last start; None: that is under way."""
    if problem is not None and _cannot_be(problem):
        return type(problem)(problem.message, problem.reason, **problem.facts)
    lately = f" (last time: {problem.message})" if problem else ""
    message = f"the worker of device {name!r} is still starting{lately}; try again in a few seconds"
    return Unavailable(message, ErrorReason.STARTING, device_id=name)


def _cannot_be(problem: DeviceOpsError | None) -> bool:
    return problem is not None and problem.reason in FINAL


def device_lost(device_id: str, why: str = "") -> Aborted:
    """The error for a device that is not present."""
    message = f"device {device_id} is not there" + (f": {why}" if why else "")
    return Aborted(message, ErrorReason.DEVICE_LOST, device_id=device_id)
