"""A nursery that the server did not start is like one that it did. Most servers of the tests have one."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.faults.processes import eventually, kill
from tests.server import asking, nursery_source
from tests.server.harness import running_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")


def test_workers_are_the_servers_children_write_to_its_stderr_and_another_nursery_follows() -> None:
    assert nursery_source.present() is not None
    with running_server("--device", "sim") as server:
        asking.watch(server, asking.submit(server))
        process = psutil.Process(server.process.pid)
        worker = psutil.Process(server.worker_pid)
        (nursery,) = [child for child in process.children() if child != worker]
        assert worker.ppid() == process.pid
        assert worker.cmdline() == nursery.cmdline()
        targets = {os.readlink(f"/proc/{pid}/fd/2") for pid in (process.pid, nursery.pid, worker.pid)}
        assert len(targets) == 1
        assert targets.pop().startswith("pipe:"), "the server reads what they write"
        kill(nursery.pid)
        eventually(lambda: any("server.worker.nursery" in child.cmdline() for child in process.children()))
        assert worker.is_running()


def test_a_server_that_is_started_by_its_command_has_a_given_nursery_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `bench.attacks.each_place` needs it: it tells roles by command lines, and a command may begin with strace."""
    source = nursery_source.present()
    assert source is not None
    monkeypatch.setattr(source, "execs", True)
    with running_server("--device", "sim") as server:
        process = psutil.Process(server.process.pid)
        assert process.cmdline()[1:4] == ["-m", "server", "serve"]
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
        asking.watch(server, asking.submit(server))
        assert psutil.Process(server.worker_pid).cmdline()[2] == "tests.server.nursery_source_process"
