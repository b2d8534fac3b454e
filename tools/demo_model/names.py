"""Which icons of Fluent Emoji Flat the model learns, and what people call them."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

_HERE = Path(__file__).parent
PACKAGE = "@iconify-json/fluent-emoji-flat"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One icon of the training set."""

    icon: str
    """Its name in the package: `red-apple`."""
    name: str
    """The same with spaces: `red apple`."""
    alias: list[str]
    """What people say instead."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """The npm package, as far as it is used."""

    icons: dict[str, dict[str, Any]]
    """Name → SVG `body`, and `width`, `height`, `left`, `top` where they differ from 32, 32, 0, 0."""
    categories: dict[str, list[str]]


def read_package(npm: Path) -> Package:
    """From a node_modules folder, or from the unpacked package itself."""
    root = npm / PACKAGE if (npm / PACKAGE).is_dir() else npm
    icons = json.loads((root / "icons.json").read_text("utf-8"))["icons"]
    return Package(icons=icons, categories=json.loads((root / "metadata.json").read_text("utf-8"))["categories"])


def select(package: Package) -> list[str]:
    """Icons to learn, in the package's order. Of people and of symbols only those that are listed."""
    listed = {"People & Body": set(lines("people.txt")), "Symbols": set(lines("symbols.txt"))}
    left_out = re.compile("|".join(f"(?:{pattern})" for pattern in lines("left_out.txt")))
    kept: dict[str, None] = {}
    for category, names in package.categories.items():
        wanted = listed.get(category)
        for name in names:
            good = name in wanted if wanted is not None else name in package.icons and not left_out.fullmatch(name)
            if good:
                kept[name] = None
    return list(kept)


def items_of(icons: Sequence[str]) -> list[Item]:
    """Icons with their names."""
    aliases = synonyms()
    return [Item(icon=icon, name=icon.replace("-", " "), alias=aliases.get(icon, [])) for icon in icons]


def synonyms() -> Mapping[str, list[str]]:
    """Icon → what people call it, from `synonyms.txt`."""
    pairs = (line.split(": ", 1) for line in lines("synonyms.txt"))
    return {icon: names.split(", ") for icon, names in pairs}


def known_prompts(items: Sequence[Item]) -> list[str]:
    """What a client may be told that the model draws: the names, then the synonyms, each once."""
    return list(dict.fromkeys([*(item.name for item in items), *(name for item in items for name in item.alias)]))


def lines(name: str) -> list[str]:
    """Of a text file beside this one."""
    return (_HERE / name).read_text("utf-8").splitlines()
