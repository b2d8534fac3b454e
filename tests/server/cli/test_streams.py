"""What is written for people never costs a result: streams that are closed, full, left, or of another encoding."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from server.cli.app import answered
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import KeptOutput, OutputLost, notice
from server.cli.console.streams import PIPE_CLOSED, Unfailing
from tests.server.cli.running import QUICK, shell
from tests.server.harness import RunningServer


@pytest.fixture(autouse=True)
def _address(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)


@pytest.mark.parametrize(
    ("streams", "status"),
    [
        ("2>&-", 0),
        ("2>/dev/full", 0),
        (">&-", 0),
        (">&- 2>&-", 0),
        ("<&- >&- 2>&-", 0),
        (">/dev/full", 1),
        (">/dev/full 2>&1", 1),
        ("2>&1 | head -n 0", PIPE_CLOSED),
        ("--json | head -n 1", PIPE_CLOSED),
        ("--json >/dev/full", 1),
    ],
)
def test_a_picture_is_made_whatever_becomes_of_the_streams(streams: str, status: int, tmp_path: Path):
    file = tmp_path / "apple.png"
    done = shell(f'deviceops generate "a red apple" "$@" {streams}', "--out", str(file), *QUICK)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert done.returncode == status
    assert b"Traceback" not in done.stderr + done.stdout
    if streams == ">/dev/full":
        assert b"deviceops: cannot write to stdout: No space left on device" in done.stderr


@pytest.mark.parametrize(
    "command", ["jobs", "--help", "serve --help", "status --json", "--version", "events --after 0"]
)
def test_a_full_disk_under_stdout_is_said_and_ends_with_1(command: str):
    done = shell(f"deviceops {command} >/dev/full")
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["status --json", "events --after 0", "devices --watch --interval 0.1"])
def test_a_reader_that_leaves_ends_the_command_without_a_word(command: str):
    done = shell(f"deviceops {command} | head -n 0")
    assert (done.returncode, done.stderr) == (PIPE_CLOSED, b"")


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1", "utf-8"])
def test_every_encoding_of_the_terminal_will_do(encoding: str, tmp_path: Path):
    file = tmp_path / "é–€.png"
    environment = {"PYTHONIOENCODING": encoding}
    prompt = "a “cat” – naïve €"
    done = shell('deviceops generate "$@"', prompt, "--out", str(file), *QUICK, environment=environment)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert file.exists()
    listed = shell("deviceops jobs --limit 1; deviceops devices", environment=environment)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert listed.stdout.decode(encoding)
    if encoding == "ascii":
        assert b'a "cat" - na?ve ?' in listed.stdout


def test_a_prompt_that_is_no_utf_8_is_refused_before_anything_is_computed(tmp_path: Path):
    file = tmp_path / "x.png"
    done = shell('deviceops generate "$@"', b"caf\xe9", "--out", str(file), *QUICK)
    assert done.returncode == USAGE
    assert b"PROMPT is not UTF-8: the byte after the first 3" in done.stderr
    assert not file.exists()


def test_text_that_is_no_utf_8_in_any_other_place_is_answered():
    done = shell('deviceops cancel "$@"', b"job-\xff")
    assert done.returncode == USAGE
    assert b"is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_file_whose_name_is_no_utf_8_is_written_and_named(tmp_path: Path):
    file = os.fsencode(tmp_path) + b"/caf\xe9.png"
    done = shell('deviceops generate apple "$@"', "--out", file, *QUICK)
    assert done.returncode == 0
    assert done.stdout == file + b"\n"
    assert os.path.exists(file)


class _Full:
    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_notice_never_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", _Full())
    notice("nobody reads this")
    stream = Unfailing(_Full())
    assert stream.write("lost") == 4
    stream.flush()


def test_the_first_failure_of_stdout_is_kept_for_the_end(monkeypatch: pytest.MonkeyPatch):
    told = KeptOutput()
    monkeypatch.setattr(sys, "stdout", _Full())
    told.emit("a")
    told.emit("b")
    with pytest.raises(OutputLost, match="No space left"):
        told.check()


def _raise(error: BaseException) -> None:
    raise error


def _system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "a/file")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (CliError("as it is", 7), 7, "deviceops: as it is"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, "deviceops: /x/y: Permission denied"),
        (KeyboardInterrupt(), 130, ""),
        (MemoryError(), 1, "deviceops: the system gives this program no more memory; "),
        (
            SystemError("error return without exception set"),
            1,
            "deviceops: the system gives this program no more memory; ",
        ),
        (SystemError("bad argument"), 1, "a fault of deviceops itself: SystemError: bad argument"),
        (_system_error(errno.EMFILE), 1, "deviceops: Too many open files; raise the limit of open files (ulimit -n)\n"),
        (_system_error(errno.ENFILE), 1, "deviceops: Too many open files in system; raise the limit "),
        (_system_error(errno.ENOMEM), 1, "deviceops: Cannot allocate memory; end other programs, "),
        (_system_error(errno.EAGAIN), 1, "deviceops: Resource temporarily unavailable; raise the limit of processes "),
        (RuntimeError("can't start new thread"), 1, "deviceops: the system lets this user start no more threads; "),
        (RuntimeError("another"), 1, "a fault of deviceops itself: RuntimeError: another"),
        (ZeroDivisionError("by zero"), 1, "a fault of deviceops itself: ZeroDivisionError: by zero (test_streams.py:"),
    ],
)
def test_the_entry_point_answers_what_nobody_else_did(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
):
    assert answered(lambda: _raise(error)) == status
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_a_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("DEVICEOPS_TRACEBACK", "1")
    assert answered(lambda: _raise(ZeroDivisionError())) == 1
    assert "Traceback" in capsys.readouterr().err
