"""The record of one device, and the state that follows from it."""

import time

import msgspec

from domains.device.benchmark import BenchmarkReport
from domains.device.device import Device, DeviceState
from domains.device.settings import DeviceSettings
from domains.failure import Failure

_SWITCHED_OFF = "a caller has disabled it; UpdateDevice enables it"
_NOT_CHOSEN = "not chosen with --device; UpdateDevice enables it"


class DeviceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures from BenchmarkDevice; absent: not measured yet."""

    memory_bandwidth_bytes_per_s: float | None = None
    relative_speed: float | None = None
    """Speed of a denoising step relative to this host's CPU."""


class DeviceReach(msgspec.Struct, frozen=True, kw_only=True):
    """What can be measured and changed on a device."""

    telemetry: tuple[str, ...] = ()
    """Names of the DeviceSample fields that can be measured."""
    controls: tuple[str, ...] = ()
    """Names of the DeviceSettings fields that can be changed."""
    capacity: int = 1
    """Maximum number of concurrent jobs."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of device, driver and worker. Errors of requests do not count."""

    error_count: int = 0
    """Errors since the server started."""
    consecutive: int = 0
    """Errors since the last job or check that succeeded."""
    recent_s: tuple[float, ...] = ()
    """Unix times of the errors of the last `ERROR_WINDOW_S`, whatever succeeded between them."""
    last_failure: Failure | None = None
    last_failure_time_s: float = 0.0
    quarantined: bool = False

    @property
    def degraded(self) -> bool:
        """Whether there were too many errors in a row, or in the window."""
        return self.consecutive >= DEGRADE_AFTER or len(self.recent_s) >= DEGRADE_WITHIN

    @property
    def why_quarantined(self) -> str:
        """The check that failed, or how many errors there were; for people."""
        if self.last_failure is None or "check" in self.last_failure.facts:
            return self.last_failure.message if self.last_failure else ""
        counts = f"{self.consecutive} errors in a row, {len(self.recent_s)} in {ERROR_WINDOW_S / 60:.0f} minutes"
        return f"{counts}; the last: {self.last_failure.message}"

    def after(self, failure: Failure, now_s: float) -> "Health":
        """The health after one more error."""
        consecutive, recent = self.consecutive + 1, (*self.without_old_errors(now_s).recent_s, now_s)
        too_many = consecutive >= QUARANTINE_AFTER or len(recent) >= QUARANTINE_WITHIN
        return Health(
            error_count=self.error_count + 1,
            consecutive=consecutive,
            recent_s=recent,
            last_failure=failure,
            last_failure_time_s=now_s,
            quarantined=self.quarantined or too_many,
        )

    def without_old_errors(self, now_s: float) -> "Health":
        """The health without errors that are older than the window."""
        recent = tuple(at_s for at_s in self.recent_s if at_s > now_s - ERROR_WINDOW_S)
        return self if recent == self.recent_s else msgspec.structs.replace(self, recent_s=recent)

    def cleared(self) -> "Health":
        """The health without errors in a row or in the window, and without quarantine. `error_count` stays."""
        return msgspec.structs.replace(self, consecutive=0, recent_s=(), quarantined=False)


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the state depends on."""

    settings: DeviceSettings = DeviceSettings()
    health: Health = Health()
    present: bool = True
    worker_ready: bool = False
    worker_was_ready: bool = False
    refusal: Failure | None = None
    """Why this installation cannot run a worker for the device."""
    resetting: bool = False
    too_hot: bool = False
    silent: str = ""
    """Why the device counts as silent: its running work has sent no report for unusually long. Empty: it is not silent."""
    chosen: bool = True
    """False: `--device` does not choose it, and no caller has changed that."""
    running: int = 0
    """Number of running jobs."""

    def state(self) -> tuple[DeviceState, str]:
        """The worst state that applies, with the reason for people."""
        last = self.health.last_failure.message if self.health.last_failure else ""
        table = (
            (not self.present, DeviceState.LOST, "the device is not there any more"),
            (
                self.refusal is not None,
                DeviceState.QUARANTINED,
                self.refusal.message if self.refusal else "",
            ),
            (self.health.quarantined, DeviceState.QUARANTINED, self.health.why_quarantined),
            (self.resetting, DeviceState.RECOVERING, "it is being reset"),
            (
                self.worker_was_ready and not self.worker_ready and self.settings.enabled,
                DeviceState.RECOVERING,
                "its worker process is being started again",
            ),
            (not self.settings.enabled, DeviceState.DISABLED, _SWITCHED_OFF if self.chosen else _NOT_CHOSEN),
            (self.settings.draining, DeviceState.DRAINING, ""),
            (not self.worker_ready, DeviceState.STARTING, "its worker process is starting"),
            (bool(self.silent), DeviceState.DEGRADED, self.silent),
            (self.too_hot, DeviceState.DEGRADED, "it is hotter than its max_temperature_celsius"),
            (self.health.degraded, DeviceState.DEGRADED, f"had errors lately: {last}"),
            (self.running > 0, DeviceState.BUSY, ""),
        )
        return next(((state, reason) for applies, state, reason in table if applies), (DeviceState.AVAILABLE, ""))


DEGRADE_AFTER = 2
"""Errors in a row after which other devices get jobs first."""
QUARANTINE_AFTER = 4
"""Errors in a row after which the device gets no jobs: more than the attempts of one job, which may be the cause."""
ERROR_WINDOW_S = 600.0
DEGRADE_WITHIN = 4
"""Errors in the window after which the device is degraded, even if jobs succeeded between them."""
QUARANTINE_WITHIN = 8

TAKES_WORK = frozenset({DeviceState.AVAILABLE, DeviceState.BUSY, DeviceState.DEGRADED})


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """A device at one moment."""

    name: str
    """The worker's device name: `cuda:0`, `cpu`, `sim-0`."""
    device: Device
    condition: Condition
    state: DeviceState
    state_reason: str
    state_time_s: float
    discover_time_s: float
    update_time_s: float
    """Time of the newest change of anything but the state."""
    etag: str
    """Changes with driver, capabilities and settings, not with the state."""
    figures: DeviceFigures = DeviceFigures()
    reach: DeviceReach = DeviceReach()
    benchmark: BenchmarkReport | None = None
    """The newest benchmark."""

    @property
    def running(self) -> int:
        """Number of running jobs."""
        return self.condition.running

    @property
    def settings(self) -> DeviceSettings:
        """Settings that callers chose."""
        return self.condition.settings

    @property
    def health(self) -> Health:
        """Errors of the device."""
        return self.condition.health


