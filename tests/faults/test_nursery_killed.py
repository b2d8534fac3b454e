"""The nursery and the workers that are forked from it: who dies with whom."""

import os
import signal
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.processes import eventually, gone, kill
from tests.server import asking
from tests.server.asking import kind, picture
from tests.server.harness import RunningServer, running_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server of our own; each test leaves it with a nursery and a worker."""
    with running_server("--device", "cpu") as running:
        asking.watch(running, asking.submit(running))
        yield running


def nursery_of(server: RunningServer) -> int:
    """The nursery's process id; 0: there is none now."""
    children = psutil.Process(server.process.pid).children()
    found = [one.pid for one in children if "nursery" in " ".join(one.cmdline()) and one.name() != "worker cpu"]
    return found[0] if found else 0


def test_a_killed_worker_is_followed_by_a_fork_that_imported_nothing(server: RunningServer) -> None:
    nursery, first = nursery_of(server), server.worker_pid
    kill(first)
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
    worker = psutil.Process(server.worker_pid)
    assert worker.pid != first
    assert worker.cmdline() == psutil.Process(nursery).cmdline()
    assert (worker.name(), worker.ppid()) == ("worker cpu", server.process.pid)
    assert nursery_of(server) == nursery


def test_the_death_of_the_nursery_costs_no_job_and_another_takes_its_place(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=24))
    asking.wait_for_step(server, job_id)
    nursery, worker = nursery_of(server), server.worker_pid
    kill(nursery)
    assert kind(asking.watch(server, job_id)[-1]) == "succeeded"
    assert server.worker_pid == worker
    eventually(lambda: nursery_of(server) not in (0, nursery))
    kill(worker)
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"


def test_a_worker_that_dies_while_there_is_no_nursery_is_started_without_one(server: RunningServer) -> None:
    nursery, worker = nursery_of(server), server.worker_pid
    # Stopped, so that it answers no order and gives no sign of it.
    os.kill(nursery, signal.SIGSTOP)
    kill(worker)
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
    assert "server.worker.process" in psutil.Process(server.worker_pid).cmdline()
    eventually(lambda: gone(nursery))


def test_all_die_with_the_server(server: RunningServer) -> None:
    asking.watch(server, asking.submit(server))
    eventually(lambda: nursery_of(server) != 0)
    kill(server.worker_pid)
    asking.watch(server, asking.submit(server))
    processes = [child.pid for child in psutil.Process(server.process.pid).children(recursive=True)]
    os.kill(server.worker_pid, signal.SIGSTOP)
    server.kill()
    assert len(processes) == 2
    eventually(lambda: all(gone(pid) for pid in processes))
