"""Which tests call which functions: one run of the tests with a tracer, so that a fault is tried against few tests."""

import ast
import os
import shutil
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import msgspec
import pytest

FunctionAt = tuple[str, str]
"""A function: its file, relative to the tree, and its qualified name."""

TRACED = "traced"
"""The folder of the tree with what traces the processes that tests start, see `in_children/`."""
FOLDERS = ("domains", "server")
"""Folders whose functions count."""
_TURN_S = 0.1
"""A turn: the time that each test gets for its cases before another is tried."""
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Reached(msgspec.Struct):
    """What one test did in the traced run."""

    seconds: float
    functions: set[FunctionAt]
    elsewhere: bool = False
    """Whether it called some of them in processes that it started."""


class Reach(msgspec.Struct):
    """What each test did, by its node id."""

    tests: dict[str, Reached] = {}
    failed: list[str] = []
    files: dict[str, str] = {}
    """The hash of each file of tests that was run."""
    imported: set[FunctionAt] = set()
    """Functions that were called while the tests were imported."""


class ReachPlugin:
    """A plugin of pytest that fills a `Reach`."""

    def __init__(self, tree: Path, python_path: str) -> None:
        """`python_path`: folders that processes of the tests import from."""
        self.reach = Reach()
        self._prefix = f"{tree}/"
        self._inside = tuple(f"{tree}/{folder}/" for folder in FOLDERS)
        self._known: dict[int, tuple[CodeType, FunctionAt | None]] = {}
        """By the id of the code, whose hash takes as long as a call."""
        self._now: set[FunctionAt] = set()
        self._begin_s = 0.0
        self._processes = _Processes(tree)
        self.python_path = f"{tree / TRACED}{os.pathsep}{python_path}"
        """What `PYTHONPATH` must be for the processes to be traced."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Trace one test with its fixtures."""
        self.begin()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.end(item.nodeid)

    def begin(self) -> None:
        """What is called from now on, is called by this test."""
        self._now = set()
        self._processes.begin(len(self.reach.tests))
        self._begin_s = time.monotonic()

    def end(self, test: str) -> None:
        """Note what the test has called."""
        self.reach.tests[test] = Reached(time.monotonic() - self._begin_s, self._now)

    def pytest_sessionstart(self) -> None:
        """Trace the imports of the tests."""
        sys.settrace(self._trace)

    def pytest_collection_finish(self) -> None:
        """End what `pytest_sessionstart` began."""
        sys.settrace(None)
        self.reach.imported = self._now

    def pytest_sessionfinish(self) -> None:
        """Add what was called in other processes."""
        tests = [*self.reach.tests.values()]
        for index, called in self._processes.calls():
            tests[index].functions.add(called)
            tests[index].elsewhere = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember what fails without any fault."""
        if report.failed:
            self.reach.failed.append(report.nodeid)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> None:
        """Called for each call of a function. Returns no tracer of lines, which would be slow."""
        code = frame.f_code
        known = self._known.get(id(code))
        if known is None:
            inside = code.co_filename.startswith(self._inside)
            called = (code.co_filename[len(self._prefix) :], code.co_qualname) if inside else None
            known = self._known[id(code)] = (code, called)
        if known[1]:
            self._now.add(known[1])


class _Processes:
    """Has the processes that tests start traced."""

    def __init__(self, tree: Path) -> None:
        self._folder = tree / TRACED
        self._folder.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parent / "in_children" / "sitecustomize.py", self._folder)
        (self._folder / "now").write_bytes(bytes(4))
        (self._folder / "calls").write_bytes(b"")

    def begin(self, test: int) -> None:
        """What is called from now on is called for this test."""
        with (self._folder / "now").open("r+b") as file:
            file.write(test.to_bytes(4, "little"))

    def calls(self) -> Iterable[tuple[int, FunctionAt]]:
        """Which test called which function."""
        for line in (self._folder / "calls").read_text("utf-8").splitlines():
            test, path, name = line.split("\t")
            yield int(test), (path, name)


def tests_for(reach: Reach, tree: Path, path: str, function: str) -> list[str]:
    """The tests that a fault in a function is tried against: those that call few functions first, slow ones last.

    A function: the tests that call it. None (empty), or one that an import calls: the tests that call any function of the
    file, or else of the files that import it, and so on.
    """
    chosen = [test for test, reached in reach.tests.items() if (path, function) in reached.functions]
    called, direct = set(chosen), set[str]()
    if not function or (path, function) in reach.imported:
        direct = _test_importers(tree, path)
        files, chosen = {path}, _touching(reach, {path, *direct})
        chosen = [*{*chosen, *called}]
        while not chosen and (more := {one for file in files for one in _importers(tree, file)} - files):
            files |= more
            chosen = _touching(reach, files)

    def rank(test: str) -> tuple[bool, bool]:
        return test not in called, test.split("::")[0] not in direct

    narrow = sorted(chosen, key=lambda test: len(reach.tests[test].functions))
    turns = _turns(reach, narrow)
    return sorted(narrow, key=lambda test: (*rank(test), turns[test]))


def _turns(reach: Reach, tests: Iterable[str]) -> dict[str, tuple[int, int]]:
    """By case of a test, when it is tried: the time of that test's cases up to it, in turns, and how many those are.

    So slow tests come last, and a thousand cases of one test, which notice the same, do not keep others out.
    """
    taken_s: defaultdict[str, float] = defaultdict(float)
    cases: Counter[str] = Counter()
    turns: dict[str, tuple[int, int]] = {}
    for test in tests:
        name = test.split("[")[0]
        taken_s[name] += reach.tests[test].seconds
        cases[name] += 1
        turns[test] = int(taken_s[name] / _TURN_S), cases[name]
    return turns


def _touching(reach: Reach, files: set[str]) -> list[str]:
    return [
        test
        for test, reached in reach.tests.items()
        if test.split("::")[0] in files or any(file in files for file, _ in reached.functions)
    ]


def function_at(source: str, line: int) -> str:
    """The qualified name of the innermost function that has a line. Empty: none has it."""
    return _inside(ast.parse(source), "", line) or ""


def _inside(scope: ast.AST, prefix: str, line: int) -> str | None:
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.stmt | ast.match_case | ast.ExceptHandler) and not isinstance(node, _SCOPES):
            if found := _inside(node, prefix, line):
                return found
        elif isinstance(node, _SCOPES) and node.lineno <= line <= (node.end_lineno or 0):
            name = f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                return _inside(node, f"{name}.", line)
            return _inside(node, f"{name}.<locals>.", line) or name
    return None


def _test_importers(tree: Path, path: str) -> set[str]:
    """The files of tests that import a file, themselves or through their helpers."""
    found: set[str] = set()
    more = {path}
    while more:
        more = {one for file in more for one in _importers(tree, file) if one.startswith("tests/")} - found
        found |= more
    return found


@cache
def _importers(tree: Path, path: str) -> Sequence[str]:
    """The files that import a file by its name. Read once: a fault changes no import."""
    found = list[str]()
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, name = module.rpartition(".")
    for folder in (*FOLDERS, "tests"):
        for other in (tree / folder).rglob("*.py"):
            text = other.read_text("utf-8")
            if f"from {module} import" in text or (f"from {package} import" in text and name in text):
                found.append(str(other.relative_to(tree)))
    return found
