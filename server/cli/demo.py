"""`deviceops demo`: six prompts at once, a live bar for each, and a contact sheet of the six pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.bars import Bars, JobLine
from server.cli.blob_file import save
from server.cli.connection import AddressOption, Connection
from server.cli.failure import INTERRUPTED, CliError, explain_failure
from server.cli.files import make_folder, slug
from server.cli.generation_run import Ending, GenerationRun, check_ended_well, proof, run_all
from server.cli.generation_session import draw
from server.cli.printing import emit, notice, seconds_text
from server.cli.request import Wish, generate_request
from server.cli.server_process import any_server

if TYPE_CHECKING:
    from server.cli.generation_run import Observer

PROMPTS = (
    "a red apple",
    "an owl on a purple background",
    "a rocket on a blue background",
    "a cactus on a yellow background",
    "a penguin on a pink background",
    "a volcano on a green background",
)
"""Subjects and backgrounds that the embedded model draws well."""

_SEED, _COLUMNS, _CELL_PX = 7, 3, 256


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures and the page.")] = Path("demo"),
    address: AddressOption = None,
) -> None:
    """Make six pictures at the same time, and a contact sheet of them. Earlier ones in the folder are overwritten."""
    make_folder(out)
    started = time.monotonic()
    with any_server(address) as connection:
        endings, interrupted = _follow(connection)
        if interrupted:
            _tell_stops(endings)
            raise typer.Exit(INTERRUPTED)
        for ending in endings:
            check_ended_well(ending.event)
        files = [_write(connection, out, place, ending) for place, ending in enumerate(endings)]
    sheet = _sheet(out, files)
    draw(sheet)
    notice(f"Six pictures in {seconds_text(time.monotonic() - started)}, in {out}")
    emit(sheet)


def _follow(connection: Connection) -> tuple[list[Ending], bool]:
    with Bars() as bars:
        runs = [
            GenerationRun(connection, generate_request(Wish(prompt=prompt, seed=_SEED)), [_shown_in(bars.line(prompt))])
            for prompt in PROMPTS
        ]
        return run_all(runs)


def _shown_in(line: JobLine) -> Observer:
    return lambda message: line.show(message.event)


def _tell_stops(endings: Sequence[Ending]) -> None:
    for prompt, ending in zip(PROMPTS, endings, strict=True):
        stopped = ending.event.WhichOneof("kind") == "cancelled"
        notice(f"{prompt}: {proof(ending.event.cancelled) if stopped else 'had ended already'}")


def _write(connection: Connection, out: Path, place: int, ending: Ending) -> Path:
    image = ending.images.get(0)
    if image is None or not image.HasField("file"):
        why = explain_failure(image.failure) if image is not None else "the server sent none"
        raise CliError(f"“{PROMPTS[place]}” gave no picture: {why}")
    file = out / f"{place + 1}-{slug(PROMPTS[place])}.png"
    save(connection, image.file, file, force=True)
    return file


def _sheet(out: Path, files: Sequence[Path]) -> Path:
    import numpy as np
    from PIL import Image

    from domains.imaging.contact_sheet import contact_sheet
    from domains.imaging.encode import encode

    cells: list[tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]] = []
    for prompt, file in zip(PROMPTS, files, strict=True):
        with Image.open(file) as picture:
            cells.append((prompt.split(" on a ")[0], np.asarray(picture.convert("RGB"))))
    sheet = out / "contact-sheet.png"
    try:
        sheet.write_bytes(encode(contact_sheet(cells, _COLUMNS, _CELL_PX), "image/png"))
    except OSError as error:
        raise CliError(f"cannot write {sheet}: {error.strerror}") from error
    return sheet
