"""Attacks from the wire, in short: other clients are answered meanwhile, and memory stays bounded. See `bench/attacks`."""

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from bench.attacks import continuation, gzip_bomb, half_open, resets, server_resets, slow_readers
from bench.attacks.harness import STATUS, WATCH, Neighbour, Peak
from bench.attacks.wire import Frame, Kind, Wire, data, headers
from tests.server.harness import RunningServer, running_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the attacker polls its sockets")

MAX_CALLS, MAX_CONNECTIONS = 8, 16
_MIB = 1 << 20
_SOON_S = 5.0


@pytest.fixture(scope="module")
def victim() -> Iterator[RunningServer]:
    """A server with the default limits."""
    with running_server(*slow_readers.BUSY) as server:
        yield server


@pytest.fixture(scope="module")
def narrow() -> Iterator[RunningServer]:
    """A server whose limits are reached soon."""
    limits = {"MAX_CALLS_PER_CONNECTION": MAX_CALLS, "MAX_CONNECTIONS": MAX_CONNECTIONS, "HANDSHAKE_TIMEOUT_S": 0.5}
    limits["IDLE_CONNECTION_S"] = 0.5
    with running_server("--device", "sim", environment={f"DEVICEOPS_{k}": str(v) for k, v in limits.items()}) as server:
        yield server


def test_a_flood_of_resets_fails_no_call_of_others(victim: RunningServer) -> None:
    with Neighbour(victim.address) as neighbour:
        resets.flood(victim.address, 30_000)
    assert not neighbour.failures


@pytest.mark.parametrize("name", server_resets.FLOODS)
def test_frames_that_break_the_rules_or_need_an_answer_fail_no_call_of_others(victim: RunningServer, name: str) -> None:
    peak = Peak(victim.process.pid)
    with peak.watched(), Neighbour(victim.address) as neighbour:
        server_resets.flood(victim.address, server_resets.FLOODS[name], 5_000)
    assert not neighbour.failures
    assert peak.growth_bytes < 64 * _MIB


def test_headers_without_end_take_no_memory_without_end(victim: RunningServer) -> None:
    peak = Peak(victim.process.pid)
    with peak.watched(), Neighbour(victim.address) as neighbour:
        sent = continuation.endless(victim.address, 20_000)
    assert not neighbour.failures
    assert peak.growth_bytes < min(sent / 2, 128 * _MIB)


def test_watches_that_are_never_read_cost_others_nothing(victim: RunningServer) -> None:
    peak = Peak(victim.process.pid)
    wires = slow_readers.deaf(victim.address, 500)
    try:
        with peak.watched(), Neighbour(victim.address) as neighbour, Wire(victim.address) as reader:
            # Twenty heartbeats of one that reads: as many were due to each that does not.
            reader.send(headers(1, WATCH), data(1, b""))
            for _ in range(20):
                reader.until(Kind.DATA)
        assert not neighbour.failures
        assert peak.growth_bytes < 64 * _MIB
    finally:
        for wire in wires:
            wire.close()


def test_a_gzip_bomb_is_refused_before_it_is_inflated(victim: RunningServer) -> None:
    compressed = gzip_bomb.bomb(256 * _MIB)
    peak = Peak(victim.process.pid)
    with peak.watched():
        answer = gzip_bomb.thrown(victim.address, compressed)
    assert b"Compression algorithm 'gzip' is disabled" in answer.payload
    assert peak.growth_bytes < 16 * _MIB


def test_the_server_says_that_it_takes_no_compression(victim: RunningServer) -> None:
    with Wire(victim.address) as wire:
        wire.send(headers(1, STATUS), data(1, b""))
        accepted = wire.until(Kind.HEADERS).payload
    assert b"identity" in accepted
    assert b"gzip" not in accepted


@pytest.mark.parametrize("words", [b"", half_open.HALF_HELLO], ids=["silent", "half a hello"])
def test_a_connection_that_never_says_hello_is_closed(narrow: RunningServer, words: bytes) -> None:
    opened = half_open.connected(narrow.address, MAX_CONNECTIONS // 2, words)
    try:
        with Neighbour(narrow.address) as neighbour:
            assert half_open.closed_by_peer(opened, _SOON_S) == len(opened)
        assert not neighbour.failures
    finally:
        _close(opened)


def test_connections_beyond_the_limit_are_closed_at_once_and_those_before_live(narrow: RunningServer) -> None:
    with Neighbour(narrow.address) as neighbour:
        wires = [_hello(narrow) for _ in range(MAX_CONNECTIONS + 4)]
        ended = [one for one in wires if one is None]
    for wire in wires:
        if wire is not None:
            wire.close()
    assert len(ended) >= 4
    assert not neighbour.failures


def _hello(server: RunningServer) -> Wire | None:
    """A connection with an open watch; None: the server closed it instead."""
    try:
        wire = Wire(server.address)
        wire.send(headers(1, WATCH), data(1, b""))
        wire.until(Kind.HEADERS, _SOON_S)
    except OSError:
        return None
    return wire


def test_a_connection_without_calls_is_told_to_go(narrow: RunningServer) -> None:
    with _accepted(narrow.address) as wire:
        assert wire.until(Kind.GOAWAY, _SOON_S)


def test_a_connection_has_so_many_calls_at_a_time_and_others_have_theirs(narrow: RunningServer) -> None:
    with Wire(narrow.address) as wire, Neighbour(narrow.address) as neighbour:
        assert _max_streams(wire) == MAX_CALLS
        for number in range(MAX_CALLS + 1):
            wire.send(headers(2 * number + 1, WATCH), data(2 * number + 1, b""))
        refused = _of_stream(wire, 2 * MAX_CALLS + 1)
        assert refused.kind == Kind.RST_STREAM
    assert not neighbour.failures


def _accepted(address: str) -> Wire:
    """A connection that the server keeps: it closes new ones while those of the test before are not gone yet."""
    until_s = time.monotonic() + _SOON_S
    while True:
        wire = Wire(address)
        try:
            wire.peer_settings(_SOON_S)
        except ConnectionError:
            wire.close()
            if time.monotonic() > until_s:
                raise
        else:
            return wire


def _max_streams(wire: Wire) -> int:
    """What the server's SETTINGS say; 3 is SETTINGS_MAX_CONCURRENT_STREAMS."""
    payload = wire.peer_settings(_SOON_S)
    entries = {int.from_bytes(payload[at : at + 2]): payload[at + 2 : at + 6] for at in range(0, len(payload), 6)}
    return int.from_bytes(entries[3])


def _of_stream(wire: Wire, stream: int) -> Frame:
    while (frame := wire.next_frame(_SOON_S)) is not None:
        if frame.stream == stream:
            return frame
    raise TimeoutError(f"nothing on stream {stream}")


def _close(connections: list[socket.socket]) -> None:
    for one in connections:
        one.close()
