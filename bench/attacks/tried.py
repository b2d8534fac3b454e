"""A file of the faults that were tried, so that an attack of hours can run in batches and a stop loses nothing.

python -m bench.attacks.tried FILE…      adds what the files have to `tried_places.json`, by the line that makes the calls
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
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

    @property
    def entries(self) -> Sequence[Entry]:
        """All that was tried."""
        return list(self._entries.values())

    def add(self, fault: object, found: Sequence[str]) -> None:
        """Append the fault. The line is on disk before the next fault is tried."""
        entry = Entry(str(fault), list(found))
        self._entries[entry.fault] = entry
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(msgspec.to_builtins(entry)) + "\n")


MISSED = "not reached"
"""Said of a fault whose place no scenario reached again."""
LINES = Path(__file__).with_name("tried_places.json")
_FAULT = re.compile(r"(.+) of (.+?) [A-Z]+ (?:once|from then on) at (.*)", re.DOTALL)


class Line(msgspec.Struct, kw_only=True):
    """A line that calls the system, and the places tried there: each has other callers."""

    kind: str
    victim: str
    line: str
    """See `line_of`."""
    places: int = 0
    faults: int = 0
    missed: int = 0
    """Faults of these that were not reached again."""
    wrong: list[str] = []
    """What was found; empty: the server was well."""


_ROOT = Path(__file__).parents[2]
_OWN = {f"{one.parent.name}/{one.name}" for part in ("domains", "server") for one in (_ROOT / part).rglob("[!_]*.py")}
"""Our files, as frames name them."""
_PYTHON = ("python3", "futures/", "asyncio/", "<frozen runpy", "server/nursery_source", "server/forked_server")
_SOURCE_READERS = ("linecache.py", "<frozen site")


def line_of(frames: str) -> str:
    """Our nearest line; else that of another library or of Python's own; else the native frames."""
    python, _, native = frames.partition("|")
    names = re.findall(r"<[^>]*>:\d+|\S+", python)
    own = [one for one in names if one.rpartition(":")[0] in _OWN]
    others = [one for one in names if not one.startswith(_PYTHON)]
    return next(iter([*own, *others, *names, " ".join(native.split()[:2])]))


def in_import(frames: str) -> bool:
    """Whether a library makes the call for itself while it is imported, or Python reads sources: no line of ours is near."""
    names = re.findall(r"<[^>]*>:\d+|\S+", frames.partition("|")[0])
    if any(one.rpartition(":")[0] in _OWN for one in names):
        return False
    return any(not one.startswith(_PYTHON) or part in one for one in names for part in _SOURCE_READERS)


def lines_of(entries: Iterable[Entry]) -> list[Line]:
    """The entries of `each_place`, by line."""
    found, places = dict[tuple[str, ...], Line](), set[tuple[str, ...]]()
    for one in entries:
        if (parts := _FAULT.fullmatch(one.fault)) is None:
            continue
        kind, victim, frames = parts.groups()
        key = kind, victim, line_of(frames)
        line = found.setdefault(key, Line(kind=kind, victim=victim, line=key[2]))
        line.places += (kind, victim, frames) not in places
        places.add((kind, victim, frames))
        line.faults += 1
        line.missed += MISSED in one.found
        line.wrong += [
            each.strip().splitlines()[0][:60] if each.strip() else each for each in one.found if each != MISSED
        ]
    return list(found.values())


def kept_lines(path: Path = LINES) -> list[Line]:
    """The lines that are kept with the source."""
    return msgspec.json.decode(path.read_bytes(), type=list[Line]) if path.exists() else []


def main() -> None:
    """Add the files' lines to those that are kept. A line that was tried anew replaces what was known of it."""
    entries = [one for name in sys.argv[1:] for one in Tried(Path(name)).entries]
    lines = {(one.kind, one.victim, one.line): one for one in [*kept_lines(), *lines_of(entries)]}
    rows = ",\n".join(json.dumps(msgspec.to_builtins(lines[key]), ensure_ascii=False) for key in sorted(lines))
    LINES.write_text(f"[\n{rows}\n]\n", "utf-8")


if __name__ == "__main__":
    main()
