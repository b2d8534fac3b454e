"""The files that this process has open in one place. Files of other tests are closed whenever garbage is collected."""

import os
from contextlib import suppress
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


def open_within(place: Path | str) -> list[str]:
    """The targets of the descriptors that lead to a file, or into a folder; one for each descriptor. Linux only."""
    whole = os.path.realpath(place)
    found: list[str] = []
    for descriptor in os.listdir(_DESCRIPTORS):
        with suppress(FileNotFoundError):
            target = os.readlink(_DESCRIPTORS / descriptor)
            if target == whole or target.startswith(f"{whole}/"):
                found.append(target)
    return found
