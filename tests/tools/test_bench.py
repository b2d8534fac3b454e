"""`python -m bench`: what it takes, and when it says that a figure is not to be believed."""

import json
import os
import subprocess
import sys

import pytest

from bench import __main__ as bench
from bench import measure


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the measurements, none of which runs."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench, "_LOOK_S", 0.01)
    return commands


def test_names_choose_what_is_measured(started: list[list[str]]):
    assert bench.main(["cancel", "unary", "--save"]) == 0
    assert [command[2:] for command in started] == [["bench.cancel", "--save"], ["bench.unary", "--save"]]


def test_the_list_names_everything_and_measures_nothing(started: list[list[str]], capsys: pytest.CaptureFixture[str]):
    assert bench.main(["--list"]) == 0
    told = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [*bench.CPU_SET, *bench.BY_NAME_ONLY]
    assert not started


def test_a_list_whose_reader_has_left_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "bench", "--list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["unray"], ["--frobnicate"], ["unary", "unray"], ["--help"]])
def test_what_is_not_known_measures_nothing(
    arguments: list[str], started: list[list[str]], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == (0 if arguments == ["--help"] else 2)
    assert not started
    assert arguments == ["--help"] or arguments[-1] in capsys.readouterr().err


_STRANGER, _SECONDS = 1 << 30, 10_000.0
"""A process that cannot be ours, and more time than any machine has in a test."""


@pytest.mark.parametrize(
    ("process", "in_doubt"),
    [(_STRANGER, True), (os.getpid(), False), (os.getppid(), False)],
    # Not the process ids: each worker of pytest-xdist must collect the same tests.
    ids=["another", "ours", "its parent"],
)
def test_a_machine_that_others_keep_busy_puts_a_figure_in_doubt(
    process: int, in_doubt: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    used = {(process, 0.0): 0.0}
    monkeypatch.setattr(measure, "_cpu_seconds", lambda: dict(used))
    others = measure.Others()
    assert others.doubt() == ""
    used[process, 0.0] = _SECONDS
    monkeypatch.setattr(measure, "_OTHERS", others)
    assert measure.result("x", measure.Spread(median=1, low=1, high=1), target=1, peer="y") == 0
    told = capsys.readouterr()
    assert ("other programs take" in json.loads(told.out)["doubt"]) is in_doubt
    assert ("do not believe" in told.err) is in_doubt


def test_the_time_of_processes_is_read_from_the_system():
    seconds = getattr(measure, "_cpu_seconds")()  # noqa: B009
    assert any(pid == os.getpid() and used > 0 for (pid, _), used in seconds.items())
