"""Removes heap addresses and paths of the installation from texts for callers.

Messages contain texts of libraries (Pillow: `cannot identify image file <_io.BytesIO object at 0x7f…>`), and a heap address
helps an attacker. Paths inside model roots and blob roots belong to the callers and stay.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

_OBJECT = re.compile(r"<[\w.]+(?: object)? at 0x[0-9a-fA-F]+>")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{8,16}\b")
"""A heap address. Shorter numbers are codes, of PCI vendors or of Windows' errors."""
_TO_ITS_END = r"(?:[/\\][^\s'\"`,:;()<>\[\]{}]*)?"


class _Places:
    """Folders whose paths callers must not see."""

    def __init__(self) -> None:
        self._folders = {str(Path(__file__).parents[1]), str(Path(sys.prefix)), str(Path(sys.base_prefix))}
        self._compile()

    def add(self, folder: Path) -> None:
        """Add a folder."""
        self._folders |= {str(folder), str(folder.resolve())}
        self._compile()

    def _compile(self) -> None:
        # Hiding "/" or "/usr" would hide files of callers.
        far = sorted((folder for folder in self._folders if len(Path(folder).parts) > 2), key=len, reverse=True)
        self.pattern = re.compile(rf"(?:{'|'.join(map(re.escape, far))})(?![\w.-]){_TO_ITS_END}" if far else "(?!)")


_places = _Places()


def hide(folder: Path) -> None:
    """Hide a folder, such as the state folder, from callers."""
    _places.add(folder)


def scrubbed(text: str) -> str:
    """The text without addresses; a hidden path becomes its file's name."""
    if "0x" in text:
        text = _ADDRESS.sub("0x…", _OBJECT.sub("an object", text))
    if "/" in text or "\\" in text:
        text = _places.pattern.sub(lambda path: f"…/{Path(path[0]).name}", text)
    return text


def scrubbed_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """`scrubbed` for named values."""
    return {name: scrubbed(value) for name, value in facts.items()}
