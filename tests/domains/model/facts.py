"""The facts about families and networks as lines of text, one a fact, so that a changed fact is seen in a review.

`python -m tests.domains.model.facts` writes `facts.txt` anew.
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, cast

import msgspec

from domains.model.detect.controls import CONTROLNETS, IMAGE_PROMPT_ADAPTERS, T2I_ADAPTERS
from domains.model.detect.denoisers import OF_NO_FAMILY
from domains.model.detect.encoders import ENCODERS
from domains.model.detect.lora_base import BASES, Base
from domains.model.detect.network import Network
from domains.model.detect.pictures import PICTURE_NETWORKS
from domains.model.detect.vaes import VAES
from domains.model.families import FAMILIES
from domains.model.families.family import Family
from domains.model.families.sign import Layout, Sign

FILE = Path(__file__).with_suffix(".txt")
NETWORKS = (*IMAGE_PROMPT_ADAPTERS, *CONTROLNETS, *T2I_ADAPTERS, *VAES, *ENCODERS, *PICTURE_NETWORKS, *OF_NO_FAMILY)


def facts() -> str:
    """All facts."""
    lines = [f"{family.id} {line}" for family in FAMILIES.values() for line in _lines(family)]
    return "".join(f"{line}\n" for line in lines) + of_detection()


def of_detection() -> str:
    """The facts that tell what tensors are, the last ones of all."""
    lines = [f"{one.kind} {one.architecture} {line}" for one in NETWORKS for line in _lines(one)]
    lines += [f"base_of_lora {number} {line}" for number, one in enumerate(BASES) for line in _lines(one)]
    return "".join(f"{line}\n" for line in lines)


def _lines(one: Family | Network | Base) -> Iterable[str]:
    for field in msgspec.structs.fields(one):
        value = getattr(one, field.name)
        if field.name == "layouts":
            for layout in cast(tuple[Layout, ...], value):
                yield from (f"{layout.name} {text(sign)}" for sign in layout.signs)
                yield f"{layout.name} without {text(layout.without)}"
        elif value not in (field.default, {}):
            yield f"{field.name} {text(value)}"


def text(value: Any) -> str:
    """A value in one line."""
    match value:
        case Sign():
            return f"{'must' if value.decisive else 'usual'} {value.text()}"
        case Enum():
            return str(value)
        case re.Pattern():
            return cast(re.Pattern[str], value).pattern
        case msgspec.Struct():
            told = {field.name: getattr(value, field.name) for field in msgspec.structs.fields(value)}
            return text({name: each for name, each in told.items() if each not in ("", (), {}, None)})
        case Mapping():
            items = cast(Mapping[Any, Any], value).items()
            return "{" + ", ".join(f"{text(key)}: {text(each)}" for key, each in items) + "}"
        case tuple() | list():
            return "(" + ", ".join(text(each) for each in cast(tuple[Any, ...], value)) + ")"
        case _:
            return str(value)


if __name__ == "__main__":
    FILE.write_text(facts(), encoding="utf-8")
