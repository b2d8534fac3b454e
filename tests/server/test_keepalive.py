"""A client that pings keeps its quiet calls, on every kind of stream; one that floods with pings is cut off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from bench.attacks.wire import END_STREAM, Frame, Kind, Wire, data, headers, ping
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from server.settings import Settings
from tests.server.harness import RunningServer
from tests.server.sim import sim, simulated

INTERVAL_S = 0.05
"""What the server allows; the default is 5 s."""
PINGS = 10
"""gRPC forgives two pings that come too early, and cuts the connection at the third."""
_ENHANCE_YOUR_CALM = 11


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose device has no memory left, so that reservations wait."""
    folder: Path = tmp_path_factory.mktemp("keepalive")
    with simulated(folder, sim(0), flags=("--min-ping-interval-s", str(INTERVAL_S))) as (server, _, _):
        pools = server.memory.ListMemoryPools(memory_service_pb2.ListMemoryPoolsRequest()).memory_pools
        room = next(pool.available_bytes for pool in pools if pool.id == "sim-0")
        server.memory.CreateReservation(
            memory_service_pb2.CreateReservationRequest(
                memory_pool_id="sim-0", size_bytes=room, time_to_live=Duration(seconds=3600)
            )
        )
        yield server


_SPEC = blob_pb2.BlobSpec(tier=blob_pb2.BLOB_TIER_HOST, size_bytes=1000)
QUIET = {
    "a unary call that waits": (
        "deviceops.memory.v1.MemoryService/CreateReservation",
        memory_service_pb2.CreateReservationRequest(
            memory_pool_id="sim-0", size_bytes=1 << 20, wait_timeout=Duration(seconds=60)
        ),
        END_STREAM,
    ),
    "a server stream": (
        "deviceops.processing.v1.ProcessingService/WatchEvents",
        processing_service_pb2.WatchEventsRequest(
            filter=processing_service_pb2.SystemEventFilter(kinds=["nothing.like_it"])
        ),
        END_STREAM,
    ),
    "a client stream": (
        "deviceops.memory.v1.MemoryService/UploadBlob",
        memory_service_pb2.UploadBlobRequest(blob_spec=_SPEC),
        0,
    ),
    "a stream both ways": ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", None, 0),
}


def pinged(wire: Wire, pause_s: float) -> list[Frame]:
    """Send pings with a pause after each; all that came, to the last ping's answer."""
    came: list[Frame] = []
    for token in range(PINGS):
        wire.send(ping(token))
        came.append(wire.until(Kind.PING))
        while (frame := wire.next_frame(pause_s)) is not None:
            came.append(frame)
            if frame.kind == Kind.GOAWAY:
                return came
    return came


@pytest.mark.parametrize("name", QUIET)
def test_pings_as_often_as_allowed_cost_no_quiet_call(quiet: RunningServer, name: str) -> None:
    path, message, flags = QUIET[name]
    with Wire(quiet.address) as wire:
        wire.send(headers(1, f"/{path}"))
        if message is not None:
            wire.send(data(1, message.SerializeToString(), flags))
        came = pinged(wire, 2 * INTERVAL_S)
    assert len([frame for frame in came if frame.kind == Kind.PING]) == PINGS
    assert not [frame for frame in came if frame.kind in (Kind.GOAWAY, Kind.RST_STREAM)]
    assert not [frame for frame in came if frame.stream == 1 and frame.flags & END_STREAM]


def test_pings_without_a_call_are_welcome_too(quiet: RunningServer) -> None:
    with Wire(quiet.address) as wire:
        assert Kind.GOAWAY not in {frame.kind for frame in pinged(wire, 2 * INTERVAL_S)}


def test_a_flood_of_pings_is_cut_off(quiet: RunningServer) -> None:
    with Wire(quiet.address) as wire:
        wire.send(*(ping(token) for token in range(100)))
        away = wire.until(Kind.GOAWAY)
    assert int.from_bytes(away.payload[4:8]) == _ENHANCE_YOUR_CALM
    assert b"too_many_pings" in away.payload


def test_a_server_that_is_told_nothing_allows_a_ping_every_10_s() -> None:
    assert Settings().min_ping_interval_s <= 10
