"""The server opens no connection of its own: all that it is for works in a network namespace without routes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = ("unshare", "--map-root-user", "--net")
_ROOT = Path(__file__).resolve().parents[2]
_SCENARIO = """
import socket, subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True) if HAS_IP else up()
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
_UP = """
def up():
    import fcntl, struct
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sH14s", b"lo", 0x1 | 0x40, b""))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
"""


def _refusal() -> str:
    """The reason why this machine makes no namespace; empty: it does."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return "needs Linux with unshare"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


def test_a_picture_is_made_without_a_route_to_anywhere() -> None:
    if why := _refusal():
        pytest.skip(why)
    code = _UP.replace("def up", "import socket\ndef up", 1) + _SCENARIO.replace(
        "HAS_IP", str(bool(shutil.which("ip")))
    )
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["no route: 101", "picture: b'\\x89PNG\\r\\n\\x1a\\n'", "stopped: 0"]
