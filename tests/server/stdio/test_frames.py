from itertools import pairwise

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceops.stdio.v1.frame_pb2 import (
    Frame,
    FrameCancel,
    FrameClose,
    FrameCredit,
    FrameGoAway,
    FrameHalfClose,
    FrameHello,
    FrameOpen,
    FramePing,
    FramePong,
)
from server.stdio.frames import HEADER, FrameDecoder, FrameError, Raw, encode, encode_raw_header

CALL_IDS = st.integers(1, 2**63 - 1)
PIPE_FRAMES = st.one_of(
    st.builds(Frame, hello=st.builds(FrameHello, instance_id=st.text(max_size=9))),
    st.builds(Frame, ping=st.builds(FramePing, token=st.integers(0, 2**63 - 1))),
    st.builds(Frame, pong=st.builds(FramePong, token=st.integers(0, 2**63 - 1))),
    st.builds(Frame, go_away=st.builds(FrameGoAway, reason=st.text(max_size=20))),
)
CALL_FRAMES = st.one_of(
    st.builds(Frame, call_id=CALL_IDS, open=st.builds(FrameOpen, method=st.text(max_size=20))),
    st.builds(Frame, call_id=CALL_IDS, message=st.binary(max_size=300)),
    st.builds(Frame, call_id=CALL_IDS, half_close=st.just(FrameHalfClose())),
    st.builds(Frame, call_id=CALL_IDS, cancel=st.builds(FrameCancel, reason=st.text(max_size=20))),
    st.builds(Frame, call_id=CALL_IDS, close=st.builds(FrameClose, status_code=st.integers(0, 16))),
    st.builds(Frame, call_id=CALL_IDS, credit=st.builds(FrameCredit, messages=st.integers(1, 99))),
)
RAWS = st.builds(Raw, CALL_IDS, st.binary(max_size=300))
FRAMES = st.lists(st.one_of(PIPE_FRAMES, CALL_FRAMES, RAWS), max_size=8)


def wire(*frames: Frame | Raw) -> bytes:
    return b"".join(
        encode(frame) if isinstance(frame, Frame) else encode_raw_header(*frame) + frame.payload for frame in frames
    )


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def decoded(chunks: list[bytes]) -> tuple[list[Frame | Raw], FrameError | None]:
    """What came before the fault, and the fault."""
    decoder, got = FrameDecoder(), list[Frame | Raw]()
    try:
        for chunk in chunks:
            for frame in decoder.feed(chunk):
                got.append(frame)
    except FrameError as error:
        return got, error
    return got, None


def test_the_crc_is_reckoned_in_c() -> None:
    assert google_crc32c.implementation == "c"


def test_the_crc_is_crc_32c_over_header_and_body() -> None:
    data = encode(Frame(ping=FramePing(token=7)))
    assert HEADER.unpack(data[:12])[4] == google_crc32c.value(data[:8] + data[12:])


@given(FRAMES, st.lists(st.integers(0, 3000), max_size=12))
def test_any_chunking_gives_the_same_frames(frames: list[Frame | Raw], cuts: list[int]) -> None:
    assert decoded(pieces(wire(*frames), cuts)) == (frames, None)


@given(FRAMES)
def test_single_bytes_give_the_same_frames(frames: list[Frame | Raw]) -> None:
    data = wire(*frames)
    assert decoded([data[at : at + 1] for at in range(len(data))]) == (frames, None)


@given(FRAMES.filter(bool), st.data())
def test_a_flipped_bit_never_gives_a_wrong_frame(frames: list[Frame | Raw], data: st.DataObject) -> None:
    good = wire(*frames)
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    got, error = decoded([bytes(bad)])
    assert got == frames[: len(got)]
    assert len(got) < len(frames)
    assert error is not None or is_longer_length(good, frames[: len(got)], bit)


@pytest.mark.parametrize(
    "frame", [Frame(call_id=5, message=b"\x00" * 40), Raw(5, b"\x08\x05" * 20)], ids=("message", "raw")
)
def test_every_single_flipped_bit_is_found(frame: Frame | Raw) -> None:
    good = wire(frame)
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        # What follows is long enough to satisfy any length within the limit that the flip can claim.
        got, error = decoded([bytes(bad), bytes(2**24)] if is_longer_length(good, [], bit) else [bytes(bad)])
        assert (got, error is not None) == ([], True), f"bit {bit}"


def is_longer_length(good: bytes, before: list[Frame | Raw], bit: int) -> bool:
    """A length that grew within the limit waits for its bytes; it is found out when they come."""
    start = len(wire(*before))
    return start + 4 <= bit // 8 < start + 8


@given(FRAMES.filter(bool), st.data())
def test_a_truncated_stream_waits(frames: list[Frame | Raw], data: st.DataObject) -> None:
    whole = wire(*frames)
    cut = data.draw(st.integers(0, len(whole) - 1))
    decoder = FrameDecoder()
    got = list(decoder.feed(whole[:cut]))
    assert got == frames[: len(got)]
    assert decoder.inside_frame == (len(wire(*got)) != cut)
    assert got + list(decoder.feed(whole[cut:])) == frames


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"Loading", "begins with the bytes 4c 6f 61"),
        (b"\n", "begins with the bytes 0a"),
        (b"\xde\xf0\x02", "version 1"),
        (HEADER.pack(b"\xde\xf0", 1, 2, 0, 0), "flags 0x02"),
        (HEADER.pack(b"\xde\xf0", 1, 0, 2**24 + 1, 0), "over the limit"),
        (HEADER.pack(b"\xde\xf0", 1, 1, 7, 0), "no room for its call id"),
        (HEADER.pack(b"\xde\xf0", 1, 0, 0, 0), "CRC-32C"),
        (encode(Frame()), "says nothing"),
        (encode(Frame(call_id=-1, message=b"x")), "call id -1"),
        (encode(Frame(call_id=0, message=b"x")), "call id 0"),
        (encode(Frame(call_id=3, ping=FramePing())), "ping frame with the call id 3"),
        (wire(Raw(0, b"x")), "call 0"),
    ],
)
def test_what_is_no_frame_is_named(data: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        list(FrameDecoder().feed(data))


def test_a_body_that_does_not_parse_is_refused() -> None:
    body = b"\xff\xff\xff"
    crc = google_crc32c.value(HEADER.pack(b"\xde\xf0", 1, 0, len(body), 0)[:8] + body)
    with pytest.raises(FrameError, match="does not parse"):
        list(FrameDecoder().feed(HEADER.pack(b"\xde\xf0", 1, 0, len(body), crc) + body))


def test_nothing_is_read_after_a_fault() -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameError):
        list(decoder.feed(b"garbage"))
    with pytest.raises(FrameError, match="begins with"):
        list(decoder.feed(encode(Frame(ping=FramePing()))))


def test_frames_before_the_fault_are_given() -> None:
    ping = Frame(ping=FramePing(token=1))
    got, error = decoded([encode(ping) + b"garbage"])
    assert got == [ping]
    assert error is not None


def test_the_sender_refuses_what_the_receiver_would() -> None:
    with pytest.raises(ValueError, match="over the receiver's 10"):
        encode(Frame(call_id=1, message=bytes(11)), 10)
    with pytest.raises(ValueError, match="over the receiver's 10"):
        encode_raw_header(1, bytes(3), 10)
