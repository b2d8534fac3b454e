"""Parses sizes from the command line."""

import re

from server.cli.console.failure import USAGE, CliError

_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_AMOUNT = re.compile(r"(?P<count>\d+(\.\d+)?)\s*(?P<unit>[kmgt]?)(?P<binary>i?)b?", re.IGNORECASE)


def byte_count(text: str, flag: str) -> int:
    """`4GiB`, `512M`, `1.5 TiB`, `1000`: in bytes. Units are powers of 1024; `GB` is refused, as it means two things.

    Raises `CliError` (usage), which names `flag`.
    """
    parts = _AMOUNT.fullmatch(text.strip())
    unit = parts["unit"].lower() if parts else ""
    ambiguous = parts is not None and unit and not parts["binary"] and text.strip().lower().endswith("b")
    if parts is None or ambiguous:
        raise CliError(f"{flag} {text}: not a size; write bytes or 512MiB, 4GiB, 1.5TiB", USAGE)
    # Exact: a double has 53 bits, the contract's sizes have 63.
    from fractions import Fraction

    return round(Fraction(parts["count"]) * 1024 ** _UNITS[unit])
