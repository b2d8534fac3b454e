"""10,000 connections that never say hello, and as many that say half of it; beside a neighbour's calls."""

import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

from bench.attacks.harness import Neighbour, Peak, allow_descriptors, tell
from bench.attacks.wire import PREFACE
from tests.server.harness import running_server

CONNECTIONS = 10_000
HALF_HELLO = PREFACE[:10]


def connected(address: str, count: int, words: bytes) -> list[socket.socket]:
    """So many connections on which only `words` were said."""
    host, _, port = address.rpartition(":")
    opened: list[socket.socket] = []
    for _ in range(count):
        connection = socket.create_connection((host, int(port)))
        opened.append(connection)
        with suppress(OSError):
            connection.sendall(words)
    return opened


def closed_by_peer(connections: Sequence[socket.socket], timeout_s: float) -> int:
    """How many the server has closed, waiting so long for all of them."""
    until, left = time.monotonic() + timeout_s, {one.fileno(): one for one in connections}
    poll = select.poll()
    for number in left:
        poll.register(number, select.POLLIN)
    while left and (rest := until - time.monotonic()) > 0:
        for number, _ in poll.poll(rest * 1000):
            if _is_over(left[number]):
                poll.unregister(number)
                del left[number]
    return len(connections) - len(left)


def _is_over(connection: socket.socket) -> bool:
    """Whether the end was read; the server's own hello is dropped."""
    try:
        return not connection.recv(1 << 16)
    except OSError:
        return True


def main() -> int:
    """Print what the neighbour and the memory saw."""
    allow_descriptors(CONNECTIONS + 1000)
    figures: dict[str, object] = {}
    for name, words in {"silent": b"", "half a hello": HALF_HELLO}.items():
        with running_server("--device", "sim") as server:
            peak = Peak(server.process.pid)
            with peak.watched(), Neighbour(server.address) as neighbour:
                begin = time.perf_counter()
                opened = connected(server.address, CONNECTIONS, words)
                closed = closed_by_peer(opened, 30)
                seconds = time.perf_counter() - begin
            for one in opened:
                one.close()
            how = {"closed by the server": closed, "seconds": seconds, "memory": peak.figures()}
            figures[name] = {**how, "neighbour": neighbour.figures()}
    return tell("half_open", connections=CONNECTIONS, **figures)


if __name__ == "__main__":
    raise SystemExit(main())
