"""The codec of bytes and frames. `protos/deviceops/stdio/v1/frame.proto` specifies the layout and the rules."""

import io
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import google_crc32c
from google.protobuf.message import DecodeError

from deviceops.stdio.v1.frame_pb2 import Frame

PROTOCOL_VERSION = 1
MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest body that an end accepts unless its hello says otherwise."""

MAGIC = b"\xde\xf0"
RAW_FLAG = 0x01
HEADER = struct.Struct(">2sBBII")
"""Magic, version, flags, body length, CRC-32C."""
RAW_HEADER = struct.Struct(">2sBBIIq")
"""`HEADER`, and the call id that begins a raw body."""

_CHECKED = struct.Struct(">2sBBI")  # the part of the header that the CRC covers: all before the CRC
_PIECES_A_BLOCK = 512  # a body that comes byte by byte must not need an object for each byte
_LARGE_BYTES = 256 * 1024
_CALL_ID = struct.Struct(">q")
_PIPE_BODIES = frozenset(("hello", "ping", "pong", "go_away"))
_extend: Callable[[int, bytes], int] = google_crc32c.extend


class FrameError(Exception):
    """The bytes are not frames, or the frames break the rules. The pipe ends, because later bytes cannot be trusted."""


class Raw(NamedTuple):
    """A raw-bytes frame."""

    call_id: int
    payload: bytes


def encode(frame: Frame, max_body_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The bytes of a frame. Raises `ValueError` for a frame that is too large for the receiver."""
    body = frame.SerializeToString()
    _check_size(len(body), max_body_bytes)
    checked = _CHECKED.pack(MAGIC, PROTOCOL_VERSION, 0, len(body))
    return HEADER.pack(MAGIC, PROTOCOL_VERSION, 0, len(body), _extend(_extend(0, checked), body)) + body


