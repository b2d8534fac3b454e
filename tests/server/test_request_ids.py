"""The same request_id gives the same answer, on every call that starts or changes something, whatever came meanwhile."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.device.v1 import device_pb2, device_service_pb2, device_work_pb2
from deviceops.inference.v1 import inference_service_pb2
from deviceops.memory.v1 import blob_pb2, memory_budget_pb2, memory_service_pb2
from deviceops.model.v1 import model_service_pb2, model_work_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2, session_pb2, system_status_pb2
from tests.server import asking, remade
from tests.server.asking import CALL_S, kind, picture
from tests.server.harness import RunningServer
from tests.server.sim import device, sim, simulated, state
from tests.server.test_unimplemented import METHODS

MIB = 1 << 20
MEMORY = f"memory_bytes = {512 * MIB}\nruntime_bytes = {16 * MIB}"
DISK = blob_pb2.BLOB_TIER_DISK
STUBS = ("processing", "inference", "memory", "model", "device")
ON_SIM_0 = job_event_pb2.JobOptions(devices=job_event_pb2.DeviceSelector(device_ids=["sim-0"]))


class Case:
    """A request, and one that says something else."""

    def __init__(self, request: Any, **other: Any) -> None:
        names = list(request.DESCRIPTOR.fields_by_name)
        # All that submit jobs share their ids; every other method has its own.
        other_work = "options" in names and names[0] not in ("spec", "generation")
        self.request = request
        self.request.request_id = f"one-{names[0]}" if other_work else "one-id-for-all"
        self.other = type(request)()
        self.other.CopyFrom(request)
        for path, value in other.items():
            *parents, field = path.split("__")
            message = self.other
            for parent in parents:
                message = getattr(message, parent)
            setattr(message, field, value)
        assert self.other != request


def deletion() -> Case:
    """Of what has a label that nothing has."""
    nothing = processing_service_pb2.DeleteByLabelsRequest(labels=[label_pb2.Label(key="nothing-has-it")])
    case = Case(nothing, validate_only=True)
    case.other.validate_only = False
    case.other.labels[0].value = "nor-this"
    return case


def cases(folder: Path, blob_id: str, reservation_id: str, job_id: str, session_id: str) -> dict[str, Case]:
    """Every method that takes a request_id, in an order in which they do each other no harm."""
    generation = picture(steps=2)
    weights = folder / "weights.bin"
    weights.write_bytes(b"weights")
    return {
        "SubmitJob": Case(
            processing_service_pb2.SubmitJobRequest(spec=job_pb2.JobSpec(generation=generation), options=ON_SIM_0),
            spec__generation__prompt="another",
        ),
        # The same id and the same content: the door joins the job that SubmitJob has made.
        "Generate": Case(
            inference_service_pb2.GenerateRequest(generation=generation, options=ON_SIM_0),
            options__priority=job_event_pb2.PRIORITY_HIGH,
        ),
        "UpdateJob": Case(
            processing_service_pb2.UpdateJobRequest(
                job_id=job_id,
                options=job_event_pb2.JobOptions(keep_for=Duration(seconds=3600)),
                update_mask=FieldMask(paths=["keep_for"]),
            ),
            options__keep_for__seconds=7200,
        ),
        "OpenSession": Case(
            processing_service_pb2.OpenSessionRequest(settings=session_pb2.SessionSettings(weight=2)),
            settings__weight=3,
        ),
        "UpdateSession": Case(
            processing_service_pb2.UpdateSessionRequest(
                session_id=session_id,
                settings=session_pb2.SessionSettings(weight=2),
                update_mask=FieldMask(paths=["weight"]),
            ),
            settings__weight=3,
        ),
        "DeleteByLabels": deletion(),
        "ScanModels": Case(
            model_service_pb2.ScanModelsRequest(model_scan=model_work_pb2.ModelScan()),
            options__priority=job_event_pb2.PRIORITY_LOW,
        ),
        "RegisterModel": Case(
            model_service_pb2.RegisterModelRequest(
                model_id="mix", parts_source=model_service_pb2.ModelPartsSource(base_model_id="emoji-sd")
            ),
            display_name="another",
        ),
        "UpdateModel": Case(
            model_service_pb2.UpdateModelRequest(model_id="emoji-sd", display_name="Emoji"), display_name="another"
        ),
        "ValidateModel": Case(
            model_service_pb2.ValidateModelRequest(
                model_validation=model_work_pb2.ModelValidation(model_id="emoji-sd")
            ),
            model_validation__depth=model_work_pb2.MODEL_VALIDATION_DEPTH_VALUES,
        ),
        "ConvertModel": Case(
            model_service_pb2.ConvertModelRequest(
                model_conversion=model_work_pb2.ModelConversion(
                    model_id="emoji-sd", destination_path=str(folder / "models" / "copy")
                )
            ),
            model_conversion__new_model_id="another",
        ),
        "LoadModel": Case(
            model_service_pb2.LoadModelRequest(
                model_load=model_work_pb2.ModelLoad(model_id="emoji-sd"), options=ON_SIM_0
            ),
            model_load__pinned=True,
        ),
        "PrefetchModels": Case(
            model_service_pb2.PrefetchModelsRequest(hints=[model_service_pb2.PrefetchHint(model_id="emoji-sd")]),
            session_id="another",
        ),
        "UpdateLoadedModel": Case(
            model_service_pb2.UpdateLoadedModelRequest(loaded_model_id="emoji-sd@sim-0", pinned=False), pinned=True
        ),
        "BenchmarkModel": Case(
            model_service_pb2.BenchmarkModelRequest(
                model_benchmark=model_work_pb2.ModelBenchmark(model_id="emoji-sd", steps=1, runs=1, warmup_runs=0)
            ),
            model_benchmark__runs=2,
        ),
        "BenchmarkDevice": Case(
            device_service_pb2.BenchmarkDeviceRequest(
                device_benchmark=device_work_pb2.DeviceBenchmark(
                    device_id="sim-0",
                    suites=[device_work_pb2.DEVICE_BENCHMARK_SUITE_MEMORY],
                    max_duration=Duration(seconds=1),
                )
            ),
            device_benchmark__device_id="sim-1",
        ),
        "ResetDevice": Case(
            device_service_pb2.ResetDeviceRequest(
                device_reset=device_work_pb2.DeviceReset(
                    device_id="sim-0", level=device_work_pb2.DEVICE_RESET_LEVEL_CONTENT
                )
            ),
            device_reset__force=True,
        ),
        "TransferBlob": Case(
            memory_service_pb2.TransferBlobRequest(
                blob_transfer=blob_pb2.BlobTransfer(
                    blob_id=blob_id,
                    new_blob=blob_pb2.NewBlobDestination(tier=blob_pb2.BLOB_TIER_DEVICE, device_id="sim-0"),
                )
            ),
            blob_transfer__new_blob__device_id="sim-1",
        ),
        "CheckDeviceHealth": Case(device_service_pb2.CheckDeviceHealthRequest(device_id="sim-0"), device_id="sim-1"),
        "RegisterBlob": Case(
            memory_service_pb2.RegisterBlobRequest(file=blob_pb2.MappedFile(path=str(weights))), media_type="a/b"
        ),
        "CreateBlob": Case(
            memory_service_pb2.CreateBlobRequest(
                blob_spec=blob_pb2.BlobSpec(tier=blob_pb2.BLOB_TIER_DEVICE, device_id="sim-0", size_bytes=9)
            ),
            blob_spec__size_bytes=8,
        ),
        "UploadBlob": Case(
            memory_service_pb2.UploadBlobRequest(blob_spec=blob_pb2.BlobSpec(tier=DISK, size_bytes=3)),
            blob_spec__size_bytes=4,
        ),
        "SetMemoryBudget": Case(
            memory_service_pb2.SetMemoryBudgetRequest(
                memory_pool_id="sim-0", memory_budget=memory_budget_pb2.MemoryBudget(limit_bytes=400 * MIB)
            ),
            memory_budget__limit_bytes=300 * MIB,
        ),
        "ReclaimMemory": Case(
            memory_service_pb2.ReclaimMemoryRequest(memory_pool_id="sim-0", free_bytes=MIB), free_bytes=2 * MIB
        ),
        "CreateReservation": Case(
            memory_service_pb2.CreateReservationRequest(
                memory_pool_id="sim-0", size_bytes=MIB, time_to_live=Duration(seconds=3600)
            ),
            size_bytes=2 * MIB,
        ),
        "RenewReservation": Case(
            memory_service_pb2.RenewReservationRequest(
                reservation_id=reservation_id, time_to_live=Duration(seconds=3000)
            ),
            size_bytes=3 * MIB,
        ),
        "ReproduceImage": Case(
            inference_service_pb2.ReproduceImageRequest(reproduction=remade.work(), options=ON_SIM_0),
            reproduction__tolerance=7,
        ),
        "UnloadModel": Case(model_service_pb2.UnloadModelRequest(device_id="sim-0"), device_id="sim-1"),
        # The last: from here on its device takes no new work.
        "UpdateDevice": Case(
            device_service_pb2.UpdateDeviceRequest(
                device_id="sim-0",
                settings=device_pb2.DeviceSettings(enabled=False),
                update_mask=FieldMask(paths=["enabled"]),
            ),
            cause="another",
        ),
    }


def named(name: str) -> MethodDescriptor:
    (method,) = (method for method in METHODS.values() if method.name == name)
    return method


class Calls:
    """A server where every case was asked for once."""

    def __init__(self, server: RunningServer, folder: Path) -> None:
        self.server = server
        blob = self._uploaded(b"abc")
        reserve = memory_service_pb2.CreateReservationRequest(memory_pool_id="sim-0", size_bytes=MIB)
        reservation = server.memory.CreateReservation(reserve, timeout=CALL_S).reservation
        job_id = asking.submit(server, picture(steps=1), ON_SIM_0)
        asking.watch(server, job_id)
        session = server.processing.OpenSession(processing_service_pb2.OpenSessionRequest(), timeout=CALL_S).session
        self.cases = cases(folder, blob, reservation.id, job_id, session.id)
        self.answers = {name: self.ask(name, case.request) for name, case in self.cases.items()}

    def _uploaded(self, data: bytes) -> str:
        spec = blob_pb2.BlobSpec(tier=DISK, size_bytes=len(data))
        parts = [
            memory_service_pb2.UploadBlobRequest(blob_spec=spec),
            memory_service_pb2.UploadBlobRequest(chunk=blob_pb2.BlobChunk(data=data)),
        ]
        return self.server.memory.UploadBlob(iter(parts), timeout=CALL_S).blob.id

    def ask(self, name: str, request: Any) -> Any:
        """The answer, or the job that it is about."""
        stub = next(stub for stub in (getattr(self.server, stub) for stub in STUBS) if hasattr(stub, name))
        method = named(name)
        if method.client_streaming:
            data = memory_service_pb2.UploadBlobRequest(chunk=blob_pb2.BlobChunk(data=b"123"))
            parts = [request, data] if request.blob_spec.size_bytes == 3 else [request]
            return getattr(stub, name)(iter(parts), timeout=CALL_S)
        answer = getattr(stub, name)(request, timeout=CALL_S)
        if not method.server_streaming:
            return answer.job.id if name == "SubmitJob" else answer
        updates = asking.journal_of(answer)
        assert kind(updates[-1]) == "succeeded", updates[-1]
        return updates[0].event.job_id


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    folder = tmp_path_factory.mktemp("requests")
    devices = sim(0, MEMORY), sim(1, MEMORY)
    environment = {"DEVICEOPS_DRAIN_S": "100"}
    (folder / "models").mkdir()
    flags = ("--blob-root", str(folder), "--model-root", str(folder / "models"), "--model-poll-s", "0")
    with simulated(folder, *devices, environment=environment, flags=flags) as (server, _, _):
        yield Calls(server, folder)


def test_every_built_method_that_takes_a_request_id_is_tried_here(calls: Calls) -> None:
    built = set(METHODS) - {name for domain in calls.server.status().domains for name in domain.disabled_methods}
    takes = {METHODS[name].name for name in built if "request_id" in METHODS[name].input_type.fields_by_name}
    assert set(calls.cases) == takes


def test_the_same_request_gives_the_same_answer(calls: Calls) -> None:
    """Although the models were unloaded meanwhile, and the device disabled."""
    assert state(calls.server, "sim-0") == "DISABLED"
    again = {name: calls.ask(name, case.request) for name, case in calls.cases.items()}
    assert [name for name in again if again[name] != calls.answers[name]] == []
    assert calls.answers["Generate"] == calls.answers["SubmitJob"]


def test_the_same_id_for_something_else_is_refused(calls: Calls) -> None:
    for name, case in calls.cases.items():
        refusal = asking.refused(lambda name=name, case=case: calls.ask(name, case.other))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"), name
        assert refusal.facts["request_id"] == case.request.request_id


def test_a_malformed_id_is_refused_by_name_everywhere(calls: Calls) -> None:
    for name, case in calls.cases.items():
        bad = type(case.request)()
        bad.CopyFrom(case.request)
        bad.request_id = "two words"
        refusal = asking.refused(lambda name=name, bad=bad: calls.ask(name, bad))
        assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["request_id"]), name


def test_what_only_validates_uses_up_no_id(calls: Calls) -> None:
    request = memory_service_pb2.ReclaimMemoryRequest(memory_pool_id="sim-1", free_bytes=1, request_id="planned")
    request.validate_only = True
    calls.server.memory.ReclaimMemory(request, timeout=CALL_S)
    request.validate_only = False
    done = calls.server.memory.ReclaimMemory(request, timeout=CALL_S)
    assert calls.server.memory.ReclaimMemory(request, timeout=CALL_S) == done


def test_a_reservation_is_answered_as_it_is_by_now(calls: Calls) -> None:
    request = memory_service_pb2.CreateReservationRequest(memory_pool_id="sim-1", size_bytes=1, request_id="kept")
    kept = calls.server.memory.CreateReservation(request, timeout=CALL_S).reservation
    renew = memory_service_pb2.RenewReservationRequest(reservation_id=kept.id, size_bytes=2)
    renewed = calls.server.memory.RenewReservation(renew, timeout=CALL_S).reservation
    assert calls.server.memory.CreateReservation(request, timeout=CALL_S).reservation == renewed
    calls.server.memory.DeleteReservation(memory_service_pb2.DeleteReservationRequest(reservation_id=kept.id))
    refusal = asking.refused(lambda: calls.server.memory.CreateReservation(request, timeout=CALL_S))
    assert refusal.reason == "RESERVATION_NOT_FOUND"


def test_a_repeated_renewal_is_no_etag_mismatch(calls: Calls) -> None:
    reserve = memory_service_pb2.CreateReservationRequest(memory_pool_id="sim-1", size_bytes=1)
    kept = calls.server.memory.CreateReservation(reserve, timeout=CALL_S).reservation
    renew = memory_service_pb2.RenewReservationRequest(
        reservation_id=kept.id, size_bytes=2, etag=kept.etag, request_id="renewed"
    )
    first = calls.server.memory.RenewReservation(renew, timeout=CALL_S)
    assert calls.server.memory.RenewReservation(renew, timeout=CALL_S) == first


@pytest.fixture(scope="module")
def draining(calls: Calls) -> Iterator[Calls]:
    """The same server, asked to go. For the last tests: it is gone afterwards."""
    job_id = asking.submit(calls.server, picture(steps=asking.LONG_STEPS))
    asking.wait_for_step(calls.server, job_id)
    stub: Any = health_pb2_grpc.HealthStub(calls.server.channel)
    health = stub.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
    assert next(health).status == health_pb2.HealthCheckResponse.SERVING
    calls.server.process.send_signal(signal.SIGTERM)
    assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert asking.refused(lambda: asking.submit(calls.server)).reason == "DRAINING"
    yield calls
    asking.cancel(calls.server, job_id)
    assert calls.server.process.wait(60) == 0


def test_the_answers_stay_the_same_while_the_server_drains(draining: Calls) -> None:
    again = {name: draining.ask(name, case.request) for name, case in draining.cases.items()}
    assert [name for name in again if again[name] != draining.answers[name]] == []
    refusal = asking.refused(lambda: draining.ask("Generate", draining.cases["Generate"].other))
    assert refusal.reason == "REQUEST_ID_REUSED"


CHANGES = {
    *("DeleteByLabels", "SetMemoryBudget", "ReclaimMemory", "RenewReservation", "UnloadModel", "UpdateDevice"),
    *("UpdateSession", "UpdateJob", "UpdateLoadedModel", "UpdateModel", "RegisterModel"),
}
"""Calls that start no work and take no memory: they free something, or change a limit, also while jobs end."""


def test_a_server_that_drains_refuses_all_new_work_and_says_why(draining: Calls) -> None:
    for name in draining.cases.keys() - CHANGES:
        fresh = type(draining.cases[name].request)()
        fresh.CopyFrom(draining.cases[name].request)
        fresh.request_id = f"late-{name}"
        refusal = asking.refused(lambda name=name, fresh=fresh: draining.ask(name, fresh))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING"), name


def test_a_server_that_drains_still_answers_who_reads(draining: Calls) -> None:
    server = draining.server
    assert server.status().mode == system_status_pb2.SYSTEM_MODE_DRAINING
    job = asking.job_of(server, draining.answers["SubmitJob"])
    (image,) = job.generation_result.images
    assert asking.blob(server, image.file.blob_id).startswith(b"\x89PNG")
    assert asking.kinds(asking.watch(server, job.id))[-1] == "succeeded"
    assert device(server, "sim-1").id == "sim-1"
