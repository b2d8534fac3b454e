"""No answer, event or failure tells a heap address, or a path of ours that is in no root."""

import ast
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from google.protobuf.message import Message
from PIL import Image

from deviceops.common.v1 import access_pb2, domain_pb2
from deviceops.processing.v1 import job_pb2
from domains.device.record import Condition, DeviceReach, first_view
from domains.errors import InternalError, InvalidRequest
from domains.failure import Failure
from domains.imaging.decode import decode
from domains.processing.lanes.waits import Wait, WaitReason
from server import convert, scrub
from server.device.messages import to_device
from server.errors import status_of
from server.processing.job_messages import put_wait
from server.processing.status import SystemView
from tests.domains.device.fake_nvml import cuda_device
from tests.server import asking
from tests.server.harness import RunningServer
from tests.server.test_mutated_requests import Outcome
from tests.server.test_unimplemented import METHODS

PACKAGE = Path(scrub.__file__).parents[1]
READS = sorted(
    name
    for name, method in METHODS.items()
    if method.GetOptions().Extensions[access_pb2.scope] == access_pb2.ACCESS_SCOPE_READ
    and not (method.client_streaming or method.server_streaming)
)
_ADDRESS = re.compile(rb"0x[0-9a-f]{8,16}\b")

TEXTS = {
    "cannot identify image file <_io.BytesIO object at 0x7f5a3c0b2f70>": "cannot identify image file an object",
    "free(): invalid pointer 0x00007f5a3c0b2f70": "free(): invalid pointer 0x…",
    f"No such file: '{PACKAGE}/domains/storage.py'": "No such file: '…/storage.py'",
    f"{sys.prefix}/lib/x/torch/nn.py, line 3": "…/nn.py, line 3",
    "vendor 0x10de, error 0x80070": "vendor 0x10de, error 0x80070",
    "/models/a/unet/config.json is no JSON": "/models/a/unet/config.json is no JSON",
    f"{PACKAGE}-of-mine/file": f"{PACKAGE}-of-mine/file",
}


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_ours_goes_and_what_is_the_callers_stays(text: str) -> None:
    assert scrub.scrubbed(text) == TEXTS[text]


def test_the_state_folder_is_hidden_once_it_is_known(tmp_path: Path) -> None:
    text = f"cannot open {tmp_path}/state.sqlite3"
    assert scrub.scrubbed(text) == text
    scrub.hide(tmp_path)
    assert scrub.scrubbed(text) == "cannot open …/state.sqlite3"


def test_an_error_and_a_failure_are_scrubbed_in_every_part() -> None:
    secret = f"{PACKAGE}/secret 0x7f5a3c0b2f70"
    error = InternalError(secret, file=secret)
    for message in (status_of(error), convert.to_failure(Failure.of(error), 0.0)):
        assert _tells_nothing(message)
        assert b"secret" in message.SerializeToString()


def test_what_a_failure_says_was_done_is_scrubbed() -> None:
    failure = msgspec.structs.replace(
        Failure.of(InternalError("x")), actions_taken=(f"restarted {PACKAGE}/server 0x7f5a3c0b2f70",)
    )
    told = convert.to_failure(failure, 0.0)
    assert list(told.actions_taken) == ["restarted …/server 0x…"]
    assert _tells_nothing(told)


def test_the_status_of_a_worker_that_does_not_start_is_scrubbed() -> None:
    keeper = SimpleNamespace(
        name="cuda:0", refused=True, last_problem=f"{sys.prefix}/lib/x.so: 0x7f5a3c0b2f70", state=""
    )
    view = SimpleNamespace(_keepers=[keeper], ready=False)
    told = SystemView._detail(view, domain_pb2.DOMAIN_INFERENCE)  # pyright: ignore[reportArgumentType, reportPrivateUsage]
    assert told == "waits for a device worker: cuda:0 cannot: …/x.so: 0x…"


def test_why_a_device_is_not_available_and_what_a_job_waits_for_are_scrubbed() -> None:
    secret = f"{sys.prefix}/lib/x.so: 0x7f5a3c0b2f70"
    refused = Condition(refusal=Failure.of(InternalError(secret)))
    device = to_device(first_view("cuda:0", cuda_device(), refused, DeviceReach()))
    assert device.state_reason == device.driver.unsupported_reason == "…/x.so: 0x…"
    job = job_pb2.Job()
    put_wait(job, Wait(reason=WaitReason.DEVICE, detail=f"cuda:0 is quarantined: {secret}"))
    assert job.waits_for.detail == "cuda:0 is quarantined: …/x.so: 0x…"


_TEXTS_OF_ERRORS = {"message", "detail", "problem", "last_problem", "state_reason", "silent"}
"""Attributes that can contain the text of a library."""
_SAFE = {"scrubbed", "to_failure", "Failure"}
"""What scrubs a text, and a failure, which `to_failure` scrubs."""


def test_no_message_takes_the_text_of_an_error_as_it_is() -> None:
    told: list[str] = []
    for folder in ("device", "memory", "model", "inference", "processing"):
        for file in sorted((PACKAGE / "server" / folder).glob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                told += [
                    f"{file.name}:{value.lineno} {ast.unparse(value)}" for value in _into_message(node) if _raw(value)
                ]
    assert not told


def _into_message(node: ast.AST) -> list[ast.expr]:
    """Values that become fields of a message."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module)), keywords=keywords) if module.endswith("_pb2"):
            return [one.value for one in keywords]
        case ast.Assign(targets=[ast.Attribute()], value=value):
            return [value]
        case _:
            return []


def _raw(value: ast.expr) -> bool:
    called = {
        getattr(one.func, "id", getattr(one.func, "attr", "")) for one in ast.walk(value) if isinstance(one, ast.Call)
    }
    read = {one.attr for one in ast.walk(value) if isinstance(one, ast.Attribute)}
    return bool(read & _TEXTS_OF_ERRORS) and not called & _SAFE


def test_a_damaged_picture_is_told_without_an_address() -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with pytest.raises(InvalidRequest) as told:
        decode(picture.getvalue()[:40], max_pixels=100)
    assert " at 0x" in told.value.message
    assert _tells_nothing(status_of(told.value))


@pytest.mark.parametrize("name", READS)
def test_no_answer_tells_where_the_server_lies(server: RunningServer, name: str) -> None:
    asking.watch(server, asking.submit(server))
    outcome = Outcome(server, METHODS[name], b"")
    told = outcome.answer if outcome.refusal is None else outcome.refusal.message.encode()
    assert not _ADDRESS.search(told)
    for place in (PACKAGE, sys.prefix, server.state):
        assert str(place).encode() not in told


def _tells_nothing(message: Message) -> bool:
    data = message.SerializeToString()
    return not _ADDRESS.search(data) and str(PACKAGE).encode() not in data
