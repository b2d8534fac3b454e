"""What every request keeps: known fields, known enum values, sizes within the limits; and no answer is too large."""

import gc
import timeit
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from deviceops.common.v1 import access_pb2, image_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2, inference_service_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.postprocessing.v1 import postprocessing_pb2, postprocessing_service_pb2
from deviceops.processing.v1 import processing_service_pb2, system_status_pb2
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from domains import limits
from domains.errors import ErrorReason, InvalidRequest, ResourceExhausted
from server.errors import AnsweringErrors
from server.register import register
from server.request_check import RequestCheck, answers_about_request
from tests.server import asking
from tests.server.harness import RunningServer
from tests.server.test_unimplemented import METHODS, NAMES


def enums_of(message: Any) -> list[FieldDescriptor]:
    return [field for field in message.fields if field.enum_type]


STRICT = sorted(name for name, method in METHODS.items() if answers_about_request(method))
LOOKUPS = sorted(set(METHODS) - set(STRICT))
WITH_ENUMS = sorted(
    name
    for name, method in METHODS.items()
    if enums_of(method.input_type) or any(enums_of(f.message_type) for f in method.input_type.fields if f.message_type)
)
MAX_DEPTH = 6
MIB = 1024 * 1024


def refused(name: str, request: Message) -> list[str]:
    """The fields that the method's check names."""
    with pytest.raises(InvalidRequest) as told:
        RequestCheck(METHODS[name])(request)
    assert told.value.reason is ErrorReason.INVALID_FIELD
    return [violation.field for violation in told.value.violations]


def submessages(message: Any) -> list[FieldDescriptor]:
    return [field for field in message.fields if field.message_type]


def step_into(message: Any, field: FieldDescriptor) -> tuple[Any, str]:
    """Set a field that holds a message; the message, and how a path names it."""
    if field.is_repeated:
        entries = getattr(message, field.name)
        entries.add()
        return entries.add(), f"{field.name}[1]"
    getattr(message, field.name).SetInParent()
    return getattr(message, field.name), field.name


def put_unknown(message: Message, number: int) -> None:
    """As a newer client would send it: a field that this contract lacks."""
    tag, varint = number << 3, bytearray()
    while tag > 0x7F:
        varint.append(tag & 0x7F | 0x80)
        tag >>= 7
    message.MergeFromString(bytes([*varint, tag, 1]))


@given(st.data(), st.sampled_from(STRICT))
def test_an_unknown_field_anywhere_is_refused_with_its_path_and_number(data: st.DataObject, name: str) -> None:
    request: Any = GetMessageClass(METHODS[name].input_type)()
    message, path = request, list[str]()
    while (fields := submessages(message.DESCRIPTOR)) and len(path) < MAX_DEPTH and data.draw(st.booleans()):
        message, part = step_into(message, data.draw(st.sampled_from(fields)))
        path.append(part)
    number = data.draw(st.integers(1, 2**29 - 1).filter(lambda n: n not in message.DESCRIPTOR.fields_by_number))
    put_unknown(message, number)
    assert ".".join([*path, f"#{number}"]) in refused(name, request)


@given(st.data(), st.sampled_from(WITH_ENUMS))
def test_an_unknown_enum_value_is_refused_by_the_fields_name(data: st.DataObject, name: str) -> None:
    """In lookups too: a filter by a state that this server does not know would find nothing and look like an answer."""
    message: Any = GetMessageClass(METHODS[name].input_type)()
    request, path = message, list[str]()
    if not (holders := enums_of(message.DESCRIPTOR)) or data.draw(st.booleans()):
        inner = [f for f in submessages(message.DESCRIPTOR) if f.message_type and enums_of(f.message_type)]
        if inner:
            message, part = step_into(message, data.draw(st.sampled_from(inner)))
            path.append(part)
            holders = enums_of(message.DESCRIPTOR)
    field = data.draw(st.sampled_from(holders))
    known = set(field.enum_type.values_by_number) if field.enum_type else set[int]()
    value = data.draw(st.integers(-5, 10_000).filter(lambda n: n not in known))
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)
    assert refused(name, request) == [".".join([*path, field.name])]


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_ignore_unknown_fields(name: str) -> None:
    request = GetMessageClass(METHODS[name].input_type)()
    put_unknown(request, 2047)
    for field in submessages(request.DESCRIPTOR):
        put_unknown(step_into(request, field)[0], 2047)
    RequestCheck(METHODS[name])(request)


