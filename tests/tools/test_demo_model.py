"""The pure parts of the demo model's recipe: names, captions, tokenizer. Nothing is trained here."""

import random
import re
from collections import Counter

import pytest

from domains.model.catalogue import EMBEDDED
from tools.demo_model.bpe import byte_alphabet, learn, merged, vocabulary_of
from tools.demo_model.captions import BACKGROUNDS, all_captions, articled, caption
from tools.demo_model.drawing import svg_of
from tools.demo_model.names import Item, Package, items_of, known_prompts, lines, select, synonyms

APPLE = Item(icon="red-apple", name="red apple", alias=["apple"])


def shipped(name: str) -> list[str]:
    return (EMBEDDED / "emoji-sd" / name).read_text("utf-8").splitlines()


def package(**categories: list[str]) -> Package:
    named = {name.replace("_", " ").replace(" and ", " & "): icons for name, icons in categories.items()}
    icons = {icon: {"body": "<g/>"} for names in named.values() for icon in names}
    return Package(icons=icons, categories=named)


def test_the_shipped_names_are_those_of_the_recipe() -> None:
    names = shipped("known_prompts.txt")
    plain = names[:1022]
    items = items_of([name.replace(" ", "-") for name in plain])
    assert known_prompts(items) == names
    assert len(set(names)) == len(names) <= 4000
    assert all(re.fullmatch(r"[a-z0-9' ]+", name) for name in names)
    assert set(names) & set(BACKGROUNDS) == {"orange"}  # the fruit


def test_every_synonym_belongs_to_a_shipped_icon() -> None:
    icons = {name.replace(" ", "-") for name in shipped("known_prompts.txt")[:1022]}
    assert set(synonyms()) <= icons
    assert {*lines("people.txt"), *lines("symbols.txt")} <= icons


def test_variants_and_signs_are_left_out_and_people_are_listed() -> None:
    all_icons = package(
        Objects=["red-apple", "one-oclock", "one-thirty", "page-with-curl", "yen-banknote", "red-apple"],
        Smileys=["grinning-face", "zzz", "kissing-face-with-closed-eyes"],
        People_and_Body=["astronaut", "woman-astronaut"],
        Symbols=["warning", "atm-sign"],
    )
    assert select(all_icons) == ["red-apple", "grinning-face", "astronaut", "warning"]


@pytest.mark.parametrize(
    ("prefix", "name", "result"),
    [
        ("a ", "red apple", "a "),
        ("a ", "owl", "an "),
        ("an icon of a ", "owl", "an icon of an "),
        ("a ", "glasses", ""),
        ("an icon of a ", "eyes", "an icon of "),
        ("", "owl", ""),
    ],
)
def test_articles_fit_the_name(prefix: str, name: str, result: str) -> None:
    assert articled(prefix, name) == result


def test_captions_name_the_thing_and_its_background() -> None:
    rng = random.Random(1)
    for background in BACKGROUNDS:
        for _ in range(50):
            text = caption(APPLE, background, rng)
            assert "apple" in text
            assert background == "white" or background in text
            assert "on a orange" not in text


def test_captions_are_the_same_each_time() -> None:
    first, second = (all_captions([APPLE], 8, random.Random(0)) for _ in range(2))
    assert first == second
    assert {background: len(rows[0]) for background, rows in first.items()} == {
        background: 8 if background == "white" else 4 for background in BACKGROUNDS
    }


def test_the_likeliest_pair_is_merged_first() -> None:
    ranks = learn(Counter({"banana": 9, "band": 4}), 3)
    assert ranks[0] == ("a", "n")
    assert merged(["b", "a", "n", "a", "n", "a</w>"], ("a", "n")) == ["b", "an", "an", "a</w>"]
    assert learn(Counter({"a": 1}), 3) == []


def test_the_vocabulary_holds_every_byte_and_both_marks() -> None:
    assert len(set(byte_alphabet())) == 256
    vocabulary = vocabulary_of([("a", "n")])
    assert len(vocabulary) == 2 * 256 + 1 + 2
    assert list(vocabulary)[-3:] == ["an", "<|startoftext|>", "<|endoftext|>"]
    assert list(vocabulary.values()) == list(range(len(vocabulary)))


def test_an_icon_becomes_a_whole_svg() -> None:
    assert 'viewBox="0 0 32 32" width="256"' in svg_of({"body": "<g/>"})
    assert 'viewBox="1 2 16 8"' in svg_of({"body": "<g/>", "left": 1, "top": 2, "width": 16, "height": 8})
