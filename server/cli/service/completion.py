"""`deviceops completion`: the script that lets a shell complete commands and flags."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from server.cli.console.printing import emit

ASKED = "_DEVICEOPS_COMPLETE"
"""The environment variable with which a shell asks for completions."""


def begin() -> None:
    """Register the completion classes of the shells."""
    from typer._completion_classes import completion_init  # pyright: ignore[reportPrivateUsage]

    completion_init()


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], typer.Argument(help="The shell.")],
) -> None:
    """Print a shell's completion script: `eval "$(deviceops completion bash)"`, or `… fish | source`."""
    from typer._completion_shared import get_completion_script  # pyright: ignore[reportPrivateUsage]

    emit(get_completion_script(prog_name="deviceops", complete_var=ASKED, shell=shell))
