"""Runs tests against faults in forked processes.

The first process imports the libraries. A second one imports `domains` and the tests too and collects the tests; for a
fault in a function it forks, gives the function the faulty code, and runs the tests at once. A fault elsewhere is tried in
a fork of the first process, which imports the faulty file.
"""

import contextlib
import gc
import hashlib
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType

import hypothesis
import hypothesis.stateful
import msgspec
import numpy
import pytest

from tools.mutants.reach import FOLDERS, Reach, ReachPlugin

PRELOADED = (hypothesis.stateful, numpy)
"""What nearly every test imports."""
_LOOK_S = 0.01
_PLAIN = ("-q", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "--timeout=0", "--basetemp=scratch")
"""Without the suite's own limit for each test: it is longer, and its timer is the one that `_end_in` sets."""
_BY_STATUS = {0: "passed", 1: "failed", 3: "elsewhere"}


class Trial(msgspec.Struct, frozen=True):
    """A faulty file and the tests that shall notice it."""

    path: str
    """Relative to the tree."""
    source: str
    function: str
    """Qualified name of the function that has the fault. Empty: it is outside of functions."""
    tests: tuple[str, ...]
    limit_s: float
    each_s: dict[str, float]
    """Longest time of each test: many a fault makes a test wait for ever."""


def _same_examples() -> None:
    """Have hypothesis try the same examples for each fault, however slow a tracer makes them."""
    checks = list(hypothesis.HealthCheck)
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, suppress_health_check=checks)
    hypothesis.settings.load_profile("mutants")


def traced(tree: Path, folders: Sequence[str], left_out: Collection[str], known: Reach) -> Reach:
    """Run the tests of some folders once, and return which functions each test calls.

    Files of tests that `known` has, and that have not changed since, are not run again.
    """
    answer = tree / "reach.msgpack"
    files = {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in ([tree / folder] if folder.endswith(".py") else sorted((tree / folder).rglob("test_*.py")))
        if not set(left_out) & set(path.relative_to(tree).parts)
    }
    anew = [file for file, digest in files.items() if known.files.get(file) != digest]

    def run() -> int:
        plugin = ReachPlugin(tree, os.environ["PYTHONPATH"])
        os.environ["PYTHONPATH"] = plugin.python_path
        status = pytest.main([*_PLAIN, *anew], [plugin])
        answer.write_bytes(msgspec.msgpack.encode(plugin.reach))
        return status

    if anew and _wait(_forked(tree, run, clean=True), None) not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"the tests of {', '.join(folders)} do not run to their end: try pytest on them")
    found = msgspec.msgpack.decode(answer.read_bytes(), type=Reach) if anew else Reach()
    kept = {test: reached for test, reached in known.tests.items() if test.split("::")[0] in files.keys() - set(anew)}
    failed = [test for test in known.failed if test in kept]
    return Reach(kept | found.tests, failed + found.failed, files, known.imported | found.imported)


def outcomes(tree: Path, trials: Sequence[Trial]) -> Iterator[str]:
    """For each trial in order: "passed", "failed" or "too slow"."""
    results = tree / "results"
    quick = [trial for trial in trials if trial.function and trial.tests]
    files = sorted({test.split("::")[0] for trial in quick for test in trial.tests})
    if quick:
        sys.stdout.flush()
        _wait(_forked(tree, lambda: pytest.main([*_PLAIN, *files], [_InPlace(quick, results)]), clean=True), None)
    told = iter(results.read_text("utf-8").splitlines() if quick else ())
    for trial in trials:
        if not trial.tests:
            yield "passed"
        elif trial not in quick or (found := next(told)) == "elsewhere":
            yield afresh(tree, trial)
        else:
            yield found


