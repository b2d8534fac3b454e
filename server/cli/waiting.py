"""Tells why a job failed or what it waits for, from the contract's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.cli.connection import Connection
from server.cli.failure import one_line

if TYPE_CHECKING:
    from deviceops.device.v1.device_pb2 import Device
    from deviceops.processing.v1.job_pb2 import Job


def reasons_of(connection: Connection, jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """For lists: why jobs failed or wait, by job id. Leaves out jobs that do neither."""
    from deviceops.common.v1 import job_event_pb2 as pb

    waits = any(job.state in (pb.JOB_STATE_QUEUED, pb.JOB_STATE_INTERRUPTED) for job in jobs)
    devices = devices_of(connection) if waits else []
    told = [(job.id, reason_of(job, devices)) for job in jobs]
    return [(name, text) for name, text in told if text]


def reason_of(job: Job, devices: Sequence[Device]) -> str:
    """Why the job failed or waits; empty: it does neither."""
    from deviceops.common.v1 import job_event_pb2 as pb

    if job.HasField("failure"):
        return one_line(job.failure)
    if job.state in (pb.JOB_STATE_QUEUED, pb.JOB_STATE_INTERRUPTED):
        return f"waits for {waits_for(job, devices)}"
    return ""


def waits_for(job: Job, devices: Sequence[Device]) -> str:
    """What a queued job waits for: `a device: cpu is disabled`, or `its turn or memory on cpu`."""
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


def _state(device: Device) -> str:
    from server.cli.devices import state_text

    return state_text(device)


def devices_of(connection: Connection) -> Sequence[Device]:
    """All devices, lost ones too."""
    from deviceops.device.v1 import device_pb2
    from deviceops.device.v1 import device_service_pb2 as pb

    states = [state for state in device_pb2.DeviceState.values() if state]
    chosen = device_pb2.DeviceFilter(states=states)
    return connection.device.ListDevices(pb.ListDevicesRequest(filter=chosen)).devices