def test_only_looks_without_a_description_of_work_are_lookups() -> None:
    scopes = {name: METHODS[name].GetOptions().Extensions[access_pb2.scope] for name in LOOKUPS}
    assert set(scopes.values()) == {access_pb2.ACCESS_SCOPE_READ}
    about = ("Plan", "Preview", "Estimate")
    assert not [name for name in LOOKUPS if name.rpartition(".")[2].startswith(about)]


@pytest.mark.parametrize("name", sorted(set(STRICT) - set(NAMES)))
def test_the_server_refuses_an_unknown_field_in_each_call_that_starts_or_changes_something(
    server: RunningServer, name: str
) -> None:
    method = METHODS[name]
    request = GetMessageClass(method.input_type)()
    put_unknown(request, 2047)
    refusal = asking.refused(lambda: raw_call(server, method, request.SerializeToString()))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["#2047"])
    assert refusal.reason == "INVALID_FIELD"


def raw_call(server: RunningServer, method: MethodDescriptor, request: bytes) -> Any:
    service, _, name = method.full_name.rpartition(".")
    arity = "stream" if method.client_streaming else "unary"
    shape = getattr(server.channel, f"{arity}_{'stream' if method.server_streaming else 'unary'}")
    return shape(f"/{service}/{name}")(iter([request]) if method.client_streaming else request, timeout=asking.CALL_S)


def test_a_generation_with_an_unknown_option_makes_no_picture(server: RunningServer) -> None:
    generation = asking.picture()
    put_unknown(generation.sampling, 2047)
    refusal = asking.refused(lambda: asking.generate(server, generation))
    assert refusal.fields == ["generation.sampling.#2047"]
    assert asking.refused(lambda: asking.submit(server, generation)).fields == ["spec.generation.sampling.#2047"]


def test_many_unknown_fields_are_told_at_once() -> None:
    request = inference_service_pb2.GenerateRequest()
    for number in (2047, 900, 2047):
        put_unknown(request, number)
    request.generation.loras.add()
    put_unknown(request.generation.loras.add(), 5000)
    name = "deviceops.inference.v1.InferenceService.Generate"
    assert refused(name, request) == ["#900", "#2047", "generation.loras[1].#5000"]


GENERATE = METHODS["deviceops.inference.v1.InferenceService.Generate"]
POSTPROCESS = METHODS["deviceops.postprocessing.v1.PostprocessingService.Postprocess"]
UPLOAD = METHODS["deviceops.memory.v1.MemoryService.UploadBlob"]
SUBMIT = METHODS["deviceops.processing.v1.ProcessingService.SubmitJob"]


def too_large(method: MethodDescriptor, request: Message) -> dict[str, str]:
    with pytest.raises(ResourceExhausted) as told:
        RequestCheck(method)(request)
    assert told.value.reason is ErrorReason.MESSAGE_TOO_LARGE
    return dict(told.value.facts)


def with_images(count: int, size: int) -> postprocessing_service_pb2.PostprocessRequest:
    image = image_pb2.ImageInput(data=bytes(size))
    inputs = [postprocessing_pb2.PostprocessingInput(image=image) for _ in range(count)]
    return postprocessing_service_pb2.PostprocessRequest(
        postprocessing=postprocessing_pb2.Postprocessing(inputs=inputs)
    )


def test_an_image_inside_a_message_has_at_most_256_kib() -> None:
    RequestCheck(POSTPROCESS)(with_images(1, 256 * 1024))
    facts = too_large(POSTPROCESS, with_images(1, 256 * 1024 + 1))
    size, limit = facts["size_bytes"], facts["limit_bytes"]
    assert (size, limit) == (str(256 * 1024 + 1), str(256 * 1024))
    assert facts["field"].startswith("postprocessing.inputs[0].")


def test_all_images_of_a_request_have_at_most_2_mib() -> None:
    RequestCheck(POSTPROCESS)(with_images(8, 256 * 1024))
    facts = too_large(POSTPROCESS, with_images(9, 250_000))
    assert facts == {"size_bytes": str(9 * 250_000), "limit_bytes": str(2 * MIB)}


def long_request(models: int) -> inference_service_pb2.GenerateRequest:
    loras = [conditioning_pb2.LoraInput(model_id="m" * 250) for _ in range(models)]
    generation = generation_pb2.Generation(prompt="p", loras=loras)
    return inference_service_pb2.GenerateRequest(generation=generation)


