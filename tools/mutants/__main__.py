"""`python -m tools.mutants domains/memory --count 40 --seed 1`: the share of random faults that the tests notice.

Works in a copy of the tree. Takes the tests of the mirror folders below `tests/`, without `embedded`, and tries each fault
against the tests that call the function which has it: first those that call it in their own process, then those that call
it in a server that they start. `on_device` folders are left out unless they are named.

`--guards` tries every fault of the checks that refuse something, and `--lines FILE:LINE …` every fault of some lines or
files, instead of a sample; both together, the checks of these lines. `--then PATH …` takes the tests of these files or
folders too, those of the server for example. `--seconds N` tries each fault against less than a minute of tests.
`--reach FILE` keeps which test calls which function, so that the next run begins at once.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from tools.mutants.faults import Fault, faults
from tools.mutants.reach import Reach, function_at, tests_for
from tools.mutants.trial import Trial, afresh, outcomes, traced

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("domains", "server", "generated", "protos", "tests", "bench", "tools", "clients", "docs", "deploy")
_SKIPPED = ("embedded", "_windows")
"""Folders, and endings of files, whose code is data, or runs on another system."""
_ON_DEVICE = "on_device"
_NICE = 5
_LEAST_LIMIT_S = 15.0
_MOST = 1000
"""Tests that a fault is tried against."""
_MOST_S = 60.0
"""Time of the tests that a fault is tried against, unless `--seconds` says otherwise. The first is always taken."""
_START_S = 60.0
"""Longest time until a test has started a server."""
_SLOWER = 2
"""Times that a test may take longer than in the traced run."""


class Place(msgspec.Struct, frozen=True):
    """A fault and its file, relative to the root."""

    path: Path
    fault: Fault


def of_folder(folder: Path) -> list[Place]:
    """Every fault of a folder."""
    skipped = {*_SKIPPED, *_left_out([folder])}
    files = [path for path in sorted(folder.rglob("*.py")) if not skipped & {*path.parts, path.stem[-8:]}]
    return [place for path in files for place in _of_file(path)]


def sample(every: list[Place], count: int, seed: int) -> list[Place]:
    """Random faults, the same for the same seed and sources."""
    return random.Random(seed).sample(every, min(count, len(every)))


def of_lines(asked: list[str]) -> list[Place]:
    """Every fault of some lines, written FILE:LINE or FILE:FIRST-LAST."""
    found: list[Place] = []
    for one in asked:
        path, _, lines = one.partition(":")
        first, _, last = lines.partition("-")
        found += [
            place
            for place in _of_file((ROOT / path).resolve())
            if not lines or int(first) <= place.fault.line <= int(last or first)
        ]
    return found


def _left_out(asked: list[Path]) -> set[str]:
    """Folders that nobody asked for: torch takes seconds to import, and a fault of theirs is tried by itself."""
    return set() if any(_ON_DEVICE in path.parts for path in asked) else {_ON_DEVICE}


def tests_of(folder: Path) -> str:
    """The nearest folder of tests/ that mirrors `folder`; relative to the root."""
    mirror = Path("tests") / folder.relative_to(ROOT)
    while not (ROOT / mirror).is_dir():
        mirror = mirror.parent
    return str(mirror)


def main() -> int:
    """Print each fault that no test notices, then the share of each folder. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants")
    parser.add_argument("folders", type=Path, nargs="*", help="folders of domains/ or server/")
    parser.add_argument("--count", type=int, default=40, help="faults for each folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--lines", nargs="+", default=[], metavar="FILE:LINE", help="every fault of these lines or files"
    )
    parser.add_argument("--guards", action="store_true", help="every fault of the checks that refuse something")
    parser.add_argument("--then", nargs="+", default=[], metavar="PATH", help="more files or folders of tests")
    parser.add_argument(
        "--seconds", type=float, default=_MOST_S, help="time of the tests that a fault is tried against"
    )
    parser.add_argument("--reach", type=Path, help="a file that keeps which test calls which function")
    given = parser.parse_args()
    os.nice(_NICE)
    folders: list[Path] = [folder.resolve() for folder in given.folders]
    groups = {str(folder.relative_to(ROOT)): of_folder(folder) for folder in folders}
    for name, places in groups.items():
        guards = [place for place in places if place.fault.guards]
        groups[name] = guards if given.guards else sample(places, given.count, given.seed)
    lines = [place for place in of_lines(given.lines) if place.fault.guards or not given.guards]
    if lines:
        groups["lines"] = lines
    asked = [*folders, *((ROOT / one.path).parent for one in lines)]
    tests = {*map(tests_of, asked), *given.then}
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch).resolve()
        for name in _COPIED:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
            shutil.copy(ROOT / file, tree)
        reach = traced(tree, sorted(tests), {*_SKIPPED, *_left_out(asked)}, _known(given.reach))
        if given.reach:
            given.reach.write_bytes(msgspec.msgpack.encode(reach))
        if reach.failed:
            print(f"left out, since it fails without any fault: {', '.join(reach.failed)}", flush=True)
        for name, places in groups.items():
            _try_all(tree, reach, name, places, given)
    return 0


