"""Writes `stdio_vectors.json`: frames as hex, for clients in every language. Run it after a change of the protocol.

The CRC is computed here bit by bit, from its definition, so that the vectors do not depend on the codec that they test.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from deviceops.stdio.v1 import frame_pb2 as pb

FILE = Path(__file__).with_suffix(".json")
DEADLINE = pb.FrameOpen(method="/deviceops.processing.v1.ProcessingService/GetSystemStatus")
DEADLINE.timeout.FromMilliseconds(1500)
DEADLINE.metadata.add(key="x-trace-bin", value="AP8=")
CLOSE = pb.FrameClose(status_code=5, status_message="no such job: å", status_details=b"\x08\x05")
CLOSE.trailers.add(key="grpc-status-details-bin", value="CAU=")
HELLO = pb.FrameHello(
    protocol_version=1,
    contract_version="1.0.0",
    instance_id="a1",
    max_body_bytes=1 << 24,
    initial_credit_messages=16,
    services=["deviceops.processing.v1.ProcessingService"],
)
FRAMES = {
    "hello": pb.Frame(hello=HELLO),
    "open with a deadline and binary metadata": pb.Frame(call_id=1, open=DEADLINE),
    "message": pb.Frame(call_id=1, message=b"\x08\x01"),
    "empty message": pb.Frame(call_id=1, message=b""),
    "half-close": pb.Frame(call_id=1, half_close=pb.FrameHalfClose()),
    "cancel": pb.Frame(call_id=3, cancel=pb.FrameCancel(reason="the user left")),
    "close with details and trailers": pb.Frame(call_id=1, close=CLOSE),
    "close with OK": pb.Frame(call_id=1, close=pb.FrameClose()),
    "credit": pb.Frame(call_id=1, credit=pb.FrameCredit(messages=8)),
    "ping": pb.Frame(ping=pb.FramePing(token=7)),
    "pong": pb.Frame(pong=pb.FramePong(token=7)),
    "go-away": pb.Frame(go_away=pb.FrameGoAway(reason="a frame says nothing", last_call_id=3)),
    "greatest call id": pb.Frame(call_id=2**63 - 1, message=b"x"),
}
RAWS = {"raw": (5, bytes(range(16))), "empty raw": (7, b"")}


def crc32c(data: bytes) -> int:
    """CRC-32C by its definition: reflected polynomial 0x82F63B78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def framed(body: bytes, flags: int = 0, *, magic: bytes = b"\xde\xf0", version: int = 1, length: int = -1) -> bytes:
    """A frame; each part of the header may be wrong, and the CRC is right for what it covers."""
    checked = magic + struct.pack(">BBI", version, flags, len(body) if length < 0 else length)
    return checked + struct.pack(">I", crc32c(checked + body)) + body


def _broken() -> Iterator[tuple[str, bytes]]:
    ping = framed(FRAMES["ping"].SerializeToString())
    body = FRAMES["ping"].SerializeToString()
    yield "text", b"Loading weights: 100%\n"
    yield "magic", framed(body, magic=b"\xde\xf1")
    yield "version", framed(body, version=2)
    yield "flag", framed(body, 2)
    yield "length over 16 MiB", framed(b"", length=(1 << 24) + 1)
    yield "crc", ping[:-1] + bytes([ping[-1] ^ 1])
    yield "raw without room for a call id", framed(bytes(7), 1)
    yield "raw for call 0", framed(bytes(8), 1)
    yield "body that does not parse", framed(b"\xff\xff\xff")
    yield "no kind", framed(b"")
    yield "unknown kind", framed(b"\x08\x01\xf2\x07\x01x")
    yield "call id below 0", framed(pb.Frame(call_id=-1, message=b"x").SerializeToString())
    yield "message of call 0", framed(pb.Frame(message=b"x").SerializeToString())
    yield "ping of a call", framed(pb.Frame(call_id=3, ping=pb.FramePing()).SerializeToString())


def vectors() -> dict[str, object]:
    """All vectors; `frame` is the body as protobuf JSON, `raw` the payload of a raw-bytes frame."""
    good: list[dict[str, object]] = [
        {"name": name, "hex": framed(frame.SerializeToString(deterministic=True)).hex(), "frame": MessageToDict(frame)}
        for name, frame in FRAMES.items()
    ]
    for name, (call_id, payload) in RAWS.items():
        data = framed(struct.pack(">q", call_id) + payload, 1)
        good.append({"name": name, "hex": data.hex(), "raw": {"callId": str(call_id), "payloadHex": payload.hex()}})
    broken = [{"name": name, "hex": data.hex()} for name, data in _broken()]
    return {"crc32c": {"text": "123456789", "value": f"{crc32c(b'123456789'):08x}"}, "frames": good, "broken": broken}


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=2) + "\n")
