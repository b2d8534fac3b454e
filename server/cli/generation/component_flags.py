"""Reads `--component vae=MODEL` and `--without text_encoder_3`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.cli.console.failure import USAGE, CliError


@dataclass(frozen=True)
class ComponentWish:
    """A component that replaces one of the model's own, or is left out."""

    component: str
    model: str = ""
    """The model that it comes from. Empty: it is left out."""


def components_of(given: Sequence[str], without: Sequence[str]) -> tuple[ComponentWish, ...]:
    """The components that the flags name. Raises `CliError` for one without a model."""
    return (*map(_component, given), *map(ComponentWish, without))


def _component(given: str) -> ComponentWish:
    name, _, model = given.partition("=")
    if not name or not model:
        raise CliError(f"--component {given} names no component and model; write --component vae=MODEL", USAGE)
    return ComponentWish(name, model)
