"""The codec: bytes of a pipe ↔ frames. The layout and the rules are told in `protos/deviceops/stdio/v1/frame.proto`."""

import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple

import google_crc32c
from deviceops.stdio.v1.frame_pb2 import Frame
from google.protobuf.message import DecodeError

PROTOCOL_VERSION = 1
MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest body either end accepts unless its hello says otherwise."""

MAGIC = b"\xde\xf0"
RAW_FLAG = 0x01
HEADER = struct.Struct(">2sBBII")
"""Magic, version, flags, body length, CRC-32C."""
RAW_HEADER = struct.Struct(">2sBBIIq")
"""The same, with the call id that begins a raw body."""

_CHECKED = struct.Struct(">2sBBI")  # what the CRC covers of the header: all before it
_CALL_ID = struct.Struct(">q")
_PIPE_BODIES = frozenset(("hello", "ping", "pong", "go_away"))
_extend: Callable[[int, bytes], int] = google_crc32c.extend


class FrameError(Exception):
    """The bytes are not frames, or the frames break the rules. The pipe is over: nothing after this can be trusted."""


class Raw(NamedTuple):
    """A raw-bytes frame."""

    call_id: int
    payload: bytes


def encode(frame: Frame, max_body_bytes: int = MAX_BODY_BYTES) -> bytes:
    """One whole frame. Raises `ValueError` where the receiver would refuse its size."""
    body = frame.SerializeToString()
    _check_size(len(body), max_body_bytes)
    checked = _CHECKED.pack(MAGIC, PROTOCOL_VERSION, 0, len(body))
    return HEADER.pack(MAGIC, PROTOCOL_VERSION, 0, len(body), _extend(_extend(0, checked), body)) + body


def encode_raw_header(call_id: int, payload: bytes, max_body_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The 20 bytes that go before a raw payload on the wire; the payload itself is written as it is, uncopied.

    Raises `ValueError` where the receiver would refuse its size.
    """
    length = _CALL_ID.size + len(payload)
    _check_size(length, max_body_bytes)
    checked = _CHECKED.pack(MAGIC, PROTOCOL_VERSION, RAW_FLAG, length)
    crc = _extend(_extend(0, checked + _CALL_ID.pack(call_id)), payload)
    return RAW_HEADER.pack(MAGIC, PROTOCOL_VERSION, RAW_FLAG, length, crc, call_id)


def _check_size(length: int, max_body_bytes: int) -> None:
    if length > max_body_bytes:
        raise ValueError(f"a frame body of {length} bytes is over the receiver's {max_body_bytes}; send it in parts")


class FrameDecoder:
    """Takes the bytes of a pipe in pieces of any size and gives whole frames.

    It holds at most one unfinished frame. A payload that spans pieces is copied once, into the bytes handed out; its CRC is
    reckoned piece by piece on the way. After a `FrameError` it refuses every further byte with the same error.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self._header = b""  # of the frame being read, until it is whole
        self._body: BytesIO | None = None  # of the frame being read, once its header is whole
        self._missing = 0  # bytes of the body still to come
        self._raw_call_id: int | None = None
        self._crc = 0
        self._expected_crc = 0
        self._error: FrameError | None = None

    @property
    def inside_frame(self) -> bool:
        """Whether bytes of an unfinished frame are held: a pipe that ends now ended in the middle of one."""
        return bool(self._header) or self._body is not None

    def feed(self, chunk: bytes) -> Iterator[Frame | Raw]:
        """The frames that `chunk` completes, in order; exhaust it. Raises `FrameError` after the frames before the fault."""
        if self._error is not None:
            raise self._error
        return self._decode(chunk)

    def _decode(self, chunk: bytes) -> Iterator[Frame | Raw]:
        at = 0
        try:
            while at < len(chunk) or self._missing == 0 < len(self._header):
                at = self._take_header(chunk, at) if self._body is None else at
                if self._body is None:
                    return
                at = self._take_body(chunk, at)
                if self._missing:
                    return
                yield self._finish()
        except FrameError as error:
            self._error = error
            raise

    def _take_header(self, chunk: bytes, at: int) -> int:
        """Reads on in the header (20 bytes for a raw frame, else 12); opens the body once the header is whole."""
        for size in (HEADER.size, RAW_HEADER.size):
            end = at + size - len(self._header)
            self._header += chunk[at:end]
            at = min(end, len(chunk))
            if len(self._header) < size:
                self._refuse_wrong_start()
                return at
            if size == HEADER.size or len(self._header) == HEADER.size:
                self._check_header()
            if not self._header[3] & RAW_FLAG:
                break
        self._open_body()
        return at
