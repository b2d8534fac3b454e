"""`deviceops completion`: the script that lets a shell complete commands and flags."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from server.cli.printing import emit


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], typer.Argument(help="The shell.")],
) -> None:
    """Print a shell's completion script: `eval "$(deviceops completion bash)"`, or `… fish | source`."""
    from typer._completion_shared import get_completion_script  # pyright: ignore[reportPrivateUsage]

    emit(get_completion_script(prog_name="deviceops", complete_var="_DEVICEOPS_COMPLETE", shell=shell))
