"""QueryDeviceHistory, and where a device is, against a server with simulated devices."""

import time
from collections.abc import Iterator

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.device.v1 import device_pb2, device_service_pb2
from deviceops.device.v1.device_history_pb2 import DeviceHistory
from deviceops.memory.v1 import memory_service_pb2
from deviceops.processing.v1 import job_pb2, node_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, picture, refused
from tests.server.harness import RunningServer
from tests.server.sim import Events, Script, device, sim, simulated

Machine = tuple[RunningServer, Script, Events]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with simulated(tmp_path_factory.mktemp("sim"), sim(0), sim(1)) as everything:
        yield everything


@pytest.fixture
def server(machine: Machine) -> RunningServer:
    return machine[0]


def history(server: RunningServer, device_id: str, **more: object) -> DeviceHistory:
    request = device_service_pb2.QueryDeviceHistoryRequest(device_id=device_id, **more)  # pyright: ignore[reportArgumentType]  # fields
    return server.device.QueryDeviceHistory(request, timeout=CALL_S).history


def sampled(server: RunningServer, device_id: str) -> float:
    """Unix time of a sample that the history has."""
    request = device_service_pb2.GetDeviceStatusRequest(device_id=device_id)
    return server.device.GetDeviceStatus(request, timeout=CALL_S).status.sample_time.ToNanoseconds() / 1e9


def at(unix_s: float) -> Timestamp:
    return Timestamp(seconds=int(unix_s))


def test_the_history_holds_what_was_measured_and_only_that(server: RunningServer) -> None:
    then = sampled(server, "sim-0")
    told = history(server, "sim:0")
    assert told.device_id == "sim-0"
    assert told.step.seconds == 2
    (step,) = (one for one in told.samples if one.sample_time.seconds <= then < one.sample_time.seconds + 2)
    assert step.sample_count >= 1
    assert step.used_memory_bytes > 0
    assert 0 <= step.utilization_ratio <= 1
    assert step.temperature_celsius > 0
    assert step.power_watts > 0
    assert not step.HasField("fan_speed_fraction")
    assert told.total_memory_bytes == 8 << 30


def test_a_device_is_recorded_although_nobody_asks_how_it_is(server: RunningServer) -> None:
    """Its history began before the test asked, and begins where the server does."""
    began = server.status().start_time.ToNanoseconds()
    told = history(server, "sim-1")
    assert began < told.begin_time.ToNanoseconds() < time.time_ns()
    assert told.samples[0].sample_time.ToNanoseconds() <= told.begin_time.ToNanoseconds()


def test_work_shows_in_the_history(server: RunningServer) -> None:
    options = job_event_pb2.JobOptions(devices=job_event_pb2.DeviceSelector(device_ids=["sim-0"]))
    job_id = asking.submit(server, picture(steps=asking.LONG_STEPS), options)
    asking.wait_for_step(server, job_id)
    then = sampled(server, "sim-0")
    asking.cancel(server, job_id)
    asking.watch(server, job_id)
    samples = history(server, "sim-0").samples
    (step,) = (one for one in samples if one.sample_time.seconds <= then < one.sample_time.seconds + 2)
    assert step.utilization_ratio > 0


def test_a_longer_step_has_all_measurements_of_the_shorter_ones(server: RunningServer) -> None:
    sampled(server, "sim-0")
    end = at(time.time() - 1)
    fine = history(server, "sim-0", end_time=end)
    coarse = history(server, "sim-0", end_time=end, step=Duration(seconds=600))
    assert len(coarse.samples) == 1
    assert coarse.samples[0].sample_count == sum(one.sample_count for one in fine.samples)
    assert coarse.step.seconds == 600


def test_a_time_before_the_server_is_empty_and_no_zeros(server: RunningServer) -> None:
    begin = server.status().start_time.seconds
    told = history(server, "sim-0", start_time=at(begin - 7200), end_time=at(begin - 3600))
    assert not told.samples
    assert told.HasField("begin_time")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"step": Duration(seconds=1)}, "step"),
        ({"start_time": Timestamp(seconds=2000), "end_time": Timestamp(seconds=1000)}, "end_time"),
        ({"start_time": Timestamp(seconds=1 << 60)}, "start_time"),
    ],
)
def test_a_history_that_cannot_be_meant_is_refused(server: RunningServer, wrong: dict[str, object], field: str) -> None:
    told = refused(lambda: history(server, "sim-0", **wrong))
    assert (told.reason, told.fields) == ("INVALID_FIELD", [field])


