"""Mutated frame streams in both directions: a go-away with a reason, or nothing; no crash, hang or wrong message."""

import asyncio
import os
import random
from collections.abc import Callable

import pytest

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

STREAMS = 200
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
SENT = {(1, b"first"), (3, b"second")}


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


def served(data: bytes) -> tuple[list[tuple[int, bytes]], Ended, list[str]]:
    """What a serving end makes of the bytes: the messages, its end, and the reasons of its go-aways."""
    theirs, ours = os.pipe()
    reading, writing = os.pipe()
    peer = FramePeer(theirs, writing)
    os.write(ours, data)
    os.close(ours)
    messages: list[tuple[int, bytes]] = []
    while not isinstance(command := peer.next(30), Ended):
        assert command is not None, "it hangs"
        if isinstance(command, Message):
            messages.append((command.call_id, command.data))
    told = b""
    while chunk := os.read(reading, 65536):
        told += chunk
    os.close(reading)
    frames = [frame for frame in FrameDecoder().feed(told) if isinstance(frame, Frame)]
    return messages, command, [frame.go_away.reason for frame in frames if frame.HasField("go_away")]


def test_mutated_streams_to_a_server_end_in_go_away_with_a_reason() -> None:
    broken = 0
    for seed in range(STREAMS):
        messages, end, reasons = served(mutated(TO_SERVER, seed))
        assert set(messages) <= SENT, f"seed {seed}"
        bad = end.cause.kind == EndKind.BAD_FRAME
        assert [bool(reason) for reason in reasons] == [True] * bad, f"seed {seed}"
        broken += bad
    assert broken > STREAMS / 2


class Pipe:
    """A child without a process: what the channel writes, and what it is told."""

    backlog_bytes = 0

    def __init__(self) -> None:
        self.written = b""

    def write(self, *pieces: bytes) -> None:
        self.written += b"".join(pieces)

    async def drain(self) -> None:
        """There is always room."""

    def listen(self, on_bytes: Callable[[bytes], None], on_end: Callable[[OSError | None], None]) -> None:
        self.on_bytes, self.on_end = on_bytes, on_end

    def close_stdin(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("block", range(4))
async def test_mutated_streams_to_a_caller_end_in_go_away_with_a_reason(block: int) -> None:
    broken = 0
    for seed in range(block * STREAMS // 4, (block + 1) * STREAMS // 4):
        pipe = Pipe()
        channel = FrameChannel(pipe)  # pyright: ignore[reportArgumentType]  # the part of a child that it uses
        data = mutated(TO_CALLER, seed)
        opening = [asyncio.ensure_future(channel.open(method, b"")) for method in ("/a", "/b")]
        await asyncio.sleep(0)
        pipe.on_bytes(data[: len(HELLO)])
        for _ in range(5):
            await asyncio.sleep(0)
        pipe.on_bytes(data[len(HELLO) :])
        pipe.on_end(None)
        end = await channel.closed
        calls = await asyncio.wait_for(asyncio.gather(*opening), 30)
        got = {(call.id, payload.data) for call in calls async for payload in call}
        assert got <= SENT, f"seed {seed}"
        assert all(call.status is not None for call in calls)
        frames = [frame for frame in FrameDecoder().feed(pipe.written) if isinstance(frame, Frame)]
        reasons = [frame.go_away.reason for frame in frames if frame.HasField("go_away")]
        bad = end.kind == EndKind.BAD_FRAME
        assert [bool(reason) for reason in reasons] == [True] * bad, f"seed {seed}"
        broken += bad
    assert broken > STREAMS / 8
