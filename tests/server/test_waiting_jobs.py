"""A job that waits says what for, in GetJob, in ListJobs and on the command line."""

from collections.abc import Iterator

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from deviceops.common.v1 import job_event_pb2
from deviceops.device.v1 import device_pb2, device_service_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from server.cli.app import run
from tests.server import asking
from tests.server.asking import CALL_S, picture
from tests.server.harness import RunningServer
from tests.server.sim import sim, simulated

HANGS = 'kind = "hung_step"\nat_step = 1\ntimes = 0'
LOADS_SLOWLY = 'kind = "slow_load"\nbytes_per_second = 100000'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Three devices: one hangs in every job, one is disabled, one loads for minutes. Each takes one job at a time."""
    devices = sim(0, "", HANGS), sim(1), sim(2, "", LOADS_SLOWLY)
    flags = ("--jobs-per-device", "1")
    with simulated(tmp_path_factory.mktemp("sim"), *devices, flags=flags) as (server, _, _):
        disabled = device_service_pb2.UpdateDeviceRequest(
            device_id="sim-1",
            settings=device_pb2.DeviceSettings(enabled=False),
            update_mask=FieldMask(paths=["enabled"]),
        )
        server.device.UpdateDevice(disabled, timeout=CALL_S)
        yield server


def on(server: RunningServer, device_id: str) -> str:
    chosen = job_event_pb2.DeviceSelector(device_ids=[device_id])
    return asking.submit(server, picture(steps=4), job_event_pb2.JobOptions(devices=chosen))


def occupied(server: RunningServer, device_id: str, stage: str) -> str:
    """The job that runs on the device, once it is in this stage."""
    job_id = on(server, device_id)
    watching = asking.follow(server, job_id)
    asking.until(watching, lambda update: update.event.stage_started.stage == stage)
    watching.cancel()
    return job_id


def wait_of(server: RunningServer, job_id: str) -> job_pb2.JobWait:
    """What GetJob tells, which ListJobs tells too."""
    told = asking.job_of(server, job_id).waits_for
    listed = server.processing.ListJobs(processing_service_pb2.ListJobsRequest(), timeout=CALL_S).jobs
    also = next(job for job in listed if job.id == job_id).waits_for
    assert (also.reason, also.device_id, also.ahead_count) == (told.reason, told.device_id, told.ahead_count)
    return told


def cancel_all(server: RunningServer, *job_ids: str) -> None:
    for job_id in job_ids:
        asking.cancel(server, job_id)


def said(server: RunningServer, capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert run([*command, "--address", server.address]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_its_turn_and_behind_how_many(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    running = occupied(server, "sim-0", "denoising")
    second, third = on(server, "sim-0"), on(server, "sim-0")
    told = wait_of(server, third)
    assert (told.reason, told.device_id, told.ahead_count) == (job_pb2.JOB_WAIT_REASON_TURN, "sim-0", 1)
    assert wait_of(server, second).ahead_count == 0
    assert not asking.job_of(server, running).HasField("waits_for")
    text = "waits for its turn: 1 waiting before it, 1 running on sim-0"
    assert text in said(server, capsys, "jobs")
    assert text in said(server, capsys, "job", "show", third)
    cancel_all(server, third, second)


def test_no_enabled_device(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    job_id = on(server, "sim-1")
    told = wait_of(server, job_id)
    assert (told.reason, told.HasField("ahead_count")) == (job_pb2.JOB_WAIT_REASON_DEVICE, False)
    assert "waits for a device: sim-1 is disabled" in said(server, capsys, "jobs")
    cancel_all(server, job_id)


def test_a_slow_load(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    loading = occupied(server, "sim-2", "loading")
    waiting = on(server, "sim-2")
    told = wait_of(server, waiting)
    assert (told.reason, told.device_id) == (job_pb2.JOB_WAIT_REASON_LOAD, "sim-2")
    assert loading in told.detail
    assert f"waits for a load: {loading} is loading its model on sim-2" in said(server, capsys, "jobs")
    cancel_all(server, waiting, loading)
