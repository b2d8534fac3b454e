"""What a prompt looks like to an encoder: segments by weight and window."""

from collections.abc import Callable

import pytest

from domains.inference.prompts import LongPrompt, Piece, PromptSegment, Syntax, laid_out, read, segments_of


def pieces(text: str) -> list[Piece]:
    """A token for each character."""
    return [Piece(ord(one), one, at) for at, one in enumerate(text, 1)]


def shown(
    text: str,
    long: LongPrompt = LongPrompt.TRUNCATE,
    syntax: Syntax = Syntax.A1111,
    room: int = 5,
    cut: Callable[[str], list[Piece]] = pieces,
) -> list[PromptSegment]:
    reading = read(text, syntax)
    windows = laid_out(reading, long, room, lambda some: [one.id for one in cut(some)], None)
    return list(segments_of(reading, windows, cut))


def told(found: list[PromptSegment]) -> list[tuple[str, float, int, bool]]:
    return [(one.text, one.weight, one.window, one.truncated) for one in found]


def test_words_that_weigh_the_same_are_together() -> None:
    assert told(shown("a(bc:1.5)d")) == [("a", 1, 0, False), ("bc", 1.5, 0, False), ("d", 1, 0, False)]
    assert [one.tokens for one in shown("a(bc:1.5)d")] == [("a",), ("b", "c"), ("d",)]


def test_what_has_no_room_is_told_as_left_out() -> None:
    assert told(shown("abc(defg:2)h")) == [
        *(("abc", 1, 0, False), ("de", 2, 0, False)),
        *(("fg", 2, 0, True), ("h", 1, 0, True)),
    ]


def test_what_goes_on_in_the_next_window_is_told_there() -> None:
    assert told(shown("abc(defg:2)h", LongPrompt.CHUNK)) == [
        *(("abc", 1, 0, False), ("de", 2, 0, False)),
        *(("fg", 2, 1, False), ("h", 1, 1, False)),
    ]


@pytest.mark.parametrize("long", LongPrompt)
def test_break_begins_a_window(long: LongPrompt) -> None:
    assert told(shown("ab BREAK cd", long)) == [("ab", 1, 0, False), ("cd", 1, 1, False)]


def test_each_part_is_cut_by_itself() -> None:
    assert told(shown("abcdefg BREAK hi")) == [("abcde", 1, 0, False), ("fg", 1, 0, True), ("hi", 1, 1, False)]


def test_a_tokenizer_without_places_tells_its_tokens() -> None:
    found = shown("abcdef", cut=lambda text: [piece._replace(end=None) for piece in pieces(text)])
    assert told(found) == [("abcde", 1, 0, False), ("f", 1, 0, True)]