def _known(file: Path | None) -> Reach:
    return msgspec.msgpack.decode(file.read_bytes(), type=Reach) if file and file.exists() else Reach()


def _of_file(path: Path) -> list[Place]:
    return [Place(path.relative_to(ROOT), fault) for fault in faults(path.read_text("utf-8"))]


def _try_all(tree: Path, reach: Reach, name: str, places: list[Place], given: argparse.Namespace) -> None:
    near = [_near(tree, reach, place, given.seconds) for place in places]
    told: list[str] = []
    for place, trial, found in zip(places, near, outcomes(tree, near), strict=True):
        far = _far(tree, reach, place, given.seconds)
        outcome = afresh(tree, far) if found == "passed" and far.tests else found
        told.append(outcome)
        if outcome == "passed":
            tried = f"({len(trial.tests)} + {len(far.tests)} tests)"
            print(f"lived  {place.path}:{place.fault.line}  {place.fault.told}  {tried}", flush=True)
    noticed = len(told) - told.count("passed")
    slow = f", {told.count('too slow')} of them by time" if "too slow" in told else ""
    share = noticed / max(len(told), 1)
    print(f"{name}: {noticed} of {len(told)} noticed ({share:.0%}){slow}, seed {given.seed}", flush=True)


def _near(tree: Path, reach: Reach, place: Place, most_s: float) -> Trial:
    """A fault, and the tests that call its function in their own process."""
    path, function = str(place.path), _function(tree, place)
    near = [test for test in _tests(tree, reach, place) if not reach.tests[test].elsewhere]
    tests, seconds = _first(reach, near, most_s)
    quick = function if (path, function) not in reach.imported else ""
    each_s = {test: max(_LEAST_LIMIT_S, _SLOWER * reach.tests[test].seconds) for test in tests}
    return Trial(path, place.fault.source, quick, tests, max(_LEAST_LIMIT_S, _SLOWER * seconds), each_s)


def _far(tree: Path, reach: Reach, place: Place, most_s: float) -> Trial:
    """A fault, and the tests that call its function in processes that they start."""
    far = [test for test in _tests(tree, reach, place) if reach.tests[test].elsewhere]
    tests, seconds = _first(reach, far, most_s)
    each_s = {test: _START_S + _SLOWER * reach.tests[test].seconds for test in tests}
    return Trial(str(place.path), place.fault.source, "", tests, _START_S + _SLOWER * seconds, each_s)


def _first(reach: Reach, tests: list[str], most_s: float) -> tuple[tuple[str, ...], float]:
    """As many of the first tests as a fault is tried against, and the seconds that they took."""
    chosen: list[str] = []
    seconds = 0.0
    for test in tests[:_MOST]:
        seconds += reach.tests[test].seconds
        if chosen and seconds > most_s:
            break
        chosen.append(test)
    return tuple(chosen), seconds


def _tests(tree: Path, reach: Reach, place: Place) -> list[str]:
    every = tests_for(reach, tree, str(place.path), _function(tree, place))
    return [test for test in every if test not in reach.failed]


def _function(tree: Path, place: Place) -> str:
    return function_at((tree / place.path).read_text("utf-8"), place.fault.line)


if __name__ == "__main__":
    sys.exit(main())
