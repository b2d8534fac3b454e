"""Hints for prompts."""

import time

import pytest

from domains.model.catalogue import EMBEDDED
from domains.model.suggest import knows, suggest

NAMES = (EMBEDDED / "emoji-sd" / "known_prompts.txt").read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    "prompt",
    [
        "red apple",
        "a Red  Apple",
        "an owl icon",
        "an icon of an owl",
        "a flat emoji of a rocket on a blue background",
        "a pizza on a purple background",
        "a cute penguin, flat vector art",
        "thinking face emoji, yellow background",
        "a rocket on pink",
        "eye",
        "the sun",
        "a burger.",
        "an icon of a laughing emoji on a blue background",
    ],
)
def test_trained_wording_is_known(prompt: str) -> None:
    assert knows(prompt, NAMES)


@pytest.mark.parametrize("prompt", ["", "a", "a dragon in a castle", "two apples and a banana", "x" * 10_000_000])
def test_other_wording_is_not_known(prompt: str) -> None:
    assert not knows(prompt, NAMES)


def test_a_slip_of_the_finger_finds_the_name() -> None:
    assert suggest("a penguine", NAMES)[0] == "penguin"
    assert "guitar" in suggest("an icon of a guittar", NAMES)


def test_names_inside_a_composition_come_first() -> None:
    assert set(suggest("a dragon in a castle", NAMES)) >= {"dragon", "castle"}


def test_the_longest_contained_name_comes_first() -> None:
    assert suggest("the red apple of my eye", NAMES)[0] == "red apple"


def test_nonsense_gets_no_suggestion() -> None:
    assert suggest("qqqq zzzz xxxx vvvv", NAMES) == []
    assert suggest("", NAMES) == []


def test_parts_of_words_are_not_contained_names() -> None:
    assert "cat" not in suggest("concatenation of strings", NAMES)


def test_no_more_than_asked_for() -> None:
    assert len(suggest("a cat and a dog and a bird and a fish", NAMES, n=2)) == 2


def test_a_long_prompt_is_answered_at_once() -> None:
    began = time.perf_counter()
    suggest("a word " * 1_000_000, NAMES)
    assert time.perf_counter() - began < 5
