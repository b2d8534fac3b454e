"""Limits, fields, samplers and types of maps as lines of text, one a fact, so that a changed fact is seen in a review.

`python -m tests.domains.inference.facts` writes `facts.txt` anew.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from domains.inference import limits
from domains.inference.control_types import CONTROL_MODES
from domains.inference.family_fields import Task, fields_of, tasks_of, unread
from domains.inference.fields import FIELDS
from domains.inference.preprocessors import PREPROCESSORS
from domains.inference.samplers import SAMPLERS
from domains.model.families import COMPUTED, FAMILIES
from tests.domains.model.facts import text

FILE = Path(__file__).with_suffix(".txt")
_OF_THIS_INSTALLATION = ("MEDIA_TYPES", "LOSSY_MEDIA_TYPES")
"""Limits, and the field, that say what Pillow was built with."""


def facts() -> str:
    """All facts."""
    lines = limit_lines()
    for kind, table in (("field", FIELDS), ("sampler", SAMPLERS), ("preprocessor", PREPROCESSORS)):
        for name, entry in table.items():
            if name != "output.media_type":
                lines.append(f"{kind} {name} {' '.join(_told(entry))}")
    lines += [f"control_modes {family} {text(modes)}" for family, modes in CONTROL_MODES.items()]
    lines += [f"family {name} {line}" for name in COMPUTED for line in _of_family(name)]
    return "".join(f"{line}\n" for line in lines)


def limit_lines() -> list[str]:
    """The facts of `limits` alone, which are told without the tables that are made of them."""
    return [
        f"limit {name} {text(value)}"
        for name, value in vars(limits).items()
        if name.isupper() and name not in _OF_THIS_INSTALLATION
    ]


def _of_family(name: str) -> Iterable[str]:
    """What of a Generation a family does not read, and what it reads otherwise than the table of fields says."""
    family = FAMILIES[name]
    yield f"unread {_together(unread(family), FIELDS)}"
    for task in tasks_of(family):
        read = {path for path in FIELDS if FIELDS[path].group == "input"}
        yield f"{task} {_together([one.path for one in fields_of(family, task) if one.path in read], read)}"
    every = {one.path: one for task in Task for one in fields_of(family, task)}
    for path, one in every.items():
        if changed := [told for told in _told(one) if told not in _told(FIELDS[path])]:
            yield f"field {path} {' '.join(changed)}"


def _together(paths: Collection[str], every: Collection[str]) -> str:
    """Paths in the order of the fields; a message whose fields are all among them is one."""
    partly = {path.partition(".")[0] for path in every if path not in paths}
    names = (path if (message := path.partition(".")[0]) in partly else message for path in FIELDS if path in paths)
    return text(tuple(dict.fromkeys(names)))


def _told(entry: msgspec.Struct) -> Iterable[str]:
    for field in msgspec.structs.fields(entry):
        value = getattr(entry, field.name)
        if value != field.default and field.name not in ("path", "id"):
            yield f"{field.name}={text(value)}"


if __name__ == "__main__":
    FILE.write_text(facts(), encoding="utf-8")
