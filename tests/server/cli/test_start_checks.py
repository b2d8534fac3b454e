"""What keeps a server from starting is named, with status 2 and no traceback."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from server.cli.app import run
from server.cli.console.failure import USAGE
from server.cli.service.start_checks import start_faults
from server.settings import Settings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file, as the working folder."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--state", "file"], "state: file is a file, not a folder"),
        (["--state", "file/below"], "file is a file, not a folder"),
        (["--state", "x" * 300], "File name too long"),
        (["--state", "/".join(["x" * 100] * 6)], "state: the path has more than 480 bytes"),
        (["--state", "/proc/none"], "state: /proc"),
        (["--socket", "none/s"], "socket: there is no folder"),
        (["--socket", "file"], "socket: file is there and no socket"),
        (["--socket", "x" * 150], "socket: "),
        (["--default-model", "nope"], "default_model: there is no model nope: emoji-sd comes along"),
        (["--default-model", "nope", "--model-root", "."], "default_model: there is no model nope"),
        (["--host", "192.0.2.1", "--insecure-listen"], "host: 192.0.2.1 is no address of this machine"),
    ],
)
def test_a_start_that_cannot_succeed_names_the_setting(
    flags: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(["serve", "--port", "0", *(["--state", "s"] if "--state" not in flags else []), *flags]) == USAGE
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not (place / "s").exists()


def test_a_user_without_a_home_is_told_to_name_the_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def nobody(number: int) -> pwd.struct_passwd:
        raise KeyError(number)

    for name in ("HOME", "XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert run(["serve"]) == USAGE
    assert "--state, or set HOME" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["blob", "model"])
@pytest.mark.parametrize(("state", "root"), [("a/b", "a"), ("a", "a/b"), ("a", "a"), ("link/b", "a")])
def test_the_state_folder_and_the_roots_must_be_apart(
    kind: str, state: str, root: str, place: Path, capsys: pytest.CaptureFixture[str]
):
    (place / "a" / "b").mkdir(parents=True)
    (place / "link").symlink_to("a")
    assert run(["serve", "--port", "0", "--state", state, f"--{kind}-root", root]) == USAGE
    told = capsys.readouterr().err
    assert f"{kind}_roots: the root {place / root}" in told
    assert "choose another root" in told


def test_an_owner_who_is_no_user_is_refused(place: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["serve", "--port", "0", "--state", "s", "--blob-owner", "nobody-of-this-name"]) == USAGE
    assert "blob_owners: Value error, there is no user nobody-of-this-name" in capsys.readouterr().err
    assert Settings(blob_owners=["root", "12345"], state=place / "s").blob_owners == ["root", "12345"]


def test_a_system_that_starts_no_more_threads_is_named_before_grpc_crashes(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    start, before = threading.Thread.start, threading.active_count()

    def start_four(thread: threading.Thread) -> None:
        if threading.active_count() >= before + 4:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_four)
    assert run(["serve", "--port", "0", "--state", "s"]) == 1
    assert "start no more threads; raise its limit" in capsys.readouterr().err
    assert threading.active_count() == before
    assert not (place / "s").exists()


def test_a_system_without_descriptors_is_named_before_grpc_ends_the_process(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    opens, opened, closed = os.open, list[int](), list[int]()
    closes = os.close

    def open_four(path: str, flags: int, mode: int = 0o777, **more: Any) -> int:
        if path != os.devnull:
            return opens(path, flags, mode, **more)
        if len(opened) == 4:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        opened.append(opens(path, flags))
        return opened[-1]

    def close(descriptor: int) -> None:
        closed.append(descriptor)
        closes(descriptor)

    monkeypatch.setattr(os, "open", open_four)
    monkeypatch.setattr(os, "close", close)
    assert run(["serve", "--port", "0", "--state", "s"]) == 1
    assert "no file descriptor is left" in capsys.readouterr().err
    assert set(opened) <= set(closed)
    assert not (place / "s").exists()


def test_what_can_work_has_no_faults(place: Path):
    root = place / "models"
    (root / "Owl V2").mkdir(parents=True)
    (root / "Owl V2" / "model_index.json").write_text("{}")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind("old")
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::]"):
            settings = Settings(
                host=host,
                insecure_listen=True,
                state=place / "a" / "b",
                socket=place / "old",
                model_roots=[root],
                default_model="owl-v2",
            )
            assert start_faults(settings) == []
