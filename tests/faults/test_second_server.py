"""What a server cannot start on (a port, socket or folder of another, a newer folder) is told in one line."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from domains import storage
from domains.migrations import MIGRATIONS
from tests.server.harness import RunningServer, refused_start, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    socket = tmp_path_factory.mktemp("socket") / "s"
    with running_server("--device", "cpu", "--socket", str(socket)) as running:
        yield running


def serve(*flags: str, forks: bool = True) -> tuple[int, list[str]]:
    """A server that is expected to give up; its exit code and what it said."""
    refusal = refused_start(*flags, forks=forks)
    assert "Traceback" not in refusal.stderr
    assert "serving on" not in refusal.stdout
    return refusal.status, refusal.stderr.strip().splitlines()


def test_the_same_port_is_refused(server: RunningServer, tmp_path: Path) -> None:
    port = server.address.rpartition(":")[2]
    # What gRPC writes about a port depends on a variable that the program sets before it imports gRPC.
    code, lines = serve("--port", port, "--state", str(tmp_path), forks=False)
    assert code == 2
    assert len(lines) == 1
    assert port in lines[0]
    assert "--port" in lines[0]


def test_the_same_state_folder_is_refused(server: RunningServer) -> None:
    code, lines = serve("--port", "0", "--state", str(server.state))
    assert code == 2
    assert len(lines) == 1
    assert str(server.state) in lines[0]
    assert "--state" in lines[0]
    assert server.status().server_instance_id, "the first one is not disturbed"


def test_a_folder_of_a_newer_server_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / storage.DATABASE)) as newer:
        newer.execute("PRAGMA user_version=1000")
    code, lines = serve("--port", "0", "--state", str(tmp_path))
    assert code == 2
    assert len(lines) == 1
    assert all(word in lines[0] for word in ("1000", str(len(MIGRATIONS)), "--state"))


def test_a_socket_in_use_is_refused_and_stays_with_its_owner(server: RunningServer, tmp_path: Path) -> None:
    socket = server.addresses[1].removeprefix("unix:")
    code, lines = serve("--port", "0", "--state", str(tmp_path), "--socket", socket)
    assert code == 2
    assert socket in lines[-1]


@pytest.mark.parametrize(
    "flags", [["--port", "99999"], ["--model-root", "/no/such/folder"], ["--jobs-per-device", "0"]], ids=" ".join
)
def test_settings_that_cannot_be_used_are_named(flags: list[str], tmp_path: Path) -> None:
    code, lines = serve("--state", str(tmp_path), *flags)
    assert code == 2
    assert flags[0].removeprefix("--").replace("-", "_").removesuffix("_root") in "\n".join(lines)


def test_the_state_folder_is_free_again_when_its_server_was_killed() -> None:
    with running_server("--device", "cpu") as killed:
        killed.kill()
        killed.start()
        assert killed.status().server_instance_id
