"""The codec against the vectors that clients in other languages are built with."""

import json
from typing import Any

import google_crc32c
import pytest
from google.protobuf.json_format import ParseDict

from deviceops.stdio.v1.frame_pb2 import Frame
from server.stdio.frames import FrameDecoder, FrameError, Raw, encode, encode_raw_header
from tests import stdio_vectors

VECTORS: dict[str, Any] = json.loads(stdio_vectors.FILE.read_text())


def named(kind: str) -> Any:
    return pytest.mark.parametrize("vector", [pytest.param(one, id=one["name"]) for one in VECTORS[kind]])


def test_the_file_is_what_its_script_writes() -> None:
    assert stdio_vectors.vectors() == VECTORS


def test_every_kind_of_frame_has_a_vector() -> None:
    kinds = {ParseDict(one["frame"], Frame()).WhichOneof("body") for one in VECTORS["frames"] if "frame" in one}
    assert kinds == {field.name for field in Frame.DESCRIPTOR.oneofs_by_name["body"].fields}


def test_the_crc_is_castagnolis() -> None:
    check = VECTORS["crc32c"]
    assert f"{google_crc32c.value(check['text'].encode()):08x}" == check["value"] == "e3069283"


@named("frames")
def test_a_vector_is_read_as_its_frame_and_written_again(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    (got,) = FrameDecoder().feed(data)
    if isinstance(got, Raw):
        assert got == Raw(int(vector["raw"]["callId"]), bytes.fromhex(vector["raw"]["payloadHex"]))
        assert encode_raw_header(*got) + got.payload == data
    else:
        assert got == ParseDict(vector["frame"], Frame())
        assert encode(got) == data


@named("broken")
def test_a_broken_vector_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        list(FrameDecoder().feed(bytes.fromhex(vector["hex"])))
