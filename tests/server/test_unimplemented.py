"""What the contract has and this server does not yet."""

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from deviceops.postprocessing.v1 import postprocessing_service_pb2
from tests.server import asking
from tests.server.harness import RunningServer

SERVICES = (
    "device.v1.DeviceService",
    "memory.v1.MemoryService",
    "model.v1.ModelService",
    "inference.v1.InferenceService",
    "postprocessing.v1.PostprocessingService",
    "processing.v1.ProcessingService",
)
LIST = Path(__file__).with_name("unimplemented.txt")
"""Read by the C# tests too."""
NAMES = sorted(line for line in LIST.read_text("utf-8").splitlines() if line and not line.startswith("#"))


def services() -> list[ServiceDescriptor]:
    """All six, from the generated code that the harness has imported."""
    assert postprocessing_service_pb2.DESCRIPTOR, "imported for its entry in the pool"
    pool = descriptor_pool.Default()
    return [pool.FindServiceByName(f"deviceops.{name}") for name in SERVICES]


METHODS = {method.full_name: method for service in services() for method in service.methods}


def call(server: RunningServer, method: MethodDescriptor) -> Any:
    """An empty request, and the answer; of a stream the first message, since some go on for ever."""
    arity = "stream" if method.client_streaming else "unary"
    shape = getattr(server.channel, f"{arity}_{'stream' if method.server_streaming else 'unary'}")
    request = GetMessageClass(method.input_type)().SerializeToString()
    service, _, name = method.full_name.rpartition(".")
    answer = shape(f"/{service}/{name}")(iter([request]) if method.client_streaming else request, timeout=asking.CALL_S)
    if not method.server_streaming:
        return answer
    first = next(iter(answer), None)
    answer.cancel()
    return first


def answer_of(server: RunningServer, method: MethodDescriptor) -> tuple[grpc.StatusCode, str]:
    """Code and reason."""
    try:
        call(server, method)
    except grpc.RpcError as error:
        refusal = asking.Refusal(error)
        return refusal.code, refusal.reason
    return grpc.StatusCode.OK, ""


def test_what_the_server_says_of_itself_is_this_list(server: RunningServer) -> None:
    told = [name for domain in server.status().domains for name in domain.disabled_methods]
    assert sorted(told) == NAMES


def test_the_readme_names_the_same() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+Service)` \| (.*) \|$", text, re.MULTILINE))
    told = {service: sorted(re.findall(r"`(\w+)`", names)) for service, names in rows.items()}
    missing = {
        service.rpartition(".")[2]: sorted(name.rpartition(".")[2] for name in NAMES if f".{service}." in name)
        for service in SERVICES
    }
    assert told == missing


@pytest.mark.parametrize("name", NAMES)
def test_each_of_them_says_so(server: RunningServer, name: str) -> None:
    assert answer_of(server, METHODS[name]) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(NAMES)))
def test_all_others_answer(server: RunningServer, name: str) -> None:
    code, _ = answer_of(server, METHODS[name])
    assert code not in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)
