"""Reads the JSON of a safetensors header, entry by entry, and stops at the first fault.

A general parser would build all that a hostile header lists before anything could be judged. Here each entry is parsed from
a window of bounded size, so that time and memory are bounded by what is accepted.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from domains.errors import excerpt

MAX_ENTRY_BYTES = 16 * 1024
"""Most bytes of one tensor's name and entry."""
MAX_METADATA_BYTES = 2 * 1024 * 1024
METADATA = "__metadata__"
_USUAL_BYTES = 512

_SPACE = re.compile(rb"[ \t\n\r]*")


def entries(text: bytes) -> Iterator[tuple[str, Any]]:
    """The pairs of the JSON object `text`, in their order. Raises ValueError with what is wrong with it.

    Refused: keys that come twice, at any depth (two readers could see two models in one file), NaN and infinities, texts
    that are no Unicode, bytes after the object.
    """
    at, more = _after_space(text, 1), True
    if text[at : at + 1] == b"}":
        at, more = at + 1, False
    names: set[str] = set()
    while more:
        name, value, at = _pair(text, at)
        if name in names:
            raise ValueError(f"the key {excerpt(name)!r} comes twice")
        names.add(name)
        yield name, value
        more = text[at : at + 1] == b","
        if not more and text[at : at + 1] != b"}":
            raise ValueError(f"neither ',' nor '}}' at byte {at}")
        at = _after_space(text, at + 1)
    if _after_space(text, at) != len(text):
        raise ValueError(f"something follows the object at byte {at}")


def leading_metadata(text: bytes) -> tuple[Any, bytes]:
    """The metadata at the beginning of the object `text` ({} if there is none), and the object without it.

    Text that is not of this form comes back whole.
    """
    start = _after_space(text, 1)
    if not text.startswith(f'"{METADATA}"'.encode(), start):
        return {}, text
    try:
        _, value, at = _pair(text, start)
    except ValueError:
        return {}, text
    if text[at : at + 1] not in (b",", b"}"):
        return {}, text
    rest = text[at + 1 :] if text[at : at + 1] == b"," else text[at:]
    # A comma before the end is not JSON: keep it, so that the parser refuses it.
    trailing = text[at : at + 1] == b"," and text[_after_space(text, at + 1) :].startswith(b"}")
    return ({}, text) if trailing else ({} if value is None else value, b"{" + rest)


def _pair(text: bytes, at: int) -> tuple[str, Any, int]:
    """The pair that begins at byte `at`, and the position behind it."""
    limit = MAX_METADATA_BYTES if text.startswith(f'"{METADATA}"'.encode(), at) else MAX_ENTRY_BYTES
    # Nearly all entries are short: the wide window is decoded only where the narrow one was too narrow.
    for size in (_USUAL_BYTES, limit):
        try:
            return _parsed(text[at : at + size], at, text)
        except _Twice:
            raise
        except (ValueError, RecursionError) as error:
            fault = error
    if len(text) - at > limit:
        raise ValueError(f"the entry at byte {at} is longer than {limit} bytes, or no JSON: {fault}") from fault
    raise ValueError(str(fault)) from fault


def _parsed(window: bytes, at: int, text: bytes) -> tuple[str, Any, int]:
    # Bytes that are no UTF-8 (or cut at the window's end) become surrogates, which `_plain` refuses in what is read.
    words = window.decode("utf-8", "surrogateescape")
    if not words.startswith('"'):
        raise ValueError(f"no key at byte {at}")
    name, end = _DECODER.raw_decode(words)
    colon = _skip(words, end)
    if words[colon : colon + 1] != ":":
        raise ValueError(f"no ':' after the key {excerpt(name)!r}")
    value, end = _DECODER.raw_decode(words, _skip(words, colon + 1))
    _plain(name)
    return name, value, _after_space(text, at + len(_plain(words[:end])))


def _plain(text: str) -> bytes:
    """The text in UTF-8. Raises ValueError for half a character (escapes can spell it), which no message could carry."""
    return text.encode()


def _skip(window: str, at: int) -> int:
    while at < len(window) and window[at] in " \t\n\r":
        at += 1
    return at


def _after_space(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


class _Twice(ValueError):
    """A key occurred twice."""


def refuse_half_characters(pairs: list[tuple[str, Any]]) -> None:
    """Raise ValueError for half a character, which an escape can spell and no message could carry."""
    for name, value in pairs:
        for text in (name, *(value if isinstance(value, list) else (value,))):
            if isinstance(text, str):
                text.encode()


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_half_characters(pairs)
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise _Twice(f"the key {excerpt(name)!r} comes twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unrepeated, parse_constant=_no_constant)
