"""Edits by step against the examples of A1111's documentation, written out by hand."""

import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.inference import limits
from domains.inference.prompts import TooManyEdits, composed, scheduled

Expected = list[tuple[int, str]]
"""(last step, text)"""


def runs(text: str, steps: int = 10) -> Expected:
    """The texts with the last step of each run."""
    found = scheduled(text, steps)
    assert len(found.by_step) == steps
    texts = [found.texts[at] for at in found.by_step]
    return [(at, one) for at, one in enumerate(texts, 1) if at == steps or texts[at] != one]


SCENE = (
    "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
    "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]"
)
LAKE = "fantasy landscape with a lake and "


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("test", 10, [(10, "test")]),
        ("a [fantasy:cyberpunk:16] landscape", 20, [(16, "a fantasy landscape"), (20, "a cyberpunk landscape")]),
        ("[a:b:0.5]", 10, [(5, "a"), (10, "b")]),
        ("[a:b:0.5]", 7, [(3, "a"), (7, "b")]),
        ("x [b:3]", 10, [(3, "x "), (10, "x b")]),
        ("x [a::3] y", 10, [(3, "x a y"), (10, "x  y")]),
        ("x [b:.5] y", 10, [(5, "x  y"), (10, "x b y")]),
        ("x [a : b : 1 ] y", 10, [(1, "x a  y"), (10, "x  b  y")]),
        ("[(a:2):3]", 10, [(3, ""), (10, "(a:2)")]),
        ("x [[[b]]:2]", 10, [(2, "x "), (10, "x [[b]]")]),
        ("x[b:[c:d:2]:1]y", 10, [(1, "xby"), (2, "xcy"), (10, "xdy")]),
        ("[a:b:0]", 10, [(10, "b")]),
        ("[cow|horse] in a field", 3, [(1, "cow in a field"), (2, "horse in a field"), (3, "cow in a field")]),
        ("[fe|]male", 3, [(1, "female"), (2, "male"), (3, "female")]),
        ("[fe|||]male", 5, [(1, "female"), (4, "male"), (5, "female")]),
        ("[a|(b:1.1)]", 2, [(1, "a"), (2, "(b:1.1)")]),
        ("[[a|b]:c:2]", 4, [(1, "a"), (2, "b"), (4, "c")]),
        (
            SCENE,
            100,
            [
                (25, "fantasy landscape with a mountain and an oak in foreground shoddy"),
                (50, f"{LAKE}an oak in foreground in background shoddy"),
                (60, f"{LAKE}an oak in foreground in background masterful"),
                (75, f"{LAKE}an oak in background masterful"),
                (100, f"{LAKE}a christmas tree in background masterful"),
            ],
        ),
    ],
)
def test_a_prompt_changes_as_a1111_documents(text: str, steps: int, expected: Expected) -> None:
    assert runs(text, steps) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a [unbalanced",
        "a] b",
        "[a]",
        "[a:b]",
        r"\[a:b:0.5\]",
        "(a:b:0.5)",
        "[a:b:c:0.5]",
        "[(a:b:0.5]",
        "[a:b:-1]",
        "[]",
    ],
)
def test_what_is_no_edit_is_text(text: str) -> None:
    assert runs(text) == [(10, text)]


def test_an_edit_beside_brackets_without_a_partner_is_one() -> None:
    assert runs("((a][:b:c [d:3]") == [(3, "((a][:b:c "), (10, "((a][:b:c d")]


@pytest.mark.parametrize("time_", ["12", "10", "1.0", "99999999999999999999"])
def test_an_edit_beyond_the_steps_never_happens_and_is_told(time_: str) -> None:
    found = scheduled(f"x [a:b:{time_}]", 10)
    assert (found.texts, found.beyond) == (("x a",), (f"[a:b:{time_}]",))


def test_an_edit_within_the_steps_is_not_told() -> None:
    assert scheduled("[a:b:9] [c|d]", 10).beyond == ()


def test_as_many_edits_and_texts_as_the_limits_are_computed() -> None:
    assert len(scheduled("[a|b]" * limits.PROMPT_EDITS, 4).texts) == 2
    changes = "".join(f"[a{at}:b:{at}]" for at in range(1, limits.PROMPT_VARIANTS))
    assert len(scheduled(changes, 1000).texts) == limits.PROMPT_VARIANTS
    with pytest.raises(TooManyEdits, match="different texts"):
        scheduled(f"{changes}[a:b:{limits.PROMPT_VARIANTS}]", 1000)


def test_more_edits_than_are_computed_are_refused() -> None:
    with pytest.raises(TooManyEdits):
        scheduled("[a|b]" * (limits.PROMPT_EDITS + 1), 4)
    with pytest.raises(TooManyEdits):
        scheduled("".join(f"[a{at}:b:{at}]" for at in range(1, limits.PROMPT_VARIANTS + 5)), 1000)


@pytest.mark.parametrize("unit", ["[", "[a:", "[a|", "(", "[(", "[a:b:0.5]", ":", "|]", "[a:b:0.5"])
def test_any_prompt_is_read_in_time_that_grows_with_its_length(unit: str) -> None:
    text = unit * (limits.PROMPT_BYTES // len(unit))
    began = time.process_time()
    try:
        scheduled(text, 1000)
    except TooManyEdits:
        assert "]" in unit
    assert time.process_time() - began < 2


@given(st.text(alphabet="ab[]|:().5\\ ", max_size=60), st.integers(1, 30))
def test_any_text_has_one_text_for_each_step(text: str, steps: int) -> None:
    found = scheduled(text, steps)
    assert len(found.by_step) == steps
    assert set(found.by_step) == set(range(len(found.texts)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a cat :1.2", [("a cat :1.2", 1.0)]),
        ("a cat :1.2 AND a dog AND a penguin :2.2", [("a cat", 1.2), ("a dog", 1.0), ("a penguin", 2.2)]),
        ("a AND b:-0.8", [("a", 1.0), ("b", -0.8)]),
        ("a (b:1.3) AND c", [("a (b:1.3)", 1.0), ("c", 1.0)]),
        ("SAND AND BANDS", [("SAND", 1.0), ("BANDS", 1.0)]),
        ("AND", [("", 1.0), ("", 1.0)]),
        ("a : b AND c:d", [("a : b", 1.0), ("c:d", 1.0)]),
    ],
)
def test_and_joins_prompts_with_weights(text: str, expected: list[tuple[str, float]]) -> None:
    assert list(composed(text)) == expected


@pytest.mark.parametrize(
    "unit",
    ["[a:b:{}]", "[a:a:{}]", "[a|b|{}]", "[[a:{}]:b:500]", "[a{0}:[b:c:{0}]:2]"],
)
def test_the_most_edits_take_a_few_lines_a_step(unit: str) -> None:
    # Tables, not a call for each edit in each step: 33 prompts of a generation stopped the event loop for 21 s.
    text = " ".join(unit.format(place % 60 + 2) for place in range(limits.PROMPT_EDITS // unit.count("[")))
    lines, before = 0, sys.gettrace()

    def trace(_frame: object, event: str, _argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    sys.settrace(trace)
    try:
        scheduled(text, 1000)
    except TooManyEdits:
        assert "{0}" in unit or "|" in unit
    finally:
        sys.settrace(before)
    assert lines < 300_000
