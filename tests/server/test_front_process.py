"""The front process: light, quick to answer, and at home without a network."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deviceops.common.v1 import domain_pb2
from deviceops.processing.v1 import system_status_pb2
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.worker.test_worker_environment import SECRETS

ANSWERS_WITHIN_S = 10.0
"""The promise is 1.5 s on a quiet machine; tests run on busy ones."""
MARKER = "a-secret-of-the-server"


@pytest.mark.parametrize("module", ["server.app", "server.cli", "server.cli.app", "domains.processing.jobs.jobs"])
def test_no_module_of_the_front_imports_what_takes_long(module: str) -> None:
    slow = ("torch", "diffusers", "transformers", "numpy")
    code = f"import sys, {module}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def fresh() -> Iterator[RunningServer]:
    """A server that was started as outside of tests, with secrets in its environment, and has just come up."""
    secrets = dict.fromkeys(SECRETS[:-1], MARKER)
    with running_server("--device", "cpu", environment=secrets, own_nursery=True) as running:
        yield running


def test_it_answers_before_its_worker_is_ready_and_says_what_it_waits_for(fresh: RunningServer) -> None:
    first = fresh.status()
    inference = next(one for one in first.domains if one.domain == domain_pb2.DOMAIN_INFERENCE)
    assert 0 < first.serving_after.ToTimedelta().total_seconds() < ANSWERS_WITHIN_S
    assert inference.readiness == system_status_pb2.READINESS_STARTING
    assert list(inference.waits_for) == [domain_pb2.DOMAIN_DEVICE]
    assert "cpu" in inference.detail
    assert not first.HasField("ready_after")
    asking.watch(fresh, asking.submit(fresh))
    later = fresh.status()
    inference = next(one for one in later.domains if one.domain == domain_pb2.DOMAIN_INFERENCE)
    assert inference.readiness == system_status_pb2.READINESS_READY
    assert not inference.waits_for
    assert later.ready_after.ToTimedelta() > later.serving_after.ToTimedelta()
    assert later.workers[0].state == system_status_pb2.WORKER_STATE_READY
    assert later.workers[0].process_id in {child.pid for child in psutil.Process(fresh.process.pid).children()}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_the_running_front_has_no_torch_and_its_worker_has(fresh: RunningServer) -> None:
    asking.watch(fresh, asking.submit(fresh))

    def mapped(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text()

    assert "libtorch" not in mapped(fresh.process.pid)
    assert "libtorch" in mapped(fresh.worker_pid)


@pytest.mark.skipif(sys.platform != "linux", reason="reads environments of other processes")
def test_no_process_of_the_server_has_its_secrets(fresh: RunningServer) -> None:
    asking.watch(fresh, asking.submit(fresh))
    children = psutil.Process(fresh.process.pid).children(recursive=True)
    assert fresh.worker_pid in {child.pid for child in children}
    for child in children:
        environment = child.environ()
        assert MARKER not in environment.values()
        assert "PATH" in environment
        # It is the only one that computes on these cores.
        assert environment.get("GOMP_SPINCOUNT") == os.environ.get("GOMP_SPINCOUNT")
    assert MARKER in psutil.Process(fresh.process.pid).environ().values()
