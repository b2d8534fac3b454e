"""How prompts are read: the published examples of both tools, and what holds for any text."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.inference.prompts import Prompt, Syntax, read

A1111 = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    "[unbalanced": [("unbalanced", 1 / 1.1)],
    "unbalanced) ]": [("unbalanced) ]", 1.0)],
    r"\(literal\]": [("(literal]", 1.0)],
    "a\\b": [("ab", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        *[("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1)],
        *[("hill", 0.55), (", sun, ", 1.1), ("sky", 1.4641), (".", 1.1)],
    ],
    "(a:-.5)": [("a", -0.5)],
    "(a:1.2.3)": [("a:1.2.3", 1.1)],
    "16:9, a:1.5)": [("16:9, a:1.5)", 1.0)],
    "(a [b) c]": [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)],
    "()": [],
}
COMFYUI = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("(unbalanced", 1.0)],
    "unbalanced)": [("unbalanced)", 1.0)],
    r"\(literal\)": [("(literal)", 1.0)],
    "[words] and a\\b": [("[words] and a\\b", 1.0)],
    "((a))": [("a", 1.21)],
    "((a:1.3) b:0.5)": [("a", 1.3), (" b", 0.5)],
    "((a:1.3))": [("a", 1.3)],
    "(a (b) c:0.5) d": [("a ", 0.5), ("b", 0.55), (" c", 0.5), (" d", 1.0)],
    "(a:b)": [("a:b", 1.1)],
    "(:1.5)": [(":1.5", 1.1)],
    "()": [],
}
TEXT = st.text(alphabet=r"ab ,:.15()[]\|", max_size=40)


@pytest.mark.parametrize("text", A1111)
def test_a1111_weighs_as_its_published_examples(text: str) -> None:
    told(read(text, Syntax.A1111).parts[0], A1111[text])


@pytest.mark.parametrize("text", COMFYUI)
def test_comfyui_weighs_as_the_tool_does(text: str) -> None:
    told(read(text, Syntax.COMFYUI).parts[0], COMFYUI[text])


def told(found: Sequence[tuple[str, float]], wanted: Sequence[tuple[str, float]]) -> None:
    assert [(text, pytest.approx(weight)) for text, weight in wanted] == list(found)


@given(text=TEXT)
def test_plain_text_is_one_segment_whatever_it_holds(text: str) -> None:
    (part,) = read(text, Syntax.PLAIN).parts
    assert [tuple(one) for one in part] == ([(text, 1.0)] if text else [])


@given(text=TEXT, syntax=st.sampled_from([Syntax.A1111, Syntax.COMFYUI]))
def test_reading_keeps_the_words_in_order(text: str, syntax: Syntax) -> None:
    reading = read(text, syntax)
    words = [one for one in text if one in "ab "]
    assert [one for part in reading.parts for segment in part for one in segment.text if one in "ab "] == words
    assert reading.blank == (not any(segment.text for part in reading.parts for segment in part))


@given(text=TEXT, syntax=st.sampled_from([Syntax.A1111, Syntax.COMFYUI]))
def test_escaped_brackets_are_text(text: str, syntax: Syntax) -> None:
    plain = text.replace("\\", "").replace(":", "")
    special = "()[]" if syntax is Syntax.A1111 else "()"
    escaped = "".join(f"\\{one}" if one in special else one for one in plain)
    assert read(escaped, syntax).parts == read(plain, Syntax.PLAIN).parts


@pytest.mark.parametrize("syntax", [Syntax.A1111, Syntax.COMFYUI])
def test_ten_thousand_nested_brackets_are_read(syntax: Syntax) -> None:
    depth = 10_000
    assert read("(" * depth + "a" + ":1)" * depth, syntax).parts[0][0] == ("a", 1.0)


def test_break_begins_a_part_with_the_weight_that_holds_there() -> None:
    parts = read("a (b BREAK c:1.5) BREAKING\nBREAK\nd", Syntax.A1111).parts
    assert parts == ((("a ", 1.0), ("b", 1.5)), (("c", 1.5), (" BREAKING", 1.0)), (("d", 1.0),))
    around = read("a \n BREAK  b BREAK c  (d:2)", Syntax.A1111).parts
    assert around == ((("a", 1.0),), (("b", 1.0),), (("c  ", 1.0), ("d", 2.0))), (
        "blanks round a BREAK are none of a part"
    )
    assert read("a BREAK b", Syntax.COMFYUI).parts == ((("a BREAK b", 1.0),),)


LARGE = 32 * 1024
HOSTILE = {
    "a number without an end": "(a:" + "1" * LARGE,
    "a number that is none": "(a:" + "1" * LARGE + "x)",
    "a step without an end": "[a:" + "1" * LARGE,
    "bars": "[" + "|" * LARGE,
    "blanks": "a" + " " * LARGE + "b",
    "blanks after a colon": "(a:" + " " * LARGE,
    "brackets": "([" * (LARGE // 2),
    "pairs": "[()" * (LARGE // 3),
}


@pytest.mark.parametrize("syntax", Syntax)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_prompt_takes_long_to_read(text: str, syntax: Syntax) -> None:
    """A pattern that tries such a text again from each place takes 2 to 20 s."""
    began = time.process_time()
    read(text, syntax)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("a",), ["a", "a", "a"]),
        (("a", "b"), ["a", "b", "a"]),
        (("a", "", "c"), ["a", "a", "c"]),
        (("", "b", ""), ["", "b", ""]),
    ],
)
def test_a_text_encoder_without_a_text_of_its_own_reads_the_first(texts: tuple[str, ...], said: list[str]) -> None:
    prompt = Prompt(texts=texts)
    assert [prompt.text_of(encoder) for encoder in range(3)] == said
    assert prompt.blank == (not any(texts))