def encode_raw_header(call_id: int, payload: bytes, max_body_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The 20 bytes before a raw payload in the pipe; the payload follows uncopied.

    Raises `ValueError` for a payload that is too large for the receiver.
    """
    length = _CALL_ID.size + len(payload)
    _check_size(length, max_body_bytes)
    checked = _CHECKED.pack(MAGIC, PROTOCOL_VERSION, RAW_FLAG, length)
    crc = _extend(_extend(0, checked + _CALL_ID.pack(call_id)), payload)
    return RAW_HEADER.pack(MAGIC, PROTOCOL_VERSION, RAW_FLAG, length, crc, call_id)


def _check_size(length: int, max_body_bytes: int) -> None:
    if length > max_body_bytes:
        raise ValueError(f"a frame body of {length} bytes is over the receiver's {max_body_bytes}; send it in parts")


class _Gathered:
    """Pieces of one part of a frame, joined once."""

    def __init__(self) -> None:
        self.length = 0
        self._blocks: list[bytes] = []
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self.length += len(piece)
        self._pieces.append(piece)
        if len(self._pieces) == _PIECES_A_BLOCK:
            self._blocks.append(b"".join(self._pieces))
            self._pieces.clear()

    def whole(self) -> bytes:
        return b"".join((*self._blocks, *self._pieces))


class _Filled:
    """Pieces of a large part of a frame, each copied to its place at once and dropped.

    If the pieces were kept, a picture would take twice the memory. malloc returns such blocks to the system after each
    picture, and the page faults of the next picture take longer than its copies.
    """

    def __init__(self, size: int) -> None:
        self.length = 0
        self._buffer = io.BytesIO()
        self._buffer.seek(size - 1)
        self._buffer.write(b"\0")  # the one allocation
        self._buffer.seek(0)

    def add(self, piece: bytes) -> None:
        self.length += len(piece)
        self._buffer.write(piece)

    def whole(self) -> bytes:
        return self._buffer.getvalue()  # shared, not copied


class FrameDecoder:
    """Decodes the bytes of a pipe, in pieces of any size, to whole frames.

    It holds at most one unfinished frame. A frame that spans pieces is joined once, into the bytes that are returned, and
    its CRC is computed piece by piece. After a `FrameError`, every further byte raises the same error.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self._error: FrameError | None = None
        self._crc = self._expected_crc = 0
        self._call_id = self._payload_bytes = 0  # of a raw frame
        self._begin(self._end_header, HEADER.size)

    @property
    def inside_frame(self) -> bool:
        """Whether it holds bytes of an unfinished frame, so that a pipe that ends now breaks off inside a frame."""
        return self._stage != self._end_header or self._held.length > 0

    def feed(self, chunk: bytes) -> Iterator[Frame | Raw]:
        """The frames that `chunk` completes, in order; exhaust the iterator. Raises `FrameError` after the valid frames."""
        if self._error is not None:
            raise self._error
        return self._decode(chunk)

    def _decode(self, chunk: bytes) -> Iterator[Frame | Raw]:
        at = 0
        try:
            while True:
                part = chunk[at : at + self._missing]
                at += len(part)
                self._hold(part)
                if self._missing:
                    return
                frame = self._stage(self._held.whole())
                if frame is not None:
                    self._begin(self._end_header, HEADER.size)
                    yield frame
        except FrameError as error:
            self._error = error
            raise

    def _begin(self, stage: Callable[[bytes], Frame | Raw | None], size: int) -> None:
        """Collect the next `size` bytes, and pass them to `stage`."""
        self._stage = stage
        self._missing = size
        self._held = _Filled(size) if size >= _LARGE_BYTES else _Gathered()

    def _hold(self, part: bytes) -> None:
        self._held.add(part)
        self._missing -= len(part)
        if self._stage != self._end_header:
            self._crc = _extend(self._crc, part)
        elif not (MAGIC + bytes((PROTOCOL_VERSION,))).startswith(start := self._held.whole()[:3]):
            raise FrameError(f"not a frame of version {PROTOCOL_VERSION}: it begins with the bytes {start.hex(' ')}")

    def _end_header(self, header: bytes) -> None:
        _, _, flags, length, self._expected_crc = HEADER.unpack(header)
        self._crc = _extend(0, header[: _CHECKED.size])
        if flags & ~RAW_FLAG:
            raise FrameError(f"unknown frame flags 0x{flags:02x}")
        if length > self._max_body_bytes:
            raise FrameError(f"a frame body of {length} bytes is over the limit of {self._max_body_bytes}")
        if not flags:
            self._begin(self._end_body, length)
        elif length < _CALL_ID.size:
            raise FrameError(f"a raw frame body of {length} bytes has no room for its call id")
        else:
            self._begin(self._end_call_id, _CALL_ID.size)
            self._payload_bytes = length - _CALL_ID.size

    def _end_call_id(self, data: bytes) -> None:
        (self._call_id,) = _CALL_ID.unpack(data)
        self._begin(self._end_payload, self._payload_bytes)

    def _end_payload(self, payload: bytes) -> Raw:
        self._check_crc()
        if self._call_id <= 0:
            raise FrameError(f"a raw frame for call {self._call_id}; calls are numbered from 1")
        return Raw(self._call_id, payload)

    def _end_body(self, body: bytes) -> Frame:
        self._check_crc()
        try:
            frame = Frame.FromString(body)
        except DecodeError as error:
            raise FrameError(f"a frame body of {len(body)} bytes does not parse") from error
        kind = frame.WhichOneof("body")
        if kind is None:
            raise FrameError("a frame says nothing that this version knows")
        if (frame.call_id != 0) if kind in _PIPE_BODIES else (frame.call_id <= 0):
            raise FrameError(f"a {kind} frame with the call id {frame.call_id}")
        return frame

    def _check_crc(self) -> None:
        if self._crc != self._expected_crc:
            raise FrameError(f"CRC-32C is {self._crc:08x}, the header says {self._expected_crc:08x}")
