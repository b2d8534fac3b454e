"""Where the windows of long prompts begin."""

from hypothesis import given
from hypothesis import strategies as st

from domains.inference.prompts import LongPrompt, Reading, Segment, Syntax, Windows, laid_out, read

ROOM = 75
COMMA = ord(",")


def laid(text: str, syntax: Syntax = Syntax.PLAIN, long: LongPrompt = LongPrompt.CHUNK, room: int = ROOM) -> list[str]:
    return words_of(windows(text, syntax, long, room))


def windows(text: str, syntax: Syntax = Syntax.PLAIN, long: LongPrompt = LongPrompt.CHUNK, room: int = ROOM) -> Windows:
    """A token for each character."""
    return laid_out(read(text, syntax), long, room, lambda some: [ord(one) for one in some], COMMA)


def words_of(found: Windows) -> list[str]:
    return ["".join(chr(token.id) for token in window) for window in found.windows]


def test_a_prompt_that_fits_is_one_window() -> None:
    assert laid("a" * ROOM) == ["a" * ROOM]
    assert laid("") == [""]


def test_a_full_window_ends_after_a_comma_that_is_near() -> None:
    assert laid("a" * 60 + "," + "b" * 30) == ["a" * 60 + ",", "b" * 30]
    assert laid("a" * 54 + "," + "b" * 30) == ["a" * 54 + "," + "b" * 20, "b" * 10]
    assert laid("a" * 55 + "," + "b" * 30) == ["a" * 55 + ",", "b" * 30]
    assert laid("a" * 60 + "," + "b" * 14 + "," + "c") == ["a" * 60 + "," + "b" * 14, ",c"]


def test_a_short_run_is_not_divided_in_comfyui() -> None:
    assert laid("a" * 70 + "(bbbbbbb:1.2)", Syntax.COMFYUI) == ["a" * 70, "b" * 7]
    assert laid("a" * 70 + "(bbbbbbbb:1.2)", Syntax.COMFYUI) == ["a" * 70 + "b" * 5, "b" * 3]


def test_what_does_not_fit_is_left_out_and_counted() -> None:
    found = windows("a" * 100, long=LongPrompt.TRUNCATE)
    assert (words_of(found), found.count, found.read) == (["a" * ROOM], 100, ROOM)


def test_break_begins_a_window_whatever_becomes_of_long_prompts() -> None:
    for long in LongPrompt:
        assert laid("a BREAK b", Syntax.A1111, long) == ["a", "b"]


@given(
    text=st.text(alphabet="ab,", max_size=60),
    syntax=st.sampled_from([Syntax.PLAIN, Syntax.COMFYUI]),
    room=st.integers(1, 12),
)
def test_no_token_is_lost_or_doubled(text: str, syntax: Syntax, room: int) -> None:
    found = windows(text, syntax, room=room)
    assert "".join(words_of(found)) == text
    assert found.count == found.read == len(text)
    assert all(0 < len(window) <= room for window in found.windows) or not text


def test_tokens_keep_the_weight_of_their_segment() -> None:
    reading = Reading(parts=((Segment("a", 1.5), Segment("b", 0.5)),), syntax=Syntax.A1111)
    found = laid_out(reading, LongPrompt.CHUNK, ROOM, lambda some: [ord(one) for one in some], None)
    assert [token.weight for token in found.windows[0]] == [1.5, 0.5]