def test_what_is_stored_of_a_request_has_at_most_1_mib() -> None:
    RequestCheck(GENERATE)(long_request(4000))
    facts = too_large(GENERATE, long_request(4096))
    assert int(facts["size_bytes"]) > int(facts["limit_bytes"]) == MIB


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (long_request(4097), "generation.loras"),
        (inference_service_pb2.GenerateRequest(request_id="x" * 256), "request_id"),
        (
            inference_service_pb2.GenerateRequest(generation=generation_pb2.Generation(model_id="é" * 128)),
            "generation.model_id",
        ),
        (
            inference_service_pb2.GenerateRequest(generation=generation_pb2.Generation(prompt="x" * (64 * 1024 + 1))),
            "generation.prompt",
        ),
    ],
)
def test_lists_ids_and_texts_that_are_too_long_are_named(request_: Message, field: str) -> None:
    assert refused(GENERATE.full_name, request_) == [field]


def test_the_server_tells_its_limits_and_holds_them(server: RunningServer) -> None:
    told = server.status().limits
    inline = told.max_inline_bytes
    assert (inline, told.max_request_inline_bytes) == (256 * 1024, 2 * MIB)
    assert (told.max_spec_bytes, told.max_page_bytes) == (MIB, 2 * MIB)
    image = image_pb2.ImageInput(data=bytes(inline + 1))
    generation = generation_pb2.Generation(init_image=conditioning_pb2.InitImage(image=image))
    refusal = asking.refused(lambda: asking.generate(server, generation))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert refusal.facts["limit_bytes"] == str(inline)


def test_the_check_of_a_generation_with_32_loras_takes_less_than_a_fifth_of_a_millisecond() -> None:
    request = long_request(32)
    check = RequestCheck(GENERATE)
    seconds = min(timeit.repeat(lambda: check(request), number=20, repeat=20)) / 20
    assert seconds < 0.2e-3


def test_the_check_copies_no_chunk_of_an_upload() -> None:
    chunk = blob_pb2.BlobChunk(data=bytes(MIB))
    check = RequestCheck(UPLOAD)
    check(memory_service_pb2.UploadBlobRequest(chunk=blob_pb2.BlobChunk()))
    request = memory_service_pb2.UploadBlobRequest(chunk=chunk)
    gc.collect()
    tracemalloc.start()
    try:
        check(request)
        assert tracemalloc.get_traced_memory()[1] < MIB / 4
    finally:
        tracemalloc.stop()


def test_each_message_of_an_upload_is_checked(server: RunningServer) -> None:
    spec = blob_pb2.BlobSpec(size_bytes=4)
    second = memory_service_pb2.UploadBlobRequest(chunk=blob_pb2.BlobChunk(data=b"abcd"))
    put_unknown(second.chunk, 2047)
    requests = [memory_service_pb2.UploadBlobRequest(blob_spec=spec), second]
    refusal = asking.refused(lambda: server.memory.UploadBlob(iter(requests), timeout=asking.CALL_S))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["chunk.#2047"])


class Talkative:
    """A servicer whose answers no client could receive."""

    async def GetSystemStatus(self, request: object, context: object) -> processing_service_pb2.GetSystemStatusResponse:
        status = system_status_pb2.SystemStatus(platform="x" * 4 * MIB)
        return processing_service_pb2.GetSystemStatusResponse(status=status)

    async def WatchJob(self, request: object, context: object) -> AsyncIterator[bytes]:
        yield processing_service_pb2.WatchJobResponse().SerializeToString()
        yield bytes(limits.ANSWER_BYTES + 1)


@pytest.fixture
async def talkative() -> AsyncIterator[Any]:
    server = grpc.aio.server()
    register(
        AnsweringErrors(server), processing_service_pb2.DESCRIPTOR.services_by_name["ProcessingService"], Talkative()
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ProcessingServiceStub(channel)
    await server.stop(None)


async def test_an_answer_that_no_client_could_receive_is_refused_with_its_size(talkative: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await talkative.GetSystemStatus(processing_service_pb2.GetSystemStatusRequest())
    assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "MESSAGE_TOO_LARGE" in str(told.value.trailing_metadata())
    assert f"at most {limits.ANSWER_BYTES} bytes" in str(told.value.details())
    stream = aiter(talkative.WatchJob(processing_service_pb2.WatchJobRequest()))
    await anext(stream)
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await anext(stream)
    assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