def first_view(name: str, device: Device, condition: Condition, reach: DeviceReach, instance: str = "") -> DeviceView:
    """The first view of a device. `instance`: hex digits of this server, so that etags of other servers do not match."""
    now = time.time()
    state, reason = condition.state()
    return DeviceView(
        name=name,
        device=device,
        condition=condition,
        state=state,
        state_reason=reason,
        state_time_s=now,
        discover_time_s=now,
        update_time_s=now,
        etag=f"{instance}00000001",
        reach=reach,
    )


def next_view(
    view: DeviceView,
    *,
    condition: Condition | None = None,
    device: Device | None = None,
    figures: DeviceFigures | None = None,
    reach: DeviceReach | None = None,
    benchmark: BenchmarkReport | None = None,
) -> DeviceView:
    """The view after a change; the same object if nothing changed."""
    now = time.time()
    device, condition = device or view.device, condition or view.condition
    figures, reach = figures or view.figures, reach or view.reach
    lasting = _lasting(device, view.device), condition.settings, figures, reach
    changed = lasting != (view.device, view.settings, view.figures, view.reach)
    benchmark = benchmark or view.benchmark
    if not changed and (condition, device, benchmark) == (view.condition, view.device, view.benchmark):
        return view
    state, reason = condition.state()
    return msgspec.structs.replace(
        view,
        device=device,
        condition=condition,
        figures=figures,
        reach=reach,
        benchmark=benchmark,
        state=state,
        state_reason=reason,
        state_time_s=view.state_time_s if state is view.state else now,
        update_time_s=now if changed else view.update_time_s,
        etag=f"{int(view.etag, 16) + 1:x}" if changed else view.etag,
    )


def _lasting(device: Device, before: Device) -> Device:
    """The device as it is now, with the properties that a restart of its worker changes as they were before."""
    return msgspec.structs.replace(device, worker_pid=before.worker_pid, probe_time_s=before.probe_time_s)
