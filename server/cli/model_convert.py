"""`deviceops models convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.printing import bytes_text, emit, notice


def convert(
    source: Annotated[Path, typer.Argument(help="A .ckpt, .pt, .pth or .bin file on this machine.")],
    to: Annotated[Path | None, typer.Option("--to", help="The new file. [default: beside it, as .safetensors]")] = None,
) -> None:
    """Write a pickle of tensors as safetensors, in a process that is thrown away. Asks no server; Ctrl-C cancels.

    Code in the file is not run: a file that holds anything else than tensors is refused.
    """
    from domains.model.convert_pickle import convert_pickle

    done = convert_pickle(source, to)
    emit(f"{done.path}: {done.tensors} tensors, {bytes_text(done.written_bytes)}")
    if done.left_out:
        notice(f"{done.left_out} entries are no tensors and were left out")
