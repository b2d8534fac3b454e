"""A picture's file appears complete and as announced, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from deviceops.common.v1 import image_pb2
from deviceops.memory.v1 import memory_service_pb2
from server.cli.calls.connection import Connection
from server.cli.console.failure import CliError
from server.cli.memory.blob_file import save
from tests.server.cli.peer import peer

_DATA = bytes(range(256)) * 64


def _blobs(pieces: list[bytes], breaks: bool = False) -> grpc.RpcMethodHandler[Any, Any]:
    """ReadBlob that sends `pieces`, then breaks the call if told to."""

    def read(
        request: memory_service_pb2.ReadBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[memory_service_pb2.ReadBlobResponse]:
        for piece in pieces:
            yield memory_service_pb2.ReadBlobResponse(data=piece)
        if breaks:
            context.abort(grpc.StatusCode.DATA_LOSS, "the disk is gone")

    return grpc.unary_stream_rpc_method_handler(
        read,
        request_deserializer=memory_service_pb2.ReadBlobRequest.FromString,
        response_serializer=memory_service_pb2.ReadBlobResponse.SerializeToString,
    )


def _announced() -> image_pb2.ImageFile:
    return image_pb2.ImageFile(blob_id="b1", size_bytes=len(_DATA), sha256=hashlib.sha256(_DATA).hexdigest())


def _save(blobs: grpc.RpcMethodHandler[Any, Any], target: Path, force: bool = False) -> None:
    with peer("deviceops.memory.v1.MemoryService", {"ReadBlob": blobs}) as address, Connection(address) as connection:
        save(connection, _announced(), target, force=force)


def test_the_pieces_become_the_file_and_nothing_else_is_left(tmp_path: Path):
    _save(_blobs([_DATA[:1000], _DATA[1000:]]), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == _DATA
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").stat().st_mode & 0o444


@pytest.mark.parametrize("pieces", [[_DATA[:-1]], [_DATA, b"x"], [b"y" + _DATA[1:]], []])
def test_bytes_that_were_not_announced_leave_no_file(tmp_path: Path, pieces: list[bytes]):
    with pytest.raises(CliError, match="b1 arrived damaged"):
        _save(_blobs(pieces), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_broken_read_leaves_no_file(tmp_path: Path):
    with pytest.raises(CliError, match="the disk is gone"):
        _save(_blobs([_DATA[:100]], breaks=True), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_file_that_came_up_meanwhile_is_kept_unless_forced(tmp_path: Path):
    target = tmp_path / "a.png"
    target.write_bytes(b"mine")
    with pytest.raises(CliError, match="nothing was overwritten"):
        _save(_blobs([_DATA]), target)
    assert target.read_bytes() == b"mine"
    _save(_blobs([_DATA]), target, force=True)
    assert target.read_bytes() == _DATA


def test_a_folder_that_is_gone_is_named(tmp_path: Path):
    with pytest.raises(CliError, match=r"cannot write .*a\.png: No such file"):
        _save(_blobs([_DATA]), tmp_path / "gone" / "a.png")
