"""Writes events of devices to the event log, each with the event that caused it."""

from domains.device.device import DeviceState
from domains.device.record import TAKES_WORK, DeviceView
from domains.events import EventDomain, EventLog, Severity
from domains.failure import Failure

_SEVERITY = {
    DeviceState.DEGRADED: Severity.WARNING,
    DeviceState.RECOVERING: Severity.WARNING,
    DeviceState.QUARANTINED: Severity.ERROR,
    DeviceState.LOST: Severity.ERROR,
}
_KINDS = {
    DeviceState.LOST: "device.lost",
    DeviceState.QUARANTINED: "device.quarantined",
}
_FAULTS = frozenset({DeviceState.LOST, DeviceState.RECOVERING, DeviceState.QUARANTINED})


class DeviceEvents:
    """Writes the events of all devices. A fault is the cause of all that follows until the device works again."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._fault: dict[str, int] = {}
        """By device: event of the fault that the device has not recovered from."""
        self._error: dict[str, int] = {}
        """By device: event of the newest error that has not changed the state yet."""
        self._state: dict[str, int] = {}
        """By device: event that set the present state."""

    def fault(self, device_id: str) -> int:
        """Event of the fault that the device has not recovered from. 0: none."""
        return self._fault.get(device_id, 0)

    def present_state(self, device_id: str) -> int:
        """Event that set the device's present state. 0: the first state."""
        return self._state.get(device_id, 0)

    def appeared(self, view: DeviceView) -> None:
        """A device appeared for the first time."""
        self._tell(view, "device.appeared", view.state_reason)

    def returned(self, view: DeviceView) -> None:
        """A lost device is present again."""
        self._tell(view, "device.returned", "it is there again", cause=self.fault(view.device.id))

    def settings_changed(self, view: DeviceView, cause: str) -> int:
        """A caller changed settings; a change of state that follows has this event as its cause."""
        return self._tell(view, "device.settings_changed", cause)

    def script_changed(self, view: DeviceView) -> None:
        """A simulated device follows a changed script."""
        self._tell(view, "device.script_changed", "")

    def error(self, view: DeviceView, failure: Failure) -> None:
        """The device, its driver or its worker failed."""
        device_id = view.device.id
        severity, cause = Severity.WARNING, self.fault(device_id)
        self._error[device_id] = self._tell(
            view, "device.error", failure.message, severity=severity, cause=cause, failure=failure
        )

    def silent(self, view: DeviceView, why: str) -> None:
        """Running work sends no reports (`why`), or sends them again (empty). It causes the next state event."""
        device_id, cause = view.device.id, self.fault(view.device.id)
        kind, severity = ("device.silent", Severity.WARNING) if why else ("device.responsive", Severity.INFO)
        message = why or "its work shows signs of life again"
        self._error[device_id] = self._tell(view, kind, message, severity=severity, cause=cause)

    def state_changed(self, view: DeviceView, before: DeviceState, failure: Failure | None, cause: int) -> None:
        """The device is in another state. `cause` 0: its fault, or its newest error."""
        device_id = view.device.id
        message = f"{before} → {view.state}" + (f": {view.state_reason}" if view.state_reason else "")
        sequence = self._tell(
            view,
            _KINDS.get(view.state, "device.state_changed"),
            message,
            severity=_SEVERITY.get(view.state, Severity.INFO),
            cause=cause or self.fault(device_id) or self._error.get(device_id, 0),
            failure=failure,
        )
        self._state[device_id] = sequence
        if view.state in _FAULTS:
            self._fault[device_id] = sequence
        elif view.state in TAKES_WORK:
            self._fault.pop(device_id, None)
            self._error.pop(device_id, None)

    def _tell(
        self,
        view: DeviceView,
        kind: str,
        message: str,
        *,
        severity: Severity = Severity.INFO,
        cause: int = 0,
        failure: Failure | None = None,
    ) -> int:
        return self._log.tell(
            EventDomain.DEVICE,
            kind,
            view.device.id,
            message,
            severity=severity,
            cause=cause,
            failure=failure,
            snapshot=view,
        )
