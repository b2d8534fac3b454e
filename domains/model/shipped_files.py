"""The configs and tokenizers that the package ships for checkpoints in one file: `shipped/<family>/<component>/`.

`shipped/LICENSES.md` says where each comes from.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from domains.model.json_file import read_json

SHIPPED = Path(__file__).resolve().parent / "shipped"
CLIP_WORDS = 49_408
"""Entries of CLIP's vocabulary."""
_CLIP = SHIPPED / "clip_tokenizer"
_CLIP_FILES = ("vocab.json", "merges.txt")
_CONFIG = "tokenizer_config.json"


@cache
def shipped_files(family: str, variant: str, component: str) -> Mapping[str, Path]:
    """The files of a component by name; empty: none are shipped. Those of a variant replace those of its family."""
    found: dict[str, Path] = {}
    for folder in (SHIPPED / family / component, SHIPPED / f"{family}-{variant}" / component):
        if folder.is_dir():
            found |= {path.name: path for path in sorted(folder.iterdir())}
    if _CONFIG in found and read_json(found[_CONFIG]).get("tokenizer_class") == "CLIPTokenizer":
        found |= {name: _CLIP / name for name in _CLIP_FILES}
    return found


def is_shipped(path: Path) -> bool:
    """Whether a file belongs to the package."""
    return path.is_relative_to(SHIPPED)
