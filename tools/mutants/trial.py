"""Runs pytest in forked processes: the libraries are imported once, `domains` and the tests afresh in each."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis.stateful
import msgspec
import numpy
import pytest

from tools.mutants.reach import Reach, ReachPlugin

PRELOADED = (hypothesis.stateful, numpy)
"""What nearly every test imports."""
_LOOK_S = 0.02


class _OnlyThese:
    """A plugin of pytest that keeps some tests and puts them in order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._order = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen tests, in their order."""
        items[:] = sorted((one for one in items if one.nodeid in self._order), key=lambda one: self._order[one.nodeid])


def traced(tree: Path, folders: Sequence[str], left_out: Sequence[str], known: Reach) -> Reach:
    """Run the tests of some folders once, and return which functions each test calls.

    Files of tests that `known` has, and that have not changed since, are not run again.
    """
    answer = tree / "reach.msgpack"
    files = {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted((tree / folder).rglob("test_*.py"))
        if not set(left_out) & set(path.relative_to(tree).parts)
    }
    anew = [file for file, digest in files.items() if known.files.get(file) != digest]

    def run() -> int:
        plugin = ReachPlugin(tree)
        pytest.main(["-q", "-p", "no:cacheprovider", *anew], [plugin])
        answer.write_bytes(msgspec.msgpack.encode(plugin.reach))
        return 0

    if anew:
        _wait(_forked(tree, run), None)
    found = msgspec.msgpack.decode(answer.read_bytes(), type=Reach) if anew else Reach()
    kept = {test: reached for test, reached in known.tests.items() if test.split("::")[0] in files.keys() - set(anew)}
    failed = [test for test in known.failed if test in kept]
    return Reach(kept | found.tests, failed + found.failed, files, known.imported | found.imported)


def outcome(tree: Path, tests: Sequence[str], limit_s: float) -> str:
    """Run some tests until the first one fails: "passed", "failed" or "too slow"."""
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))

    def run() -> int:
        sys.dont_write_bytecode = True
        return pytest.main(["-q", "-x", "-p", "no:cacheprovider", *files], [_OnlyThese(tests)])

    status = _wait(_forked(tree, run), limit_s)
    return "too slow" if status is None else "passed" if status == 0 else "failed"


def _forked(tree: Path, run: Callable[[], int]) -> int:
    """Start `run` in a process of its own group, in the tree, without output; returns its id."""
    if child := os.fork():
        return child
    status = 70
    try:
        os.setsid()
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silent, descriptor)
        os.chdir(tree)
        libraries = [path for path in sys.path if "/lib/python" in path]
        sys.path[:] = [str(tree), str(tree / "generated/python"), *libraries]
        status = run()
    finally:
        os._exit(status)


def _wait(child: int, limit_s: float | None) -> int | None:
    """The exit status of a child; None if it exceeds the limit and was killed, with all that it started."""
    begin = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if limit_s is not None and time.monotonic() - begin > limit_s:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(_LOOK_S)
