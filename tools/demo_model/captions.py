"""Captions: a name in a few wordings, on one of eight backgrounds."""

import random
import re
from collections.abc import Mapping, Sequence

from tools.demo_model.names import Item

Captions = Mapping[str, Sequence[Sequence[str]]]
"""Background → for each icon, its captions."""

BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "pink": (255, 205, 218),
    "blue": (186, 222, 255),
    "green": (198, 238, 204),
    "yellow": (255, 241, 170),
    "purple": (222, 206, 250),
    "orange": (255, 214, 174),
    "gray": (214, 216, 221),
}
"""Name → 8-bit RGB."""

# What comes often stands several times.
PREFIXES = (
    "",
    "",
    "",
    "a ",
    "an emoji of a ",
    "a flat emoji of a ",
    "a picture of a ",
    "an icon of a ",
    "a drawing of a ",
    "an illustration of a ",
    "a cute ",
)
SUFFIXES = (
    "",
    "",
    "",
    "",
    " emoji",
    " icon",
    ", flat vector art",
    ", emoji style",
    ", simple illustration",
    ", clip art",
)
ALIAS_SHARE = 0.5
"""How often an icon that has synonyms is called by one."""
UNSAID_WHITE_SHARE = 0.6
"""How often a white background is not mentioned."""


def all_captions(items: Sequence[Item], variants: int, rng: random.Random) -> dict[str, list[list[str]]]:
    """`variants` captions an icon on white, half as many on each other background."""
    return {
        background: [
            [caption(item, background, rng) for _ in range(variants if background == "white" else variants // 2)]
            for item in items
        ]
        for background in BACKGROUNDS
    }


def caption(item: Item, background: str, rng: random.Random) -> str:
    """One caption, drawn at random."""
    name = rng.choice(item.alias) if item.alias and rng.random() < ALIAS_SHARE else item.name
    prefix, suffix = rng.choice(PREFIXES), rng.choice(SUFFIXES)
    whole = articled(prefix, name) + name + suffix + _place(background, rng)
    return whole.replace("on a orange", "on an orange")


def articled(prefix: str, name: str) -> str:
    """The prefix with the article that the name wants: `an` before a vowel, none before a plural."""
    if name[0] in "aeiou" and prefix.endswith("a "):
        prefix = prefix[:-2] + "an "
    if name.endswith("s") and prefix.endswith(("a ", "an ")):
        prefix = re.sub(r"an? $", "", prefix)
    return prefix


def _place(background: str, rng: random.Random) -> str:
    if background == "white" and rng.random() < UNSAID_WHITE_SHARE:
        return ""
    on_it = f" on a {background} background"
    return rng.choice([on_it, on_it, f", {background} background", f" on {background}"])
