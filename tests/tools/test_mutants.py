"""The mutation tester: which faults a file can have, and which tests it tries them against."""

import os
import subprocess
import sys
from pathlib import Path

from tools.mutants import reach
from tools.mutants.faults import faults
from tools.mutants.reach import TRACED, Reach, Reached, ReachPlugin, function_at

SOURCE = """
def called(value):
    if value < 0:
        raise ValueError(value)
    return value + 1

def not_called():
    return called(1)
"""


def test_each_fault_changes_one_thing_and_those_of_a_refusal_are_marked() -> None:
    told = {fault.told: fault.guards for fault in faults(SOURCE)}
    assert told["value < 0  →  value <= 0"]
    assert told["raise ValueError(value)  →  pass"]
    assert not told["value + 1  →  value - 1"]
    sources = [fault.source for fault in faults(SOURCE)]
    assert len({SOURCE, *sources}) == len(sources) + 1


def test_the_lengths_of_zip_are_left_as_they_are_and_other_strictness_is_not() -> None:
    told = [fault.told for fault in faults("found = dict(zip(a, b, strict=True))\npath = path.resolve(strict=True)\n")]
    assert told == ["True  →  False"]


def test_a_function_is_found_by_its_line() -> None:
    assert [function_at(SOURCE, line) for line in (1, 3, 8)] == ["", "called", "not_called"]


def test_a_call_in_a_process_that_a_test_starts_counts_for_that_test(tmp_path: Path) -> None:
    (tmp_path / "domains").mkdir()
    (tmp_path / "domains" / "__init__.py").touch()
    (tmp_path / "domains" / "one.py").write_text(SOURCE)
    plugin = ReachPlugin(tmp_path, os.environ.get("PYTHONPATH", ""))
    for test in ("first", "second"):
        plugin.begin()
        if test == "second":
            command = [sys.executable, "-c", "import domains.one; domains.one.called(1)"]
            subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": plugin.python_path}, check=True)
        plugin.end(test)
    plugin.pytest_sessionfinish()
    assert (tmp_path / TRACED / "calls").exists()
    assert not plugin.reach.tests["first"].functions
    assert plugin.reach.tests["second"].functions == {("domains/one.py", "called")}
    assert [reached.elsewhere for reached in plugin.reach.tests.values()] == [False, True]


def test_a_fault_is_tried_against_the_tests_that_call_it_narrow_ones_first_slow_ones_last(
    tmp_path: Path,
) -> None:
    one, other = ("domains/one.py", "called"), ("domains/one.py", "not_called")
    tests = {
        "tests/test_a.py::test_slow": Reached(5.0, {one}),
        "tests/test_a.py::test_wide": Reached(1.0, {one, other}),
        "tests/test_a.py::test_narrow": Reached(1.0, {one}),
        "tests/test_a.py::test_narrow[again]": Reached(1.0, {one}),
        "tests/test_a.py::test_other": Reached(1.0, {other}),
    }
    chosen = reach.tests_for(Reach(tests=tests), tmp_path, "domains/one.py", "called")
    names = [test.split("::")[1] for test in chosen]
    assert names == ["test_narrow", "test_wide", "test_narrow[again]", "test_slow"]
