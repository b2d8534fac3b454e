"""The command line as a process of its own, as a shell starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

DEVICEOPS = (sys.executable, "-m", "server.cli")
SMALL = ("--width", "64", "--height", "64")
QUICK = (*SMALL, "--steps", "1", "--no-inline")
"""Flags of a picture that is soon made."""
SLOW = ("--steps", "900", "--no-inline")


def in_background(*command: str) -> subprocess.Popen[str]:
    """Start a command with pipes as its streams."""
    return subprocess.Popen([*DEVICEOPS, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def await_line(process: subprocess.Popen[str], part: str) -> str:
    """Read the command's notices until one has `part`, and return it; the command is killed if none comes."""
    assert process.stderr is not None
    limit = threading.Timer(90, process.kill)
    limit.start()
    try:
        line = next((line for line in process.stderr if part in line), None)
    finally:
        limit.cancel()
    assert line is not None, f"{part!r} never came"
    return line


def shell(
    line: str, *arguments: str | bytes, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `deviceops` is the program and "$@" are `arguments`."""
    program = f'deviceops() {{ {" ".join(DEVICEOPS)} "$@"; }}\nset -o pipefail\n{line}'
    command: Sequence[str | bytes] = ["bash", "-c", program, "bash", *arguments]
    whole = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, timeout=120, check=False, env=whole)
