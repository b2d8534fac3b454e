"""What a call gets when the only device is quarantined, or lost: as each method's comment says."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from deviceops.common.v1 import error_pb2, job_event_pb2
from deviceops.device.v1 import device_health_pb2, device_service_pb2, device_work_pb2
from deviceops.inference.v1 import inference_service_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.model.v1 import model_service_pb2, model_work_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, kind, picture
from tests.server.harness import RunningServer
from tests.server.sim import Events, Script, sim, simulated, state

DEVICE_TIER = blob_pb2.BLOB_TIER_DEVICE


class Verbs:
    """Everything that runs on a device, asked of one that takes no work."""

    def __init__(self, server: RunningServer, blob_id: str) -> None:
        self.server = server
        self.blob_id = blob_id

    def options(self, *device_ids: str) -> job_event_pb2.JobOptions:
        selector = job_event_pb2.DeviceSelector(device_ids=device_ids) if device_ids else None
        return job_event_pb2.JobOptions(queue_timeout=Duration(nanos=200_000_000), devices=selector)

    def generate(self) -> Any:
        request = inference_service_pb2.GenerateRequest(generation=picture(), options=self.options())
        return self.server.inference.Generate(request, timeout=CALL_S)

    def generate_there(self) -> Any:
        request = inference_service_pb2.GenerateRequest(generation=picture(), options=self.options("sim-0"))
        return self.server.inference.Generate(request, timeout=CALL_S)

    def submit(self) -> Any:
        spec = job_pb2.JobSpec(generation=picture())
        request = processing_service_pb2.SubmitJobRequest(spec=spec, options=self.options())
        return asking.follow(self.server, self.server.processing.SubmitJob(request, timeout=CALL_S).job.id)

    def load(self) -> Any:
        work = model_work_pb2.ModelLoad(model_id="emoji-sd")
        request = model_service_pb2.LoadModelRequest(model_load=work, options=self.options())
        return self.server.model.LoadModel(request, timeout=CALL_S)

    def benchmark(self) -> Any:
        work = device_work_pb2.DeviceBenchmark(device_id="sim-0", max_duration=Duration(seconds=1))
        request = device_service_pb2.BenchmarkDeviceRequest(device_benchmark=work, options=self.options())
        return self.server.device.BenchmarkDevice(request, timeout=CALL_S)

    def transfer(self) -> Any:
        to = blob_pb2.NewBlobDestination(tier=DEVICE_TIER, device_id="sim-0")
        request = memory_service_pb2.TransferBlobRequest(
            blob_transfer=blob_pb2.BlobTransfer(blob_id=self.blob_id, new_blob=to)
        )
        return self.server.memory.TransferBlob(request, timeout=CALL_S)

    def reset(self) -> Any:
        work = device_work_pb2.DeviceReset(device_id="sim-0", level=device_work_pb2.DEVICE_RESET_LEVEL_CONTENT)
        return self.server.device.ResetDevice(device_service_pb2.ResetDeviceRequest(device_reset=work), timeout=CALL_S)

    def check(self) -> Any:
        request = device_service_pb2.CheckDeviceHealthRequest(device_id="sim-0")
        return self.server.device.CheckDeviceHealth(request, timeout=CALL_S)

    def reserve(self) -> Any:
        request = memory_service_pb2.CreateReservationRequest(memory_pool_id="sim-0", size_bytes=1)
        return self.server.memory.CreateReservation(request, timeout=CALL_S)

    def create(self) -> Any:
        spec = blob_pb2.BlobSpec(tier=DEVICE_TIER, device_id="sim-0", size_bytes=1)
        return self.server.memory.CreateBlob(memory_service_pb2.CreateBlobRequest(blob_spec=spec), timeout=CALL_S)

    @property
    def that_wait(self) -> list[Callable[[], Any]]:
        """Jobs that any device may run."""
        return [self.generate, self.generate_there, self.submit, self.load]


Machine = tuple[Verbs, Script, Events]


def end_of(call: Any) -> Any:
    return asking.journal_of(call)[-1]


def reason_of(call: Any) -> str:
    """Why a job ended."""
    last = end_of(call)
    assert kind(last) == "failed", last
    return error_pb2.ErrorReason.Name(last.event.failed.failure.reason).removeprefix("ERROR_REASON_")


def uploaded(server: RunningServer) -> str:
    spec = blob_pb2.BlobSpec(tier=blob_pb2.BLOB_TIER_DISK, size_bytes=3)
    parts = [
        memory_service_pb2.UploadBlobRequest(blob_spec=spec),
        memory_service_pb2.UploadBlobRequest(chunk=blob_pb2.BlobChunk(data=b"abc")),
    ]
    return server.memory.UploadBlob(iter(parts), timeout=CALL_S).blob.id


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    # Only the tests check a quarantined device again.
    environment = {"DEVICEOPS_RECHECK_S": "3600"}
    with simulated(tmp_path_factory.mktemp("sim"), sim(0), environment=environment) as (server, script, events):
        yield Verbs(server, uploaded(server)), script, events


def test_while_the_only_device_is_quarantined(machine: Machine) -> None:
    verbs, script, events = machine
    script.write(sim(0, "", 'kind = "wrong_result"\ntimes = 1'))
    events.until(lambda event: event.kind == "device.script_changed")
    assert verbs.check().report.verdict == device_health_pb2.DEVICE_HEALTH_VERDICT_UNHEALTHY
    events.until_state("sim-0", "QUARANTINED")
    assert [reason_of(verb()) for verb in verbs.that_wait] == ["QUEUE_TIMEOUT"] * len(verbs.that_wait)
    assert reason_of(verbs.benchmark()) == "QUEUE_TIMEOUT"
    assert kind(end_of(verbs.transfer())) == "succeeded"
    assert verbs.reserve().reservation.id
    assert verbs.create().blob.id
    assert state(verbs.server, "sim-0") == "QUARANTINED"
    assert kind(end_of(verbs.reset())) == "succeeded"
    assert state(verbs.server, "sim-0") == "AVAILABLE"


def test_while_the_only_device_is_lost(machine: Machine) -> None:
    verbs, script, events = machine
    script.write(sim(0, "present = false"))
    events.until_state("sim-0", "LOST")
    assert [reason_of(verb()) for verb in verbs.that_wait] == ["QUEUE_TIMEOUT"] * len(verbs.that_wait)
    refused = (verbs.benchmark, verbs.reset, verbs.check, verbs.reserve, verbs.create)
    assert [asking.refused(verb).reason for verb in refused] == ["DEVICE_LOST"] * len(refused)
    assert reason_of(verbs.transfer()) == "DEVICE_LOST"


def test_a_job_that_waited_runs_when_the_device_is_back(machine: Machine) -> None:
    verbs, script, events = machine
    job_id = asking.submit(verbs.server)
    script.write(sim(0))
    events.until_state("sim-0", "AVAILABLE")
    assert kind(asking.watch(verbs.server, job_id)[-1]) == "succeeded"
