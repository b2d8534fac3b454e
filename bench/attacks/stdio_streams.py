"""Mutated frame streams over stdio, to the server's end and to the client's: none may crash, hang or reach a wrong call.

python -m bench.attacks.stdio_streams [COUNT]      100,000 in each direction where no count is given

The C# client has the same test, MutatedStreamTests.cs; the environment variable DEVICEOPS_STREAMS is its count.
"""

import asyncio
import collections
import os
import random
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from bench.attacks.harness import tell
from deviceops.stdio.v1.frame_pb2 import (
    Frame,
    FrameClose,
    FrameCredit,
    FrameHalfClose,
    FrameHello,
    FrameOpen,
    FramePing,
)
from server.stdio.channel import FrameChannel
from server.stdio.command import Ended, Message
from server.stdio.ending import EndKind
from server.stdio.frames import FrameDecoder, encode
from server.stdio.peer import FramePeer

COUNT = 100_000
HANG_S = 30.0
"""No end takes longer to see the end of a stream."""
HELLO = encode(Frame(hello=FrameHello(protocol_version=1, initial_credit_messages=16)))
TO_SERVER = [
    Frame(call_id=1, open=FrameOpen(method="/a")),
    Frame(call_id=1, message=b"first"),
    Frame(ping=FramePing(token=3)),
    Frame(call_id=3, open=FrameOpen(method="/b")),
    Frame(call_id=3, message=b"second"),
    Frame(call_id=1, credit=FrameCredit(messages=3)),
    Frame(call_id=1, half_close=FrameHalfClose()),
]
TO_CALLER = [
    Frame(call_id=1, message=b"first"),
    Frame(ping=FramePing(token=3)),
    Frame(call_id=3, message=b"second"),
    Frame(call_id=1, credit=FrameCredit(messages=3)),
    Frame(call_id=3, close=FrameClose()),
    Frame(call_id=1, close=FrameClose(status_code=5)),
]
SENT = frozenset({(1, b"first"), (3, b"second")})


class Seen(msgspec.Struct, frozen=True):
    """What an end made of one stream."""

    messages: frozenset[tuple[int, bytes]]
    """Call and content of each message that reached a call."""
    kind: EndKind
    """What ended the pipe."""
    reasons: tuple[str, ...]
    """Of its go-aways."""
    calls_ended: bool = True

    @property
    def broken(self) -> bool:
        """Whether the stream broke a rule."""
        return self.kind == EndKind.BAD_FRAME

    @property
    def fault(self) -> str:
        """What is wrong with it; empty: nothing."""
        if not self.messages <= SENT:
            return f"a call got {self.messages - SENT}"
        if not self.calls_ended:
            return "a call has no end"
        if [bool(reason) for reason in self.reasons] != [True] * self.broken:
            return f"{self.kind} with the reasons {self.reasons}"
        return ""


def mutated(frames: list[Frame], seed: int) -> bytes:
    """The stream with one to three mutations of bytes or of whole frames."""
    dice = random.Random(seed)
    parts = [bytearray(HELLO), *(bytearray(encode(frame)) for frame in frames)]
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(parts))
        part = parts[at]
        place = dice.randrange(len(part) + 1)
        match dice.randrange(5):
            case 0 if place < len(part):
                part[place] ^= 1 << dice.randrange(8)
            case 1:
                part[place:place] = dice.randbytes(dice.randint(1, 20))
            case 2:
                del part[place : place + dice.randint(1, 20)]
            case 3:
                parts.insert(dice.randrange(len(parts)), bytearray(part))
            case _:
                parts[at], parts[0] = parts[0], parts[at]
    return b"".join(parts)


def served(data: bytes) -> Seen:
    """What a serving end makes of the bytes. Raises `TimeoutError` where it hangs."""
    theirs, ours = os.pipe()
    reading, writing = os.pipe()
    peer = FramePeer(theirs, writing)
    os.write(ours, data)
    os.close(ours)
    messages: set[tuple[int, bytes]] = set()
    while not isinstance(command := peer.next(HANG_S), Ended):
        if command is None:
            raise TimeoutError("the serving end hangs")
        if isinstance(command, Message):
            messages.add((command.call_id, command.data))
    told = b""
    while chunk := os.read(reading, 65536):
        told += chunk
    os.close(reading)
    return Seen(frozenset(messages), command.cause.kind, _reasons(told))


class Pipe:
    """A child without a process: what the channel writes, and what it is told."""

    backlog_bytes = 0

    def __init__(self) -> None:
        self.written = b""

    def write(self, *pieces: bytes) -> None:
        """Keep it."""
        self.written += b"".join(pieces)

    async def drain(self) -> None:
        """There is always room."""

    def listen(self, on_bytes: Callable[[bytes], None], on_end: Callable[[OSError | None], None]) -> None:
        """Keep the callbacks."""
        self.on_bytes, self.on_end = on_bytes, on_end

    def close_stdin(self) -> None:
        """Nothing to close."""


async def called(data: bytes) -> Seen:
    """What a calling end makes of the bytes. Raises `TimeoutError` where it hangs."""
    pipe = Pipe()
    channel = FrameChannel(pipe)  # pyright: ignore[reportArgumentType]  # the part of a child that it uses
    opening = [asyncio.ensure_future(channel.open(method, b"")) for method in ("/a", "/b")]
    await asyncio.sleep(0)
    pipe.on_bytes(data[: len(HELLO)])
    for _ in range(5):
        await asyncio.sleep(0)
    pipe.on_bytes(data[len(HELLO) :])
    pipe.on_end(None)
    end = await channel.closed
    calls = await asyncio.wait_for(asyncio.gather(*opening), HANG_S)
    got = frozenset([(call.id, payload.data) for call in calls async for payload in call])
    ended = all(call.status is not None for call in calls)
    return Seen(got, end.kind, _reasons(pipe.written), ended)


def _reasons(written: bytes) -> tuple[str, ...]:
    frames = [frame for frame in FrameDecoder().feed(written) if isinstance(frame, Frame)]
    return tuple(frame.go_away.reason for frame in frames if frame.HasField("go_away"))


def attack(count: int) -> dict[str, dict[str, object]]:
    """Send the streams; what became of them, by direction."""
    to_server = [served(mutated(TO_SERVER, seed)) for seed in range(count)]

    async def calls() -> list[Seen]:
        return [await called(mutated(TO_CALLER, seed)) for seed in range(count)]

    return {"to the server": _summary(to_server), "to the client": _summary(asyncio.run(calls()))}


def readers_left(before: int) -> int:
    """How many more threads there are than before, once those that end have ended."""
    until_s = time.monotonic() + HANG_S
    while threading.active_count() > before and time.monotonic() < until_s:
        time.sleep(0.01)
    return threading.active_count() - before


def _summary(seen: list[Seen]) -> dict[str, object]:
    faults = {seed: one.fault for seed, one in enumerate(seen) if one.fault}
    return {
        "streams": len(seen),
        "ends": dict(collections.Counter(one.kind.value for one in seen)),
        "faults": len(faults),
        "first faults": dict(list(faults.items())[:5]),
    }


def main() -> int:
    """Print what became of the streams; the exit status tells whether every one ended as it must."""
    before = threading.active_count()
    figures = attack(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
    left = readers_left(before)
    tell("stdio_streams", **figures, **{"readers left": left})
    return 1 if left or any(way["faults"] for way in figures.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
