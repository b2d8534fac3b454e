"""What the log of changes is told of devices, and what is the cause of what."""

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
    """A fault is the cause of what follows, until the device works again."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._fault: dict[str, int] = {}
        """By device: the event of the fault that it has not recovered from."""
        self._error: dict[str, int] = {}
        """By device: the event of an error that its state has not followed from yet."""
        self._state: dict[str, int] = {}
        """By device: the event of its present state."""

    def fault(self, device_id: str) -> int:
        """The event of the fault that the device has not recovered from. 0: none."""
        return self._fault.get(device_id, 0)

    def present_state(self, device_id: str) -> int:
        """The event by which the device came into its present state. 0: it is as it was found."""
        return self._state.get(device_id, 0)

    def appeared(self, view: DeviceView) -> None:
        """It was never seen before."""
        self._tell(view, "device.appeared", view.state_reason)

    def returned(self, view: DeviceView) -> None:
        """It was lost, and is there again."""
        self._tell(view, "device.returned", "it is there again", cause=self.fault(view.device.id))

    def settings_changed(self, view: DeviceView, cause: str) -> int:
        """Somebody chose; the event is the cause of the change of state that follows from it."""
        return self._tell(view, "device.settings_changed", cause)

    def script_changed(self, view: DeviceView) -> None:
        """A simulated device follows another script from now on."""
        self._tell(view, "device.script_changed", "")

    def error(self, view: DeviceView, failure: Failure) -> None:
        """The device, its driver or its worker failed."""
        device_id = view.device.id
        severity, cause = Severity.WARNING, self.fault(device_id)
        self._error[device_id] = self._tell(
            view, "device.error", failure.message, severity=severity, cause=cause, failure=failure
        )

    def state_changed(self, view: DeviceView, before: DeviceState, failure: Failure | None, cause: int) -> None:
        """It came into another state; `cause` 0: its fault, or its last error."""
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
