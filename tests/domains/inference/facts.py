"""Limits, fields and samplers as lines of text, one a fact, so that a changed fact is seen in a review.

`python -m tests.domains.inference.facts` writes `facts.txt` anew.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from domains.inference import limits
from domains.inference.fields import FIELDS
from domains.inference.preprocessors import PREPROCESSORS
from domains.inference.samplers import SAMPLERS
from tests.domains.model.facts import text

FILE = Path(__file__).with_suffix(".txt")
_OF_THIS_INSTALLATION = ("MEDIA_TYPES", "LOSSY_MEDIA_TYPES")
"""Limits, and the field, that say what Pillow was built with."""


def facts() -> str:
    """All facts."""
    lines = [
        f"limit {name} {text(value)}"
        for name, value in vars(limits).items()
        if name.isupper() and name not in _OF_THIS_INSTALLATION
    ]
    for kind, table in (("field", FIELDS), ("sampler", SAMPLERS), ("preprocessor", PREPROCESSORS)):
        for name, entry in table.items():
            if name != "output.media_type":
                lines.append(f"{kind} {name} {' '.join(_told(entry))}")
    return "".join(f"{line}\n" for line in lines)


def _told(entry: msgspec.Struct) -> Iterable[str]:
    for field in msgspec.structs.fields(entry):
        value = getattr(entry, field.name)
        if value != field.default and field.name not in ("path", "id"):
            yield f"{field.name}={text(value)}"


if __name__ == "__main__":
    FILE.write_text(facts(), encoding="utf-8")
