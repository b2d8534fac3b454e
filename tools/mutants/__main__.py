"""`python -m tools.mutants domains/memory --count 40 --seed 1`: the share of random faults that the tests notice.

Works in a copy of the tree. Takes the tests of the mirror folders below `tests/`, without `on_device` and `embedded`,
and tries each fault against the tests that call the function which has it.

`--guards` tries every fault of the checks that refuse something, and `--lines FILE:LINE …` every fault of some lines,
instead of a sample. `--then FILE …` tries what they leave alive against the tests of these files too, those of the server.
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
_COPIED = ("domains", "server", "generated", "protos", "tests", "tools")
_SKIPPED = ("on_device", "embedded", "_windows")
"""Folders, and endings of files, whose code runs in a worker, is data, or runs on another system."""
_NICE = 5
_LEAST_LIMIT_S = 15.0
_THEN_LIMIT_S = 300.0
"""Longest time of the tests of `--then`, which start servers."""
_MOST = 150
"""Tests that a fault is tried against; those that call the fewest functions come first."""
_SLOWER = 5
"""Times that a test may take longer than in the traced run."""


class Place(msgspec.Struct, frozen=True):
    """A fault and its file, relative to the root."""

    path: Path
    fault: Fault


def of_folder(folder: Path) -> list[Place]:
    """Every fault of a folder."""
    files = [path for path in sorted(folder.rglob("*.py")) if not set(_SKIPPED) & {*path.parts, path.stem[-8:]}]
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


def tests_of(folder: Path) -> str:
    """The nearest folder of tests/ that mirrors `folder`; relative to the root."""
    mirror = Path("tests") / folder.relative_to(ROOT)
    while not (ROOT / mirror).is_dir():
        mirror = mirror.parent
    return str(mirror)


def main() -> int:
    """Print each fault that no test notices, then the share of each folder. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants")
    parser.add_argument("folders", type=Path, nargs="*", help="folders of domains/")
    parser.add_argument("--count", type=int, default=40, help="faults for each folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", nargs="+", default=[], metavar="FILE:LINE", help="every fault of these lines")
    parser.add_argument("--guards", action="store_true", help="every fault of the checks that refuse something")
    parser.add_argument("--then", nargs="+", default=[], metavar="FILE", help="more tests, for the faults that lived")
    parser.add_argument("--reach", type=Path, help="a file that keeps which test calls which function")
    given = parser.parse_args()
    os.nice(_NICE)
    folders: list[Path] = [folder.resolve() for folder in given.folders]
    groups = {str(folder.relative_to(ROOT)): of_folder(folder) for folder in folders}
    for name, places in groups.items():
        guards = [place for place in places if place.fault.guards]
        groups[name] = guards if given.guards else sample(places, given.count, given.seed)
    lines = of_lines(given.lines)
    if lines:
        groups["lines"] = lines
    tests = {tests_of(folder) for folder in folders} | {tests_of((ROOT / one.path).parent) for one in lines}
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch).resolve()
        for name in _COPIED:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        reach = traced(tree, sorted(tests), _SKIPPED, _known(given.reach))
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
    trials = [_trial(tree, reach, place) for place in places]
    told: list[str] = []
    for place, trial, found in zip(places, trials, outcomes(tree, trials), strict=True):
        outcome = found
        if found == "passed" and given.then:
            outcome = afresh(tree, msgspec.structs.replace(trial, limit_s=_THEN_LIMIT_S), given.then)
        told.append(outcome)
        if outcome == "passed":
            print(f"lived  {place.path}:{place.fault.line}  {place.fault.told}  ({len(trial.tests)} tests)", flush=True)
    noticed = len(told) - told.count("passed")
    slow = f", {told.count('too slow')} of them by time" if "too slow" in told else ""
    share = noticed / max(len(told), 1)
    print(f"{name}: {noticed} of {len(told)} noticed ({share:.0%}){slow}, seed {given.seed}", flush=True)


def _trial(tree: Path, reach: Reach, place: Place) -> Trial:
    path, line = str(place.path), place.fault.line
    function = function_at((tree / path).read_text("utf-8"), line)
    tests = tuple(test for test in tests_for(reach, tree, path, function) if test not in reach.failed)[:_MOST]
    limit_s = max(_LEAST_LIMIT_S, _SLOWER * sum(reach.tests[test].seconds for test in tests))
    quick = function if (path, function) not in reach.imported else ""
    return Trial(path, place.fault.source, quick, tests, limit_s)


if __name__ == "__main__":
    sys.exit(main())
