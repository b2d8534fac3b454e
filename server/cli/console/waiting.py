"""Tells why a job failed or what it waits for, from the contract's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.cli.calls.connection import Connection
from server.cli.console.failure import one_line
from server.cli.console.methods import in_commands

if TYPE_CHECKING:
    from deviceops.device.v1.device_pb2 import Device
    from deviceops.processing.v1.job_pb2 import Job


def reasons_of(connection: Connection, jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """For lists: why jobs failed or wait, by job id. Leaves out jobs that do neither."""

    waits = any(is_waiting(job) and not job.HasField("waits_for") for job in jobs)
    devices = devices_of(connection) if waits else []
    told = [(job.id, reason_of(job, devices)) for job in jobs]
    return [(name, text) for name, text in told if text]


def reason_of(job: Job, devices: Sequence[Device]) -> str:
    """Why the job failed or waits; empty: it does neither."""

    if job.HasField("failure"):
        return one_line(job.failure)
    if is_waiting(job):
        return f"waits for {waits_for(job, devices)}"
    return ""


def is_waiting(job: Job) -> bool:
    """Whether the job waits for something; a server of an older contract tells it with the state alone."""
    from deviceops.common.v1 import job_event_pb2 as pb

    return job.HasField("waits_for") or job.state in (pb.JOB_STATE_QUEUED, pb.JOB_STATE_INTERRUPTED)


def waits_for(job: Job, devices: Sequence[Device]) -> str:
    """What a job waits for: `a device: cpu is disabled`, `its turn: 2 waiting before it`.

    The devices tell it for a server of an older contract.
    """
    if job.HasField("waits_for"):
        return _told(job)
    from deviceops.device.v1 import device_pb2 as pb

    working = (pb.DEVICE_STATE_AVAILABLE, pb.DEVICE_STATE_BUSY, pb.DEVICE_STATE_DEGRADED)
    named = set(job.options.devices.device_ids)
    admitted = [one for one in devices if not named or named & {one.id, *one.aliases}]
    ready = [one for one in admitted if one.state in working]
    able = [one for one in ready if one.settings.enabled and not one.settings.draining]
    if able:
        return f"its turn or memory on {', '.join(one.id for one in able)}"
    if not admitted:
        return "a device: none is there" if not named else f"a device: {', '.join(sorted(named))} is not there"
    return f"a device: {'; '.join(f'{one.id} is {_state(one)}' for one in admitted)}"


def _told(job: Job) -> str:
    """What the job waits for, from the server's answer alone."""
    from deviceops.processing.v1 import job_pb2 as pb

    names = {
        pb.JOB_WAIT_REASON_DEVICE: "a device",
        pb.JOB_WAIT_REASON_MEMORY: "memory",
        pb.JOB_WAIT_REASON_TURN: "its turn",
        pb.JOB_WAIT_REASON_LOAD: "a load",
        pb.JOB_WAIT_REASON_SHUTDOWN: "the next start",
        pb.JOB_WAIT_REASON_SESSION: "its session",
    }
    return f"{names.get(job.waits_for.reason, 'something')}: {in_commands(job.waits_for.detail)}"


def _state(device: Device) -> str:
    from server.cli.devices.devices import state_text

    return state_text(device)


def devices_of(connection: Connection) -> Sequence[Device]:
    """All devices, lost ones too."""
    from deviceops.device.v1 import device_pb2
    from deviceops.device.v1 import device_service_pb2 as pb

    states = [state for state in device_pb2.DeviceState.values() if state]
    chosen = device_pb2.DeviceFilter(states=states)
    return connection.device.ListDevices(pb.ListDevicesRequest(filter=chosen)).devices
