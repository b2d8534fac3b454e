"""Names of devices in a configuration."""

import re

AUTO = "auto"
_FORM = re.compile(r"auto|cpu|(cuda|rocm|directml|sim)(:\d{1,4})?")
FORMS = "auto, cpu, cuda, cuda:N, rocm, rocm:N, directml, directml:N, sim or sim:COUNT"
_UNDRIVEN = re.compile(r"(xpu|mps)(:\d{1,4})?")


def refusal(name: str) -> str:
    """Why a configuration may not contain the name. Empty: it may."""
    if _FORM.fullmatch(name):
        return ""
    if _UNDRIVEN.fullmatch(name):
        backend = name.partition(":")[0]
        return (
            f"{name!r} cannot be driven: this server measures memory, copies and times steps through torch.cuda, and has not"
            f" learned torch.{backend} yet; say {FORMS}"
        )
    return f"{name!r} is no device; say {FORMS}"


def worker_name(name: str) -> str:
    """The name that the worker is started with: `directml` and `rocm` without a number mean the first adapter."""
    return f"{name}:0" if name in ("directml", "rocm") else name


def ordinal(name: str) -> int:
    """Number in the name: 1 for `cuda:1`, 0 without one."""
    return int(name.partition(":")[2] or 0)
