"""A server that a command starts for itself ends with the command, however that goes."""

import subprocess
import sys
from pathlib import Path

import grpc
import psutil
import pytest

from server.cli.calls.connection import Connection
from server.cli.calls.server_process import any_server, own_server
from server.cli.console.failure import CliError
from tests.server.cli.peer import free_port


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def test_it_answers_and_is_gone_afterwards():
    before = _children()
    with own_server() as connection:
        assert connection.answers()
        assert connection.is_alive()
        address, started = connection.address, _children() - before
    assert started
    assert not [process for process in started if process.is_running()]
    with Connection(address) as late:
        assert not late.answers()


def test_it_ends_even_if_the_command_is_killed():
    program = (
        "from server.cli.calls.server_process import own_server\n"
        "with own_server() as connection:\n"
        "    print(connection.address, flush=True)\n"
        "    input()\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert command.stdout is not None
    assert command.stdout.readline()
    server = psutil.Process(command.pid).children(recursive=True)
    command.kill()
    command.communicate()
    _, left = psutil.wait_procs(server, timeout=60)
    assert server
    assert not left


def test_a_server_that_cannot_start_tells_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEVICEOPS_QUEUE_CAPACITY", "none")
    with pytest.raises(CliError, match=r"did not start(.|\n)*queue_capacity"), own_server():
        pass


def test_an_address_that_was_named_is_never_replaced():
    with pytest.raises(CliError, match="no DeviceOps server answers"), any_server(f"127.0.0.1:{free_port()}"):
        pass


def test_a_folder_named_server_where_the_person_stands_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with own_server() as connection:
        assert connection.answers()


def test_a_call_in_the_block_that_fails_is_told_in_words():
    from deviceops.processing.v1 import processing_service_pb2

    with pytest.raises(CliError, match="JOB_NOT_FOUND") as told, own_server() as connection:
        connection.processing.GetJob(processing_service_pb2.GetJobRequest(job_id="none"))
    assert isinstance(told.value.__cause__, grpc.RpcError)
