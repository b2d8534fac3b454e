"""Health, reflection, and the two listening addresses."""

import importlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from deviceops.processing.v1 import processing_service_pb2
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from server import reflection
from tests.server import asking
from tests.server.harness import RunningServer, running_server

SERVICES = [
    "deviceops.device.v1.DeviceService",
    "deviceops.inference.v1.InferenceService",
    "deviceops.memory.v1.MemoryService",
    "deviceops.model.v1.ModelService",
    "deviceops.postprocessing.v1.PostprocessingService",
    "deviceops.processing.v1.ProcessingService",
]
STATUS = health_pb2.HealthCheckResponse


def health(server: RunningServer, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service)).status


def health_watch(server: RunningServer, service: str) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=asking.CALL_S)


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_every_service_has_its_own_health(server: RunningServer, service: str) -> None:
    asking.watch(server, asking.submit(server))
    # Nothing of postprocessing is built; saying that it serves would be a lie.
    expected = STATUS.NOT_SERVING if "postprocessing" in service else STATUS.SERVING
    assert health(server, service) == expected


def test_an_unknown_service_has_no_health(server: RunningServer) -> None:
    refusal = asking.refused(lambda: health(server, "nobody"))
    assert refusal.code is grpc.StatusCode.NOT_FOUND


def test_inference_serves_when_its_worker_is_ready_and_a_watch_hears_it() -> None:
    with running_server("--device", "cpu", held=True) as fresh:
        call = health_watch(fresh, "deviceops.inference.v1.InferenceService")
        seen = [next(call).status]
        fresh.release()
        while seen[-1] != STATUS.SERVING:
            seen.append(next(call).status)
        call.cancel()
        assert seen == [STATUS.NOT_SERVING, STATUS.SERVING]
        assert health(fresh, "deviceops.processing.v1.ProcessingService") == STATUS.SERVING


def reflect(server: RunningServer, version: str, **question: Any) -> Any:
    """One question to the reflection service of a version."""
    call = server.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return next(iter(call(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=asking.CALL_S)))


VERSIONS = pytest.mark.parametrize("version", ["v1", "v1alpha"])


@VERSIONS
def test_reflection_lists_every_service(server: RunningServer, version: str) -> None:
    listed = {service.name for service in reflect(server, version, list_services="").list_services_response.service}
    assert listed == {
        *SERVICES,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@VERSIONS
@pytest.mark.parametrize(
    "symbol",
    [
        "deviceops.inference.v1.InferenceService",
        "deviceops.inference.v1.InferenceService.Generate",
        "deviceops.inference.v1.Generation",
        "deviceops.common.v1.ErrorReason",
        "grpc.health.v1.Health.Watch",
    ],
)
def test_a_symbol_of_any_kind_is_found_with_all_it_needs(server: RunningServer, version: str, symbol: str) -> None:
    answer = reflect(server, version, file_containing_symbol=symbol)
    pool = DescriptorPool()
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert files, answer
    by_name = {file.name: file for file in files}

    added: set[str] = set()

    def add(name: str) -> None:
        if name not in added:
            added.add(name)
            for needed in by_name[name].dependency:
                add(needed)
            pool.AddSerializedFile(by_name[name].SerializeToString())

    add(files[0].name)
    names = [m.full_name for s in pool.FindFileByName(files[0].name).services_by_name.values() for m in s.methods]
    assert symbol in names or pool.FindFileContainingSymbol(symbol).name == files[0].name


def comment_of(file: descriptor_pb2.FileDescriptorProto, *path: int) -> str:
    """The comment that stands before a declaration; `path` as in `SourceCodeInfo.Location`."""
    return next(place.leading_comments for place in file.source_code_info.location if tuple(place.path) == path)


@VERSIONS
def test_reflection_tells_the_comments_of_the_contract(server: RunningServer, version: str) -> None:
    answer = reflect(server, version, file_containing_symbol="deviceops.inference.v1.InferenceService")
    data = answer.file_descriptor_response.file_descriptor_proto
    files = {file.name: file for file in map(descriptor_pb2.FileDescriptorProto.FromString, data)}
    service = files["deviceops/inference/v1/inference_service.proto"]
    generate = next(i for i, method in enumerate(service.service[0].method) if method.name == "Generate")
    assert "picture" in comment_of(service, 6, 0, 2, generate)  # 6: services, 2: their methods
    for file in files.values():
        assert file.source_code_info.location or file.name.startswith("google/"), file.name


def test_comments_are_all_that_reflection_adds_to_the_generated_descriptors() -> None:
    for name, data in reflection.commented_files().items():
        told, plain = descriptor_pb2.FileDescriptorProto.FromString(data), descriptor_pb2.FileDescriptorProto()
        module: Any = importlib.import_module(f"{name.removesuffix('.proto').replace('/', '.')}_pb2")
        module.DESCRIPTOR.CopyToProto(plain)
        told.ClearField("source_code_info")
        assert told == plain, name


@VERSIONS
@pytest.mark.parametrize(
    "question",
    [
        {"file_containing_symbol": "deviceops.inference.v1.InferenceService.NoSuchMethod"},
        {"file_containing_symbol": "deviceops.NoSuchThing"},
        {"file_by_filename": "no/such.proto"},
        {"all_extension_numbers_of_type": "no.such.Type"},
        {},
    ],
)
def test_what_is_not_there_is_answered_and_the_stream_goes_on(
    server: RunningServer, version: str, question: dict[str, str]
) -> None:
    assert reflect(server, version, **question).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@VERSIONS
def test_a_client_with_nothing_but_reflection_can_call(server: RunningServer, version: str) -> None:
    """Builds the messages of GetSystemStatus from what the server sends."""
    symbol = "deviceops.processing.v1.ProcessingService"
    answer = reflect(server, version, file_containing_symbol=symbol)
    pool = DescriptorPool()
    waiting = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    while waiting:
        file = waiting.pop(0)
        try:
            pool.AddSerializedFile(file.SerializeToString())
        except TypeError:
            waiting.append(file)
    method = pool.FindServiceByName(symbol).methods_by_name["GetSystemStatus"]
    request = message_factory.GetMessageClass(method.input_type)()
    response = message_factory.GetMessageClass(method.output_type)
    call = server.channel.unary_unary(f"/{symbol}/GetSystemStatus", response_deserializer=response.FromString)
    told: Any = call(request.SerializeToString(), timeout=asking.CALL_S)
    assert told.status.server_version == server.status().server_version


def test_the_unix_socket_serves_the_same_as_tcp(tmp_path: Path) -> None:
    socket = tmp_path / "deviceops.sock"
    with running_server("--device", "cpu", "--socket", str(socket)) as both:
        assert both.addresses[1] == f"unix:{socket}"
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            local = ProcessingServiceStub(channel)
            status = local.GetSystemStatus(processing_service_pb2.GetSystemStatusRequest()).status
            assert status.server_instance_id == both.status().server_instance_id
            job_id = asking.submit(both)
            watched = list(local.WatchJob(processing_service_pb2.WatchJobRequest(job_id=job_id)))
        assert asking.durable(asking.journal_of(watched)) == asking.durable(asking.watch(both, job_id))
