"""`deviceops demo`: six prompts at once, a live bar for each, and a contact sheet of the six pictures."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls.connection import AddressOption, Connection
from server.cli.calls.server_process import any_server
from server.cli.console.bars import Bars, JobLine
from server.cli.console.failure import INTERRUPTED, CliError, explain_failure
from server.cli.console.printing import emit, notice, seconds_text
from server.cli.generation.demo_shows import COMPANIONS, CONTROL, INPAINT, LORA, Show, check_there
from server.cli.generation.files import make_folder, slug
from server.cli.generation.request import Wish, generate_request
from server.cli.generation.run import Ending, GenerationRun, check_ended_well, proof, run_all
from server.cli.generation.session import draw
from server.cli.memory.blob_file import save

if TYPE_CHECKING:
    from server.cli.generation.run import Observer

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
    lora: Annotated[bool, typer.Option("--lora", help="Also in another style, by a LoRA.")] = False,
    control: Annotated[bool, typer.Option("--control", help="Also mirrored, by a ControlNet for edges.")] = False,
    inpaint: Annotated[bool, typer.Option("--inpaint", help="Also faces whose eyes are made anew.")] = False,
    address: AddressOption = None,
) -> None:
    """Make six pictures at the same time, and a contact sheet of them. Earlier ones in the folder are overwritten.

    With --lora, --control or --inpaint: three pictures, and below them the same three changed.
    """
    make_folder(out)
    started = time.monotonic()
    shows = [show for show, wanted in ((LORA, lora), (CONTROL, control), (INPAINT, inpaint)) if wanted]
    with any_server(address, [COMPANIONS] if lora or control else ()) as connection:
        check_there(connection, shows)
        files = _rows(connection, out, shows) if shows else _made(connection, out, _plain(PROMPTS), "")
    sheet = _sheet(out, files)
    draw(sheet)
    count = "Six" if len(files) == len(PROMPTS) else str(len(files))
    notice(f"{count} pictures in {seconds_text(time.monotonic() - started)}, in {out}")
    emit(sheet)


def _rows(connection: Connection, out: Path, shows: Sequence[Show]) -> list[tuple[str, Path]]:
    """Make the pictures that the shows change, each three once, and below them the changed ones."""
    files: list[tuple[str, Path]] = []
    any_demo = PROMPTS[:_COLUMNS]
    for prompts in dict.fromkeys(show.prompts or any_demo for show in shows):
        plain = _plain(prompts)
        beginnings = _made(connection, out, plain, "")
        files += beginnings
        for show in [show for show in shows if (show.prompts or any_demo) == prompts]:
            changed = [show.changed(wish, file) for wish, (_, file) in zip(plain, beginnings, strict=True)]
            files += _made(connection, out, changed, show.name)
    return files


def _plain(prompts: Sequence[str]) -> list[Wish]:
    return [Wish(prompt=prompt, seed=_SEED) for prompt in prompts]


def _made(connection: Connection, out: Path, wishes: Sequence[Wish], name: str) -> list[tuple[str, Path]]:
    """Make the pictures at the same time; their labels and files."""
    labels = [f"{wish.prompt} ({name})" if name else wish.prompt for wish in wishes]
    with Bars() as bars:
        runs = [
            GenerationRun(connection, generate_request(wish), [_shown_in(bars.line(label))])
            for wish, label in zip(wishes, labels, strict=True)
        ]
        endings, interrupted = run_all(runs)
    if interrupted:
        _tell_stops(labels, endings)
        raise typer.Exit(INTERRUPTED)
    for ending in endings:
        check_ended_well(ending.event)
    return [
        (_short(label), _write(connection, out, place, label, ending))
        for place, (label, ending) in enumerate(zip(labels, endings, strict=True))
    ]


def _shown_in(line: JobLine) -> Observer:
    return lambda message: line.show(message.event)


def _tell_stops(labels: Sequence[str], endings: Sequence[Ending]) -> None:
    for label, ending in zip(labels, endings, strict=True):
        stopped = ending.event.WhichOneof("kind") == "cancelled"
        notice(f"{label}: {proof(ending.event.cancelled) if stopped else 'had ended already'}")


def _short(label: str) -> str:
    """A label without its background."""
    return re.sub(r" on an? \w+ background", "", label)


def _write(connection: Connection, out: Path, place: int, label: str, ending: Ending) -> Path:
    image = ending.images.get(0)
    if image is None or not image.HasField("file"):
        why = explain_failure(image.failure) if image is not None else "the server sent none"
        raise CliError(f"“{label}” gave no picture: {why}")
    file = out / f"{place + 1}-{slug(label)}.png"
    save(connection, image.file, file, force=True)
    return file


def _sheet(out: Path, files: Sequence[tuple[str, Path]]) -> Path:
    import numpy as np
    from PIL import Image

    from domains.imaging.contact_sheet import contact_sheet
    from domains.imaging.encode import encode

    cells: list[tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]] = []
    for label, file in files:
        with Image.open(file) as picture:
            cells.append((label, np.asarray(picture.convert("RGB"))))
    sheet = out / "contact-sheet.png"
    try:
        sheet.write_bytes(encode(contact_sheet(cells, _COLUMNS, _CELL_PX), "image/png"))
    except OSError as error:
        raise CliError(f"cannot write {sheet}: {error.strerror}") from error
    return sheet
