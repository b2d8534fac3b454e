"""What a watched table leaves on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import threading

import pytest

from tests.server.cli.running import DEVICEOPS
from tests.server.harness import RunningServer

_ENTER, _LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
"""The alternate screen (xterm)."""


@pytest.mark.parametrize("columns", ["40", "200"])
def test_a_watched_table_leaves_the_screen_as_it_was_and_its_last_state_below(server: RunningServer, columns: str):
    ours, theirs = pty.openpty()
    command = [*DEVICEOPS, "devices", "--watch", "--rounds", "2", "--interval", "0.1", "--address", server.address]
    environment = {**os.environ, "COLUMNS": columns, "LINES": "20", "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    limit = threading.Timer(90, process.kill)
    limit.start()
    told = b""
    try:
        while data := _read(ours):
            told += data
    finally:
        limit.cancel()
        os.close(ours)
    assert process.wait(60) == 0
    assert told.count(_ENTER) == told.count(_LEAVE) == 1
    left = told.split(_LEAVE)[1].decode()
    assert left.count("cpu:0") == 1


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:
        # Linux: the other side is closed.
        return b""
