"""HTTP/2 by hand (RFC 9113), frame by frame: what no well-behaved client library sends.

with Wire(server.address) as wire:
    wire.send(headers(1, "/deviceops.processing.v1.ProcessingService/WatchEvents"), data(1, b""))
    frame = wire.next_frame(timeout_s=1.0)
"""

import enum
import select
import socket
import struct
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import msgspec

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
_READ_BYTES = 1 << 20


class Kind(enum.IntEnum):
    """Frame types."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Frame(msgspec.Struct, frozen=True):
    """A frame that came."""

    kind: int
    """A `Kind`, or a number that this file does not know."""
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Bytes of one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream: int, path: str, *, more: Iterable[tuple[str, str]] = (), flags: int = END_HEADERS) -> bytes:
    """HEADERS that open a gRPC call of this method."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    )
    return frame(Kind.HEADERS, stream, block(fields), flags)


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """HPACK of these fields (RFC 7541): literals without indexing, without Huffman coding."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def data(stream: int, message: bytes, flags: int = END_STREAM, *, compressed: bool = False) -> bytes:
    """DATA with one whole gRPC message."""
    return frame(Kind.DATA, stream, struct.pack(">BI", compressed, len(message)) + message, flags)


def reset(stream: int, code: int = 8) -> bytes:
    """RST_STREAM; 8 is CANCEL."""
    return frame(Kind.RST_STREAM, stream, struct.pack(">I", code))


def ping(token: int) -> bytes:
    """PING; its answer has the same token."""
    return frame(Kind.PING, 0, struct.pack(">Q", token))


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, size = len(data) - 127, bytearray([127])
    while rest >= 128:
        size.append(rest % 128 + 128)
        rest //= 128
    return bytes([*size, rest]) + data


class Wire:
    """One connection. It reads only when told."""

    def __init__(self, address: str, *, settings: bytes = b"", receive_buffer_bytes: int = 0) -> None:
        """Connects to `host:port` and says hello. `settings`: payload of our SETTINGS."""
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.connect((host, int(port)))
        self._received = bytearray()
        self._peer_settings = b""
        self.socket.sendall(PREFACE + frame(Kind.SETTINGS, 0, settings))

    def send(self, *frames: bytes) -> None:
        """Write frames. Raises `OSError` where the peer has closed the connection."""
        self.socket.sendall(b"".join(frames))

    def next_frame(self, timeout_s: float) -> Frame | None:
        """The next frame; None: none came in time. Raises `ConnectionError` where the peer has closed the connection.

        The peer's SETTINGS and PING are answered here and not returned; answers to ours are.
        """
        until = time.monotonic() + timeout_s
        while True:
            while (found := self._parsed()) is None:
                rest = until - time.monotonic()
                if rest <= 0 or not select.select([self.socket], [], [], rest)[0]:
                    return None
                received = self.socket.recv(_READ_BYTES)
                if not received:
                    raise ConnectionResetError("the peer has closed the connection")
                self._received += received
            if found.kind == Kind.SETTINGS and not found.flags & ACK:
                self._peer_settings = found.payload
            if found.kind not in (Kind.SETTINGS, Kind.PING) or found.flags & ACK:
                return found
            self.send(frame(found.kind, 0, found.payload if found.kind == Kind.PING else b"", ACK))

    def peer_settings(self, timeout_s: float) -> bytes:
        """Payload of the peer's SETTINGS, which come first."""
        self.until(Kind.SETTINGS, timeout_s)
        return self._peer_settings

    def until(self, kind: Kind, timeout_s: float = 60.0) -> Frame:
        """The next frame of this kind; others are dropped. Raises `TimeoutError` and `ConnectionError`."""
        end = time.monotonic() + timeout_s
        while (rest := end - time.monotonic()) > 0:
            found = self.next_frame(rest)
            if found is not None and found.kind == kind:
                return found
        raise TimeoutError(f"no {kind.name} within {timeout_s} s")

    def close(self) -> None:
        """Leave."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _parsed(self) -> Frame | None:
        if len(self._received) < 9:
            return None
        size = int.from_bytes(self._received[:3])
        if len(self._received) < 9 + size:
            return None
        kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
        payload = bytes(self._received[9 : 9 + size])
        del self._received[: 9 + size]
        return Frame(kind, flags, stream & 0x7FFFFFFF, payload)