def test_an_unknown_device_has_no_history(server: RunningServer) -> None:
    assert refused(lambda: history(server, "gpu-none")).reason == "DEVICE_NOT_FOUND"


# Nodes.


def test_the_servers_own_machine_is_a_node_with_its_devices(server: RunningServer) -> None:
    status = server.status()
    (node,) = status.nodes
    assert (node.id, node.version, node.state) == ("", status.server_version, node_pb2.NODE_STATE_READY)
    assert set(node.device_ids) == {"sim-0", "sim-1", "cpu"}
    assert status.start_time.ToNanoseconds() <= node.state_time.ToNanoseconds() <= time.time_ns()
    assert device(server, "sim-0").node_id == ""


def test_a_machine_whose_devices_are_all_switched_off_says_so(machine: Machine) -> None:
    server = machine[0]
    before = server.status().nodes[0]
    try:
        for name in ("sim-0", "sim-1"):
            switch(server, name, enabled=False)
        off = server.status().nodes[0]
        assert off.state == node_pb2.NODE_STATE_UNAVAILABLE
        assert off.state_time.ToNanoseconds() > before.state_time.ToNanoseconds()
    finally:
        for name in ("sim-0", "sim-1"):
            switch(server, name, enabled=True)
    assert server.status().nodes[0].state != node_pb2.NODE_STATE_UNAVAILABLE


def switch(server: RunningServer, device_id: str, *, enabled: bool) -> None:
    request = device_service_pb2.UpdateDeviceRequest(device_id=device_id)
    request.settings.enabled = enabled
    request.update_mask.paths.append("enabled")
    server.device.UpdateDevice(request, timeout=CALL_S)


@pytest.mark.parametrize(
    ("nodes", "found"), [([], True), ([""], True), (["elsewhere"], False), (["elsewhere", ""], True)]
)
def test_devices_and_pools_are_listed_by_node(server: RunningServer, nodes: list[str], found: bool) -> None:
    wanted = device_pb2.DeviceFilter(node_ids=nodes)
    devices = server.device.ListDevices(device_service_pb2.ListDevicesRequest(filter=wanted), timeout=CALL_S).devices
    request = memory_service_pb2.ListMemoryPoolsRequest(node_ids=nodes)
    pools = server.memory.ListMemoryPools(request, timeout=CALL_S).memory_pools
    assert ("sim-0" in {one.id for one in devices}, "host" in {one.id for one in pools}) == (found, found)


def test_work_for_a_node_that_is_not_there_is_refused_by_its_id(server: RunningServer) -> None:
    options = job_event_pb2.JobOptions(devices=job_event_pb2.DeviceSelector(node_ids=["", "elsewhere"]))
    told = refused(lambda: asking.submit(server, picture(), options))
    assert (told.reason, told.facts) == ("NODE_NOT_FOUND", {"node_id": "elsewhere"})


def test_work_for_this_machine_runs_and_says_so(server: RunningServer) -> None:
    options = job_event_pb2.JobOptions(devices=job_event_pb2.DeviceSelector(node_ids=[""]))
    job_id = asking.submit(server, picture(), options)
    assert asking.kind(asking.watch(server, job_id)[-1]) == "succeeded"
    assert asking.job_of(server, job_id).options.devices.node_ids == [""]


def test_work_for_labels_that_no_node_has_is_refused_by_name(server: RunningServer) -> None:
    label = label_pb2.Label(key="room", value="2")
    options = job_event_pb2.JobOptions(devices=job_event_pb2.DeviceSelector(node_labels=[label]))
    spec = job_pb2.JobSpec(generation=picture())
    request = processing_service_pb2.SubmitJobRequest(spec=spec, options=options)
    told = refused(lambda: server.processing.SubmitJob(request, timeout=CALL_S))
    assert (told.reason, told.fields) == ("NOT_IMPLEMENTED", ["options.devices.node_labels"])
