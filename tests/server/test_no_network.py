"""The server opens no connection of its own: all that it is for works in a network namespace without routes.

The whole suite does, too: `python -m tests.no_network python -m pytest …`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.no_network import refusal, without_network

_ROOT = Path(__file__).resolve().parents[2]
_SCENARIO = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print("no route:", error.errno, flush=True)
from tests.server import asking
from tests.server.harness import running_server
with running_server("--device", "cpu") as server:
    job_id = asking.submit(server)
    end = asking.watch(server, job_id)[-1]
    picture = asking.blob(server, end.generation_result.images[0].file.blob_id)
    print("picture:", picture[:8], flush=True)
    asking.delete(server, job_id)
    print("stopped:", server.stop(), flush=True)
"""


def test_a_picture_is_made_without_a_route_to_anywhere() -> None:
    if why := refusal():
        pytest.skip(why)
    command = without_network([sys.executable, "-c", _SCENARIO])
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["no route: 101", "picture: b'\\x89PNG\\r\\n\\x1a\\n'", "stopped: 0"]
