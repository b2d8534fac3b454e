"""Whatever bytes a method is sent, the answer is typed: no crash, no hang, no text of an exception."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.server import asking
from tests.server.harness import RunningServer
from tests.server.sim import sim, simulated
from tests.server.test_unimplemented import METHODS

SEED = 20_261_128
MUTANTS = 4
"""Of each method."""
_ANSWER_S = 5.0
"""A call that waits for something may wait this long; a test that waits longer has found a hang."""
_NO_MESSAGE = b"\x0a\xff\xff\xff\xff\x0f"
"""Field 1 with more bytes than follow: no message of any type."""
_FOREIGN: list[Any] = [
    health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name[name] for name in ("Check", "List", "Watch")
] + list(reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods)
ALL: dict[str, Any] = {**METHODS, **{method.full_name: method for method in _FOREIGN}}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with simulated devices, which any of the requests may reset."""
    folder: Path = tmp_path_factory.mktemp("mutated")
    with simulated(folder, sim(0)) as (server, _, _):
        yield server


class Outcome:
    """What a call said first: an answer (no code), or a refusal."""

    def __init__(self, server: RunningServer, method: MethodDescriptor, data: bytes) -> None:
        self.refusal: asking.Refusal | None = None
        self.answer = b""
        arity = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        service, _, name = method.full_name.rpartition(".")
        call: Any = getattr(server.channel, arity)(f"/{service}/{name}")
        try:
            answer = call(iter([data]) if method.client_streaming else data, timeout=_ANSWER_S)
            self.answer = next(answer, b"") if method.server_streaming else answer
            if method.server_streaming:
                answer.cancel()
        except grpc.RpcError as error:
            self.refusal = asking.Refusal(error)


@pytest.mark.parametrize("name", sorted(ALL))
def test_bytes_that_are_no_message_are_an_invalid_argument(victim: RunningServer, name: str) -> None:
    refusal = Outcome(victim, ALL[name], _NO_MESSAGE).refusal
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refusal.has(error_details_pb2.BadRequest())
    assert refusal.facts == {"size_bytes": str(len(_NO_MESSAGE))}
    for word in ("Error", "parsing", "exception", "google"):
        assert word not in refusal.message


def test_no_traceback_tells_of_them(victim: RunningServer) -> None:
    for method in ALL.values():
        Outcome(victim, method, _NO_MESSAGE)
    assert "Traceback" not in victim.log.read_text()


@pytest.mark.parametrize("name", sorted(ALL))
def test_mutated_requests_get_typed_answers(victim: RunningServer, name: str) -> None:
    method = ALL[name]
    draw = random.Random(f"{SEED} {name}")
    for _ in range(MUTANTS):
        data = mutated(filled(GetMessageClass(method.input_type)(), draw).SerializeToString(), draw)
        refusal = Outcome(victim, method, data).refusal
        if refusal is None or refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            continue
        foreign = not name.startswith("deviceops") and refusal.code is grpc.StatusCode.NOT_FOUND
        assert foreign or refusal.info.domain == "deviceops", (refusal.code, refusal.message, data)
        assert refusal.reason != "INVARIANT_BROKEN", data
    assert victim.process.poll() is None


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, cut, doubled or put in between."""
    changed = bytearray(data or b"\x08\x01")
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changed) + 1)
        match draw.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = draw.randbytes(draw.randint(1, 8))
            case _:
                changed[at:at] = changed[: draw.randint(0, 16)]
    return bytes(changed)


def filled(message: Any, draw: random.Random, depth: int = 0) -> Message:
    """The message with about half of its fields set to something small."""
    for field in _fields(message.DESCRIPTOR):
        if draw.random() < 0.5 or (field.message_type and depth > 3):
            continue
        if field.message_type:
            target = getattr(message, field.name)
            filled(target.add() if field.is_repeated else target, draw, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field, draw))
        else:
            setattr(message, field.name, _value(field, draw))
    return message


def _fields(descriptor: Descriptor) -> list[FieldDescriptor]:
    return [
        field for field in descriptor.fields if not (field.message_type and field.message_type.GetOptions().map_entry)
    ]


def _value(field: FieldDescriptor, draw: random.Random) -> object:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = draw.choice(["", "x", "sim-0", "emoji-sd", "host", "ü", "../..", "job-1"])
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return draw.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return draw.choice(list(field.enum_type.values_by_number)) if field.enum_type else 0
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return draw.choice([0.0, 1.0, -1.0, 1e30, float("nan")])
        case _:
            return draw.choice([0, 1, 2, 64, 1000])
