"""Workers of GPUs that are forked from the nursery, on a real server. Run with `-m gpu`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pynvml
import pytest

from deviceops.common.v1 import job_event_pb2
from deviceops.device.v1 import device_service_pb2
from deviceops.processing.v1 import system_status_pb2
from tests.faults.processes import eventually, gone, kill
from tests.server import asking
from tests.server.asking import kind
from tests.server.harness import RunningServer, running_server

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server of all GPUs, each with its first worker ready."""
    with running_server("--device", "cuda", own_nursery=True) as running:
        eventually(lambda: workers(running).keys() == devices(running).keys() != set(), within_s=120)
        yield running


@pytest.fixture(scope="module", autouse=True)
def nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    yield
    pynvml.nvmlShutdown()


def devices(server: RunningServer) -> dict[str, str]:
    """Ids of the GPUs and their UUIDs."""
    listed = server.device.ListDevices(device_service_pb2.ListDevicesRequest()).devices
    # The CPU is listed too; no worker computes on it.
    return {device.id: device.identity.vendor_uuid for device in listed if device.identity.vendor_uuid}


def workers(server: RunningServer) -> dict[str, int]:
    """Process ids of the ready workers by their GPU's id."""
    told = server.status().workers
    return {one.device_id: one.process_id for one in told if one.state == system_status_pb2.WORKER_STATE_READY}


def nursery_of(server: RunningServer) -> int:
    children = psutil.Process(server.process.pid).children()
    found = [one.pid for one in children if "server.worker.nursery" in one.cmdline()]
    return next(pid for pid in found if pid not in workers(server).values())


def on_gpu(uuid: str) -> set[int]:
    """Processes that compute on it."""
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}


def test_each_fork_is_on_its_own_gpu_and_no_other_and_the_nursery_on_none(server: RunningServer) -> None:
    there, nursery = workers(server), nursery_of(server)
    for device_id, uuid in devices(server).items():
        worker = there[device_id]
        assert psutil.Process(worker).cmdline() == psutil.Process(nursery).cmdline(), "it is no fork"
        assert on_gpu(uuid) & {*there.values(), nursery} == {worker}


def test_the_nursery_has_opened_no_gpu(server: RunningServer) -> None:
    nursery = Path(f"/proc/{nursery_of(server)}")
    assert not [one for one in (nursery / "fd").iterdir() if str(one.readlink()).startswith("/dev/nvidia")]
    assert not [one for one in (nursery / "task").iterdir() if "cuda" in (one / "comm").read_text()]


def test_forks_make_pictures_and_so_do_the_next_ones_after_their_death(server: RunningServer) -> None:
    before, nursery = workers(server), nursery_of(server)
    assert endings(server) == dict.fromkeys(before, "succeeded")
    for worker in before.values():
        kill(worker)
    eventually(lambda: replaced(before, workers(server)))
    assert nursery_of(server) == nursery
    assert all(gone(pid) for pid in before.values())
    assert endings(server) == dict.fromkeys(before, "succeeded")


def replaced(before: dict[str, int], now: dict[str, int]) -> bool:
    """Whether each device has a worker that is another one."""
    return now.keys() == before.keys() and not {*now.values()} & {*before.values()}


def endings(server: RunningServer) -> dict[str, str]:
    """How a picture on each device ends."""
    jobs: dict[str, str] = {}
    for device_id in workers(server):
        wanted = job_event_pb2.DeviceSelector(device_ids=[device_id])
        jobs[device_id] = asking.submit(server, options=job_event_pb2.JobOptions(devices=wanted))
    return {device_id: kind(asking.watch(server, job_id)[-1]) for device_id, job_id in jobs.items()}
