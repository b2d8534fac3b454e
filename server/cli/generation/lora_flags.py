"""Reads `--lora MODEL[=WEIGHT]`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from server.cli.console.failure import USAGE, CliError
from server.cli.generation.request import LoraWish


def loras_of(given: Sequence[str]) -> tuple[LoraWish, ...]:
    """The adapters that the flags name. Raises `CliError` for a weight that is no number."""
    return tuple(_lora(one) for one in given)


def _lora(given: str) -> LoraWish:
    model, equals, weight = given.partition("=")
    if not equals:
        return LoraWish(model)
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not model or not math.isfinite(number):
        raise CliError(f"--lora {given} names no model and weight; write --lora MODEL=0.8", USAGE)
    return LoraWish(model, number)
