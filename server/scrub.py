"""Takes out of texts for callers what only our own process or machine knows: heap addresses, and where we are installed.

Texts of libraries come into messages (Pillow: `cannot identify image file <_io.BytesIO object at 0x7f…>`), and an address
tells an attacker where the heap lies. Paths inside model roots and blob roots are the callers' own and stay.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

_OBJECT = re.compile(r"<[\w.]+(?: object)? at 0x[0-9a-fA-F]+>")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{8,16}\b")
"""Shorter ones are codes: of PCI vendors, of errors of Windows."""
_TO_ITS_END = r"(?:[/\\][^\s'\"`,:;()<>\[\]{}]*)?"


class _Places:
    """Folders that are not told."""

    def __init__(self) -> None:
        self._folders = {str(Path(__file__).parents[1]), str(Path(sys.prefix)), str(Path(sys.base_prefix))}
        self._compile()

    def add(self, folder: Path) -> None:
        """One more."""
        self._folders |= {str(folder), str(folder.resolve())}
        self._compile()

    def _compile(self) -> None:
        # "/" or "/usr" would hide files of callers.
        far = sorted((folder for folder in self._folders if len(Path(folder).parts) > 2), key=len, reverse=True)
        self.pattern = re.compile(rf"(?:{'|'.join(map(re.escape, far))})(?![\w.-]){_TO_ITS_END}" if far else "(?!)")


_places = _Places()


def hide(folder: Path) -> None:
    """Never tell callers of this folder: the one of the state."""
    _places.add(folder)


def scrubbed(text: str) -> str:
    """The text without addresses; of a hidden path only the file's name stays."""
    if "0x" in text:
        text = _ADDRESS.sub("0x…", _OBJECT.sub("an object", text))
    if "/" in text or "\\" in text:
        text = _places.pattern.sub(lambda path: f"…/{Path(path[0]).name}", text)
    return text


def scrubbed_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """The same for named values."""
    return {name: scrubbed(value) for name, value in facts.items()}