class _InPlace:
    """A plugin of pytest that tries faults of functions instead of running all tests."""

    def __init__(self, trials: Sequence[Trial], results: Path) -> None:
        self._trials = trials
        self._results = results

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try each fault in a process of its own."""
        items = {item.nodeid: item for item in session.items}
        tree, functions = Path.cwd(), _functions(Path.cwd())
        with self._results.open("w", encoding="utf-8", buffering=1) as results:
            for trial in self._trials:
                chosen = [items[test] for test in trial.tests if test in items]
                outer = trial.function.split(".<locals>")[0]
                places = functions.get((trial.path, outer), [])
                code = _fitting(trial, outer, places)
                run = partial(self._try, session, chosen, places, code, trial.each_s) if code else lambda: 3
                status = _wait(_forked(tree, run), trial.limit_s)
                results.write(("too slow" if status is None else _BY_STATUS.get(status, "failed")) + "\n")
        return True

    @staticmethod
    def _try(
        session: pytest.Session,
        items: Sequence[pytest.Item],
        places: Sequence[FunctionType],
        code: CodeType,
        each_s: Mapping[str, float],
    ) -> int:
        for one in places:
            one.__code__ = code
        for item, later in zip(items, [*items[1:], None], strict=True):
            _end_in(each_s[item.nodeid])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=later)
            if session.testsfailed:
                return 1
        return 0


def _functions(tree: Path) -> dict[tuple[str, str], list[FunctionType]]:
    """The functions of `domains` and `server`, by file and qualified name."""
    inside = tuple(f"{tree}/{folder}/" for folder in FOLDERS)
    gc.unfreeze()  # what a library has frozen is not listed
    found: dict[tuple[str, str], list[FunctionType]] = defaultdict(list)
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename.startswith(inside):
            path = one.__code__.co_filename.removeprefix(f"{tree}/")
            found[path, one.__code__.co_qualname].append(one)
    gc.freeze()
    return found


def _fitting(trial: Trial, outer: str, places: Sequence[FunctionType]) -> CodeType | None:
    """The faulty code of a function. None: the function cannot take it; the file must be imported."""
    whole = compile(trial.source, str(Path.cwd() / trial.path), "exec", dont_inherit=True)
    code = next((one for one in _codes(whole) if one.co_qualname == outer), None)
    if code is None or not places:
        return None
    fits = all(
        one.__code__.co_freevars == code.co_freevars and _signature(one.__code__) == _signature(code) for one in places
    )
    # A fault of a default value leaves the code as it was: the value is computed where the function is defined.
    return code if fits and _does(code) != _does(places[0].__code__) else None


def _does(code: CodeType) -> tuple[object, ...]:
    """What decides what a code does, whatever its lines."""
    parts = tuple(_does(one) if isinstance(one, CodeType) else (type(one), one) for one in code.co_consts)
    return code.co_code, code.co_names, parts


def _signature(code: CodeType) -> tuple[object, ...]:
    return code.co_argcount, code.co_kwonlyargcount, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)


class _OnlyThese:
    """A plugin of pytest that keeps some tests and puts them in order."""

    def __init__(self, tests: Sequence[str], each_s: Mapping[str, float]) -> None:
        self._order = {test: place for place, test in enumerate(tests)}
        self._each_s = each_s

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        _end_in(self._each_s[nodeid])

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen tests, in their order."""
        items[:] = sorted((one for one in items if one.nodeid in self._order), key=lambda one: self._order[one.nodeid])


def afresh(tree: Path, trial: Trial) -> str:
    """The outcome of the tests with a faulty file: "passed", "failed" or "too slow".

    The file keeps its time, so that its bytecode stays valid.
    """
    files = dict.fromkeys(test.split("::")[0] for test in trial.tests)
    file = tree / trial.path
    kept, times = file.read_bytes(), file.stat()
    file.write_text(trial.source, "utf-8")
    chosen = _OnlyThese(trial.tests, trial.each_s)
    try:
        status = _wait(_forked(tree, lambda: pytest.main([*_PLAIN, "-x", *files], [chosen])), trial.limit_s)
    finally:
        file.write_bytes(kept)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    return "too slow" if status is None else "passed" if status == 0 else "failed"


def _end_in(seconds: float) -> None:
    """Have the system end this process then, unless this is called again before. `_wait` ends what it has started."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _forked(tree: Path, run: Callable[[], int], *, clean: bool = False) -> int:
    """Start `run` in a process of its own group, in the tree, without output; returns its id. `clean`: no file is faulty."""
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
        here = [str(tree), str(tree / "generated/python")]
        sys.path[:] = [*here, *libraries]
        os.environ["PYTHONPATH"] = os.pathsep.join(here)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "" if clean else "1"
        sys.dont_write_bytecode = not clean
        _same_examples()
        status = int(run())
    finally:
        os._exit(status)


def _wait(child: int, limit_s: float | None) -> int | None:
    """The exit status of a child; None if it exceeds the limit, or one of its tests does: all that it started is killed."""
    begin = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status)
        if done and code != -signal.SIGALRM:
            return code
        if done or (limit_s is not None and time.monotonic() - begin > limit_s):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            if not done:
                os.waitpid(child, 0)
            return None
        time.sleep(_LOOK_S)
