"""`python -m tools.mutants domains/memory --count 40 --seed 1`: the share of random faults that the tests notice.

Runs the tests of the mirror folder below `tests/`, without `on_device` and `embedded`, in a copy of the tree.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.mutants.faults import Fault, faults

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("domains", "server", "generated", "protos", "tests", "tools")
_SKIPPED = ("on_device", "embedded")
_NICE = 19
_LEAST_LIMIT_S = 20.0


def sample(folder: Path, count: int, seed: int) -> list[tuple[Path, Fault]]:
    """Random faults of a folder, the same for the same seed and sources; paths relative to the root."""
    files = sorted(path for path in folder.rglob("*.py") if not set(_SKIPPED) & set(path.parts))
    every = [(path.relative_to(ROOT), fault) for path in files for fault in faults(path.read_text("utf-8"))]
    return random.Random(seed).sample(every, min(count, len(every)))


def tests_of(folder: Path) -> Path:
    """The nearest folder of tests/ that mirrors `folder`; relative to the root."""
    mirror = Path("tests") / folder.relative_to(ROOT)
    while not (ROOT / mirror).is_dir():
        mirror = mirror.parent
    return mirror


def passes(tree: Path, tests: Path, limit_s: float | None) -> bool:
    """Whether the tests pass in a tree. Tests that take longer than the limit have noticed the fault."""
    left_out = [f"--ignore={tests / name}" for name in _SKIPPED]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *left_out, str(tests)]
    environment = os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'generated/python'}"}
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        try:
            return run.wait(limit_s) == 0
        except subprocess.TimeoutExpired:
            run.kill()
            return False


def main() -> int:
    """Print each fault that no test notices, then the share. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants")
    parser.add_argument("folder", type=Path, help="a folder of domains/")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.nice(_NICE)
    folder: Path = given.folder.resolve()
    chosen, tests = sample(folder, given.count, given.seed), tests_of(folder)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for name in _COPIED:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        begin = time.monotonic()
        if not passes(tree, tests, None):
            parser.error(f"{tests} fails without any fault")
        limit_s = max(_LEAST_LIMIT_S, 4 * (time.monotonic() - begin))
        lived = [one for one in chosen if _lives(tree, *one, tests, limit_s)]
    noticed = len(chosen) - len(lived)
    print(f"{given.folder}: {noticed} of {len(chosen)} noticed ({noticed / len(chosen):.0%}), seed {given.seed}")
    return 0


def _lives(tree: Path, path: Path, fault: Fault, tests: Path, limit_s: float) -> bool:
    kept = (tree / path).read_text("utf-8")
    (tree / path).write_text(fault.source, "utf-8")
    try:
        lives = passes(tree, tests, limit_s)
    finally:
        (tree / path).write_text(kept, "utf-8")
    if lives:
        print(f"lived  {path}:{fault.line}  {fault.told}", flush=True)
    return lives


if __name__ == "__main__":
    sys.exit(main())
