"""The names that a configuration may give to devices."""

import re

AUTO = "auto"
_FORM = re.compile(r"auto|cpu|(cuda|directml|sim)(:\d{1,4})?")
FORMS = "auto, cpu, cuda, cuda:N, directml, directml:N, sim or sim:COUNT"


def is_device_name(name: str) -> bool:
    """Whether a configuration may name it."""
    return _FORM.fullmatch(name) is not None


def worker_name(name: str) -> str:
    """What a worker is started with: `directml` alone is the first adapter."""
    return "directml:0" if name == "directml" else name


def ordinal(name: str) -> int:
    """`cuda:1` is 1, a name without a number 0."""
    return int(name.partition(":")[2] or 0)
