"""A device that hangs is told of long before its worker is given up, and it comes back by itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deviceops.common.v1 import domain_pb2, job_event_pb2
from deviceops.processing.v1 import system_status_pb2
from tests.server import asking
from tests.server.asking import CALL_S, kind, kinds, picture
from tests.server.harness import RunningServer
from tests.server.sim import Events, Script, sim, simulated

HANGS = 'kind = "hung_step"\nat_step = 3'
STATUS = health_pb2.HealthCheckResponse
INFERENCE = "deviceops.inference.v1.InferenceService"
ENVIRONMENT = {"DEVICEOPS_SILENCE_S": "1", "DEVICEOPS_STALL_TIMEOUT_S": "8"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Script, Events]]:
    """Two devices: each hangs once in the third step of a job."""
    devices = sim(0, "", HANGS), sim(1, "", HANGS)
    with simulated(tmp_path_factory.mktemp("sim"), *devices, environment=ENVIRONMENT) as machine:
        yield machine


def submit_on(server: RunningServer, device_id: str, steps: int = 4) -> str:
    chosen = job_event_pb2.DeviceSelector(device_ids=[device_id])
    return asking.submit(server, picture(steps=steps), job_event_pb2.JobOptions(devices=chosen))


def readiness(server: RunningServer) -> Any:
    domains = server.status().domains
    return next(one for one in domains if one.domain == domain_pb2.DOMAIN_INFERENCE)


def health(server: RunningServer, service: str) -> Any:
    """Changes of a service's health."""
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S)
    assert next(watch).status == STATUS.SERVING
    return watch


def silent(events: Events, device_id: str) -> Any:
    """The event of a silent step; a first load that takes long may be told too."""
    return events.until(
        lambda event: event.kind == "device.silent" and event.resource_id == device_id and "denoising" in event.message
    )


def test_hanging_devices_are_degraded_and_not_serving_until_they_move(
    machine: tuple[RunningServer, Script, Events],
) -> None:
    server, _, events = machine
    for device_id in ("sim-0", "sim-1"):
        # Loaded and measured: from here on, only the hung step is unusual.
        asking.watch(server, submit_on(server, device_id, steps=2))
    whole, inference = health(server, ""), health(server, INFERENCE)
    first = submit_on(server, "sim-0")
    silent(events, "sim-0")
    told = events.until_state("sim-0", "DEGRADED").device
    assert "no sign of life" in told.state_reason
    assert first in told.state_reason
    # The other one works.
    assert readiness(server).readiness == system_status_pb2.READINESS_DEGRADED
    assert "sim-0" in readiness(server).detail
    second = submit_on(server, "sim-1")
    silent(events, "sim-1")
    assert next(whole).status == STATUS.NOT_SERVING
    assert next(inference).status == STATUS.NOT_SERVING
    # Their workers are ended in the end; nobody has to do anything.
    assert next(whole).status == STATUS.SERVING
    assert next(inference).status == STATUS.SERVING
    for job_id in (first, second):
        seen = asking.watch(server, job_id)
        assert "interrupted" in kinds(seen)
        assert kind(seen[-1]) == "succeeded"
    assert readiness(server).readiness == system_status_pb2.READINESS_READY


def test_a_device_that_is_only_slow_comes_back_with_its_next_step(
    machine: tuple[RunningServer, Script, Events],
) -> None:
    server, script, events = machine
    # A step of this size takes about 20 ms at full speed.
    script.write(sim(0), sim(1), sim(2, "speed = 0.01"))
    events.until_state("sim-2", "AVAILABLE")
    job_id = submit_on(server, "sim-2", steps=2)
    silent(events, "sim-2")
    back = events.until(lambda event: event.kind == "device.responsive" and event.resource_id == "sim-2")
    assert not back.device.state_failure.message
    seen = asking.watch(server, job_id)
    assert "interrupted" not in kinds(seen)
    assert kind(seen[-1]) == "succeeded"
