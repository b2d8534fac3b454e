"""Descriptors 0, 1 and 2 of a process that was started without some of them. Imports nothing heavy."""

import os

_STDERR = 2


def fill_standard_descriptors() -> None:
    """Open the null device for each closed descriptor of 0, 1 and 2, because a file opened later would get its number."""
    for number in range(_STDERR + 1):
        try:
            os.fstat(number)
        except OSError:
            # `open` returns the lowest free number.
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(number, True)
            elif opened > _STDERR:
                os.close(opened)
