"""The variables of the server's environment that its workers get: those that they need, and no secrets."""

from collections.abc import Mapping

_NAME_LINES = (
    # Operating system.
    "PATH HOME USER LOGNAME LANG LANGUAGE TZ TMPDIR TMP TEMP XDG_CACHE_HOME LD_LIBRARY_PATH LD_PRELOAD GLIBC_TUNABLES",
    # Python.
    "PYTHONPATH PYTHONHOME PYTHONHASHSEED PYTHONFAULTHANDLER PYTHONDONTWRITEBYTECODE PYTHONWARNINGS",
    "VIRTUAL_ENV CONDA_PREFIX",
    # NVIDIA's container runtime. By name, because NVIDIA_API_KEY is a secret.
    "NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES NVIDIA_TF32_OVERRIDE",
    # Hugging Face. By name, because HF_TOKEN is a secret.
    "HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HF_HUB_DISABLE_TELEMETRY TRANSFORMERS_OFFLINE DIFFUSERS_OFFLINE",
    # Windows.
    "SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT USERPROFILE USERNAME APPDATA LOCALAPPDATA PROGRAMDATA PROGRAMFILES",
    "NUMBER_OF_PROCESSORS PROCESSOR_ARCHITECTURE PROCESSOR_IDENTIFIER",
)
_NAMES = frozenset(name for line in _NAME_LINES for name in line.split())
_PREFIXES = (
    "LC_",
    # GPU drivers and libraries.
    *("CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "HIP_", "HSA_", "ROCR_", "ROCM_", "ROCBLAS_", "MIOPEN_", "AMD_", "GPU_"),
    *("DML_", "D3D12_"),
    # torch and the libraries that it computes with.
    *("TORCH_", "PYTORCH_", "TORCHINDUCTOR_", "TRITON_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_"),
    # DeviceOps; the server's settings are not for workers.
    *("DEVICEOPS_LOG_", "DEVICEOPS_BENCH_"),
)
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSW", "CREDENTIAL")


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environment` that a worker gets."""
    return {name: value for name, value in environment.items() if name in _NAMES or _has_prefix(name)}


def _has_prefix(name: str) -> bool:
    """Whether a prefix allows the variable. `AMD_API_KEY` and `TRITON_TOKEN` are secrets in spite of theirs."""
    return name.startswith(_PREFIXES) and not any(word in name for word in _SECRET)
