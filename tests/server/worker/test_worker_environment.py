"""A worker gets the variables that it needs, and no secret of the server's environment."""

import sys

import psutil
import pytest

from server.worker.allowed_environment import allowed
from tests.server import asking
from tests.server.harness import running_server

MARKER = "a-secret-of-the-server"
SECRETS = [
    *("MARKER", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "NVIDIA_API_KEY", "AMD_API_KEY", "TRITON_TOKEN", "LC_PASSWORD"),
    *("DATABASE_URL", "DEVICEOPS_TOKEN"),
]
NEEDED = ["PATH", "HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"]


def test_only_what_is_needed_is_allowed() -> None:
    names = [*SECRETS, *NEEDED, "DEVICEOPS_STATE", "DEVICEOPS_LOG_FORMAT"]
    assert set(allowed(dict.fromkeys(names, "x"))) == {*NEEDED, "DEVICEOPS_LOG_FORMAT"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads environments of other processes")
def test_no_process_of_the_server_has_its_secrets() -> None:
    secrets = dict.fromkeys(SECRETS[:-1], MARKER)
    with running_server("--device", "cpu", environment=secrets, own_nursery=True) as server:
        asking.watch(server, asking.submit(server))
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert server.worker_pid in {child.pid for child in children}
        for child in children:
            environment = child.environ()
            assert MARKER not in environment.values()
            assert "PATH" in environment
        assert MARKER in psutil.Process(server.process.pid).environ().values()
