"""The decoder's own side: its limits, the frames that it writes, and the processor time that a picture gets."""

import io
import signal
import sys
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.imaging import decoder_child, encode
from domains.imaging.decoder_child import answer_all, limit
from domains.imaging.decoder_frames import ANSWER, ASK, REFUSED_BYTES, Refused
from tests.domains.imaging.test_decode import FILES, LIMIT, PIXELS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")


def ask(data: bytes, channels: int = 3, size: int | None = None) -> bytes:
    return ASK.pack(LIMIT, channels, len(data) if size is None else size) + data


def answered(asked: bytes, decoder: Callable[..., NDArray[np.uint8]] | None = None) -> bytes:
    sink = io.BytesIO()
    if decoder is None:
        answer_all(io.BytesIO(asked), sink)
    else:
        answer_all(io.BytesIO(asked), sink, decoder)
    return sink.getvalue()


def refusing(message: str, **facts: object) -> Callable[..., NDArray[np.uint8]]:
    def refuse(_data: bytes, *, max_pixels: int, channels: int) -> NDArray[np.uint8]:
        raise InvalidRequest([Violation(field="image", message=message)], ErrorReason.BAD_IMAGE, **facts)

    return refuse


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_is_its_height_width_and_pixels(channels: int) -> None:
    grey = encode(np.full((40, 56), 7, np.uint8), "image/png")
    found = answered(ask(grey, channels) * 2)
    pixels = {1: bytes([7]), 3: bytes([7] * 3), 4: bytes([7, 7, 7, 255])}[channels] * (40 * 56)
    assert found == (ANSWER.pack(1, 40, 56) + pixels) * 2


def test_no_channels_ask_for_the_texts() -> None:
    body = msgspec.msgpack.encode({"deviceops": '{"seed": 1}'})
    assert answered(ask(FILES["image/png"], 0)) == ANSWER.pack(3, len(body), 0) + body


def test_a_bad_picture_is_refused_with_its_facts() -> None:
    body = msgspec.msgpack.encode(Refused("is 40×56", {"pixels": "2240"}))
    assert answered(ask(b"x"), refusing("the image is 40×56", pixels=2240)) == ANSWER.pack(2, len(body), 0) + body
    body = msgspec.msgpack.encode(Refused("is empty", {}))
    assert answered(ask(b"")) == ANSWER.pack(2, len(body), 0) + body


def test_a_refusal_shows_a_thousand_characters() -> None:
    found = answered(ask(b"x"), refusing("the image " + "x" * 1001))
    assert msgspec.msgpack.decode(found[ANSWER.size :], type=Refused) == Refused("x" * 1000, {})


@pytest.mark.parametrize("more", [0, 1])
def test_a_refusal_that_is_too_large_has_no_facts(more: int) -> None:
    other = len(msgspec.msgpack.encode(Refused("is bad", {"found": "x" * 1000}))) - 1000
    facts = {"found": "x" * (REFUSED_BYTES - other + more)}
    body = msgspec.msgpack.encode(Refused("is bad", {} if more else facts))
    assert len(body) == REFUSED_BYTES or more
    assert answered(ask(b"x"), refusing("the image is bad", **facts)) == ANSWER.pack(2, len(body), 0) + body


def test_a_file_that_breaks_off_is_not_answered() -> None:
    assert answered(ask(b"abc", size=4), refusing("the image is bad")) == b""
    assert answered(ask(b"abc")[: ASK.size - 1], refusing("the image is bad")) == b""


def test_each_picture_gets_its_processor_time_and_what_follows_gets_all() -> None:
    left: list[float] = []

    def decoder(_data: bytes, *, max_pixels: int, channels: int) -> NDArray[np.uint8]:
        left.append(signal.getitimer(signal.ITIMER_PROF)[0])
        if len(left) == 2:
            raise InvalidRequest([Violation(field="image", message="the image is bad")], ErrorReason.BAD_IMAGE)
        return PIXELS

    for _ in range(2):
        answered(ask(b"x"), decoder)
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert all(decoder_child.COMPUTE_S - 0.5 < one <= decoder_child.COMPUTE_S + 0.01 for one in left)


class Buffered(io.BytesIO):
    """Counts what is flushed."""

    flushed = 0

    def flush(self) -> None:
        """Note what is written so far."""
        self.flushed = len(self.getvalue())


def test_each_answer_is_sent_at_once() -> None:
    sink = Buffered()
    answer_all(io.BytesIO(ask(b"")), sink)
    assert sink.flushed == len(sink.getvalue()) > 0


@pytest.mark.parametrize(
    ("hard", "expected"),
    [(None, [(4 << 30,) * 2, (0, 0), (1, 1)]), (0, [(0, 0)] * 3), (7, [(7, 7), (0, 7), (1, 7)])],
    ids=["unlimited", "none", "less"],
)
def test_each_limit_is_the_smaller_one(
    monkeypatch: pytest.MonkeyPatch, hard: int | None, expected: list[tuple[int, int]]
) -> None:
    import resource

    def found(_name: int) -> tuple[int, int]:
        return 99, resource.RLIM_INFINITY if hard is None else hard

    asked: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", found)
    monkeypatch.setattr(resource, "setrlimit", asked.__setitem__)
    limit()
    assert asked == dict(zip((resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE), expected, strict=True))
