"""A worker gets the variables that it needs. `tests/server/test_front_process.py` looks at real processes."""

from pathlib import Path

import pytest

from domains.inference.code_folder import CODE_FOLDER
from server.worker.allowed_environment import allowed
from server.worker.command import WorkerStart
from server.worker.launcher import ProcessLauncher, environment

SECRETS = [
    *("MARKER", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "NVIDIA_API_KEY", "AMD_API_KEY", "TRITON_TOKEN", "LC_PASSWORD"),
    *("DATABASE_URL", "DEVICEOPS_TOKEN"),
]
NEEDED = ["PATH", "HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"]


def test_only_what_is_needed_is_allowed() -> None:
    names = [*SECRETS, *NEEDED, "DEVICEOPS_STATE", "DEVICEOPS_LOG_FORMAT"]
    assert set(allowed(dict.fromkeys(names, "x"))) == {*NEEDED, "DEVICEOPS_LOG_FORMAT"}


async def test_workers_get_a_folder_for_compiled_code_without_what_killed_ones_have_left(tmp_path: Path) -> None:
    left = tmp_path / "code" / "code-1"
    left.mkdir(parents=True)
    launcher = ProcessLauncher(lambda name: WorkerStart(name=name), tmp_path / "code")
    assert not left.exists()
    assert launcher.environment[CODE_FOLDER] == str(tmp_path / "code")


def test_threads_of_workers_that_share_cores_spin_briefly_unless_the_operator_says_how_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert environment(shared=True).items() >= {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "0"}.items()
    assert not {"GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(environment(shared=False))
    monkeypatch.setenv("GOMP_SPINCOUNT", "70")
    for shared in (True, False):
        assert environment(shared)["GOMP_SPINCOUNT"] == "70"
