"""A worker gets the variables that it needs. `tests/server/test_front_process.py` looks at real processes."""

from server.worker.allowed_environment import allowed

SECRETS = [
    *("MARKER", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "NVIDIA_API_KEY", "AMD_API_KEY", "TRITON_TOKEN", "LC_PASSWORD"),
    *("DATABASE_URL", "DEVICEOPS_TOKEN"),
]
NEEDED = ["PATH", "HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"]


def test_only_what_is_needed_is_allowed() -> None:
    names = [*SECRETS, *NEEDED, "DEVICEOPS_STATE", "DEVICEOPS_LOG_FORMAT"]
    assert set(allowed(dict.fromkeys(names, "x"))) == {*NEEDED, "DEVICEOPS_LOG_FORMAT"}
