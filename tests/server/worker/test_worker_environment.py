"""A worker gets the variables that it needs. `tests/server/test_front_process.py` looks at real processes."""

from pathlib import Path

from domains.inference.code_folder import CODE_FOLDER
from server.worker.allowed_environment import allowed
from server.worker.command import WorkerStart
from server.worker.launcher import ProcessLauncher

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
