"""Stderr that is closed, gone or slow hangs nothing and costs no call its time. See also `test_log_writer`."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deviceops.model.v1 import model_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, kind, picture
from tests.server.harness import RunningServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's pipes")

_PAGE = 4096
_JOBS = 10
"""With four lines each they fill the pipes of these tests twice."""
_SOON_S = 2.0
"""An answer on a busy machine; a log call that waits for stderr waits for ever."""


@contextmanager
def closed() -> Generator[int]:
    yield -1


@contextmanager
def gone() -> Generator[int]:
    """A pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@contextmanager
def unread() -> Generator[int]:
    """A pipe whose reader stands still."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PAGE)
    yield write
    os.close(write)
    os.close(read)


CASES: dict[str, Callable[[], Any]] = {
    "closed": closed,
    "a pipe that was left": gone,
    "a pipe that is not read": unread,
}


@contextmanager
def serving(folder: Path, stderr: int) -> Generator[RunningServer]:
    """A server with this stderr. It logs every job, as JSON."""
    flags = ["--device", "sim", "--log-format", "json"]
    if stderr < 0:
        server = _Closed(folder / "state", flags, {}, own_nursery=True)
    else:
        server = RunningServer(folder / "state", flags, {}, stderr)
    try:
        yield server
    finally:
        server.close()


class _Closed(RunningServer):
    """Started without a descriptor 2."""

    def start(self, *more: str) -> None:
        """As the other, through a shell that closes it."""
        real = subprocess.Popen

        def without(command: list[str], **options: Any) -> Any:
            return real(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess, "Popen", without)
            super().start(*more)


@pytest.mark.parametrize("name", CASES)
def test_jobs_end_calls_are_quick_and_sigterm_ends_with_0(tmp_path: Path, name: str) -> None:
    with CASES[name]() as stderr, serving(tmp_path, stderr) as server:
        jobs = [asking.submit(server, picture(steps=1, seed=number)) for number in range(_JOBS)]
        slowest = 0.0
        for job_id in jobs:
            assert kind(asking.watch(server, job_id)[-1]) == "succeeded"
            begin = time.monotonic()
            server.status()
            slowest = max(slowest, time.monotonic() - begin)
        list(server.model.ScanModels(model_service_pb2.ScanModelsRequest(), timeout=CALL_S))
        cancelled = asking.submit(server, picture(steps=asking.LONG_STEPS))
        asking.wait_for_step(server, cancelled)
        asking.cancel(server, cancelled)
        assert kind(asking.watch(server, cancelled)[-1]) == "cancelled"
        assert slowest < _SOON_S
        assert server.stop() == 0


def test_a_reader_that_comes_back_finds_every_line_and_each_is_json(tmp_path: Path) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PAGE)
    with serving(tmp_path, write) as server:
        os.close(write)
        jobs = [asking.submit(server, picture(steps=1, seed=number)) for number in range(_JOBS)]
        for job_id in jobs:
            asking.watch(server, job_id)
        with ThreadPoolExecutor(1) as pool:
            log = pool.submit(lambda: open(read, "rb").read())  # noqa: SIM115  # ends with the server
            assert server.stop() == 0
            lines = [json.loads(line) for line in log.result(CALL_S).splitlines()]
    assert {line.get("job_id") for line in lines if line["event"] == "job started"} == set(jobs)
    assert lines[-1]["event"] == "stopped"


def test_a_reader_that_leaves_later_hangs_nothing(tmp_path: Path) -> None:
    read, write = os.pipe()
    with serving(tmp_path, write) as server:
        os.close(write)
        asking.watch(server, asking.submit(server))
        os.close(read)
        for number in range(2):
            assert kind(asking.watch(server, asking.submit(server, picture(seed=number)))[-1]) == "succeeded"
        assert server.stop() == 0
