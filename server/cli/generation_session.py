"""One `deviceops generate` from the connection to the files on disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.bars import Bars
from server.cli.blob_file import save
from server.cli.connection import Connection
from server.cli.failure import CliError, explain_failure
from server.cli.generation_run import Ending, GenerationRun, check_ended_well, proof, run_all
from server.cli.hints import hint, known_prompts
from server.cli.previews import PreviewFolder
from server.cli.printing import duration_s, notice, print_json, seconds_text
from server.cli.request import Wish, generate_request
from server.cli.server_process import any_server

if TYPE_CHECKING:
    from deviceops.inference.v1.inference_service_pb2 import GenerateResponse
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make and where to put it."""

    wish: Wish
    files: Sequence[Path]
    """One a picture."""
    force: bool
    """Whether files may be overwritten."""
    previews: Path | None
    """Folder for previews; None: none."""
    inline: bool
    """Whether to draw the first picture into the terminal."""
    json: bool
    """Whether stdout gets each message as JSON, and nothing else."""


def generate_pictures(plan: Plan, address: str | None) -> bool:
    """Make the pictures and write them. Returns whether it was interrupted; raises `CliError` for everything else."""
    with any_server(address) as connection:
        known = known_prompts(connection, plan.wish.model)
        hint(plan.wish.prompt, known)
        ending, interrupted = _follow(plan, connection)
        _write(plan, connection, ending)
        if not known:
            # A server that had just started could not say before.
            hint(plan.wish.prompt, known_prompts(connection, plan.wish.model))
        if ending.event.WhichOneof("kind") == "cancelled" and interrupted:
            notice(proof(ending.event.cancelled))
        else:
            check_ended_well(ending.event)
            _tell_receipt(ending)
    return interrupted


def _follow(plan: Plan, connection: Connection) -> tuple[Ending, bool]:
    with Bars() as bars:
        line = bars.line(_title(plan.wish.prompt))

        def show(message: GenerateResponse | WatchJobResponse) -> None:
            line.show(message.event)

        def tell(message: GenerateResponse | WatchJobResponse) -> None:
            print_json(message, one_line=True)

        observers = [show]
        if plan.json:
            observers.append(tell)
        if plan.previews:
            observers.append(PreviewFolder(plan.previews))
        endings, interrupted = run_all([GenerationRun(connection, generate_request(plan.wish), observers)])
    return endings[0], interrupted


def _title(prompt: str) -> str:
    line = " ".join(prompt.split()) or "a picture"
    return line if len(line) <= 40 else line[:39] + "…"


def _write(plan: Plan, connection: Connection, ending: Ending) -> None:
    """Write what is ready, also of a job that ended early; then complain about what is not."""
    failures: list[str] = []
    for index, image in sorted(ending.images.items()):
        if not image.HasField("file"):
            failures.append(f"picture {index + 1} was not made: {explain_failure(image.failure)}")
            continue
        save(connection, image.file, plan.files[index], force=plan.force)
        if not plan.json:
            print(plan.files[index], flush=True)
        if plan.inline and index == 0:
            draw(plan.files[index])
    for warning in ending.result.warnings if ending.result else ():
        notice(f"Note: {warning.message}")
    if failures:
        raise CliError("\n".join(failures))


def draw(file: Path) -> None:
    """Draw a picture's file into the terminal, if stdout is one that can."""
    if not sys.stdout.isatty():
        return
    import os

    import numpy as np
    from PIL import Image

    from domains.imaging.terminal import inline_image

    with Image.open(file) as picture:
        text = inline_image(np.asarray(picture.convert("RGB")), os.environ, columns=40)
    if text:
        print(text, end="", flush=True)


def _tell_receipt(ending: Ending) -> None:
    receipt = ending.event.succeeded.receipt
    seeds = ", ".join(str(image.seed) for _, image in sorted(ending.images.items()))
    notice(f"{seconds_text(duration_s(receipt.run_time))} on {receipt.device_id}, seed {seeds}.")
