"""A file of the faults that were tried, so that an attack of hours can run in batches and a stop loses nothing."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One fault that was tried."""

    fault: str
    found: list[str]
    """What was wrong; empty: the server was well."""


class Tried:
    """Reads the file once and appends a line for each fault."""

    def __init__(self, path: Path | None) -> None:
        """`path`: None to remember nothing beyond this run. The file need not exist."""
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path and path.exists() else []
        self._entries = {one.fault: one for one in (msgspec.json.decode(line, type=Entry) for line in lines)}

    def __contains__(self, fault: object) -> bool:
        """Whether a run before has tried the fault."""
        return str(fault) in self._entries

    def add(self, fault: object, found: Sequence[str]) -> None:
        """Append the fault. The line is on disk before the next fault is tried."""
        entry = Entry(str(fault), list(found))
        self._entries[entry.fault] = entry
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(msgspec.to_builtins(entry)) + "\n")
