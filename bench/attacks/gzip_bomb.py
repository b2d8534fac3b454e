"""A request of 1 MiB that says it is gzip of 1 GiB of zeros; the server takes no compressed requests."""

import gzip

from bench.attacks.harness import STATUS, Neighbour, Peak, tell
from bench.attacks.wire import Frame, Kind, Wire, data, frame, headers
from tests.server.harness import running_server

INFLATED_BYTES = 1 << 30
BOMBS = 20
_PIECE = 16_000


def bomb(inflated_bytes: int) -> bytes:
    """The compressed bytes."""
    return gzip.compress(bytes(inflated_bytes), 9)


def thrown(address: str, compressed: bytes) -> Frame:
    """Send it as a unary call's request; the first frame of the answer."""
    message = data(1, compressed, 0, compressed=True)[9:]
    with Wire(address) as wire:
        wire.send(headers(1, STATUS, more=[("grpc-encoding", "gzip")]))
        for begin in range(0, len(message), _PIECE):
            last = begin + _PIECE >= len(message)
            wire.send(frame(Kind.DATA, 1, message[begin : begin + _PIECE], int(last)))
        while True:
            answer = wire.next_frame(10)
            if answer is None:
                raise TimeoutError("the bomb was not answered")
            if answer.stream == 1 and answer.kind != Kind.WINDOW_UPDATE:
                return answer


def main() -> int:
    """Print what the neighbour and the memory saw."""
    compressed = bomb(INFLATED_BYTES)
    with running_server("--device", "sim") as server:
        peak = Peak(server.process.pid)
        with peak.watched(), Neighbour(server.address) as neighbour:
            answers = {repr(thrown(server.address, compressed).payload[-120:]) for _ in range(BOMBS)}
        size = len(compressed)
        return tell("gzip_bomb", sent_bytes=size, answers=answers, neighbour=neighbour.figures(), memory=peak.figures())


if __name__ == "__main__":
    raise SystemExit(main())
