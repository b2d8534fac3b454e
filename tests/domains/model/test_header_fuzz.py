"""Fuzzed headers: whatever the bytes are, there is an answer, and both ways of parsing give the same one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from domains.errors import DataLoss
from domains.model import safetensors_header
from domains.model.model import ModelState
from domains.model.safetensors_header import Header, read_header
from domains.model.weights_model import read_file
from tests.domains.model import published
from tests.domains.model.headers import write_header

_NAMES = ("a", "b.weight", "emb_params", "conv_in.weight", "ü", '"dtype"', "\\", "__metadata__", "\ud800")
_NUMBERS = st.one_of(st.integers(-2, 9), st.sampled_from([1.0, 1.5, 2**63, True, None, "1"]))
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "F32", "F8_E4M3", "BF16", "I64", "F4", "F33", 3, None]),
        "shape": st.one_of(st.lists(_NUMBERS, max_size=4), st.none()),
        "data_offsets": st.one_of(st.lists(_NUMBERS, max_size=3), st.none()),
    },
    optional={"extra": _NUMBERS},
)
_WORDS = st.dictionaries(st.sampled_from(_NAMES), st.one_of(st.text(max_size=4), _NUMBERS), max_size=2)
_HEADERS = st.dictionaries(st.sampled_from(_NAMES), st.one_of(_ENTRY, _WORDS, _NUMBERS), max_size=4)


def _real() -> bytes:
    shapes = dict(list(published.header("sd1_t2i_adapter").items())[:3])
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in shapes:
        entries[name] = {"dtype": "F16", "shape": [2, 3], "data_offsets": [at, at + 12]}
        at += 12
    return json.dumps(entries).encode()


_REAL = _real()


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A real header with some bytes replaced, taken out or repeated."""
    text = bytearray(_REAL)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(at, min(len(text), at + 40)))
        text[at:end] = draw(st.one_of(st.binary(max_size=3), st.just(bytes(text[at:end]) * 2)))
        text = text or bytearray(b" ")
    return bytes(text)


_TEXTS = st.one_of(
    st.binary(max_size=64), _HEADERS.map(lambda header: json.dumps(header).encode()), _damaged(), st.just(_REAL)
)


def _not_plain(text: bytes) -> None:
    """Leaves every header to the parser that reads entry by entry."""


def _entry_by_entry(text: bytes) -> None:
    pytest.fail("the header was parsed entry by entry")


def _answer(path: Path) -> Header | str:
    try:
        return read_header(path)
    except DataLoss:
        return "refused"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text=b'{"": {"": "", "\\ud800": ""}', length=None, room=0)
@example(text=b'{"a": {"dtype": "\\udfff", "shape": [], "data_offsets": [0, 0]}}', length=None, room=0)
@given(text=_TEXTS, length=st.one_of(st.none(), st.integers(0, 2**64 - 1)), room=st.sampled_from([0, 6, 36]))
def test_any_header_has_an_answer_and_both_parsers_agree(
    tmp_path: Path, text: bytes, length: int | None, room: int
) -> None:
    path = tmp_path / "fuzzed.safetensors"
    prefix = (len(text) if length is None else length).to_bytes(8, "little")
    path.write_bytes(prefix + text + bytes(room))
    quick = _answer(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_header, "_quick", _not_plain)
        assert _answer(path) == quick
    model = read_file(path, "fuzzed", "fuzzed")
    assert (model.state is ModelState.CORRUPT) is (quick == "refused")
    assert model.problem


def test_a_real_header_is_parsed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_header(tmp_path / "a.safetensors", published.header("sd1_controlnet"), metadata={"a": 'with "quotes"'})
    slow = read_header(path)
    monkeypatch.setattr(safetensors_header, "entries", _entry_by_entry)
    assert read_header(path) == slow
    assert slow.metadata == {"a": 'with "quotes"'}
