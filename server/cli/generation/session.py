"""Runs one `deviceops generate`, from the connection to the files on disk."""

from __future__ import annotations

import contextlib
import shlex
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.calls import ids
from server.cli.calls.connection import Connection, connect
from server.cli.calls.server_process import any_server
from server.cli.console.bars import Bars
from server.cli.console.hints import hint, known_prompts
from server.cli.console.printing import (
    KeptOutput,
    OutputLost,
    duration_s,
    emit,
    json_text,
    notice,
    print_json,
    seconds_text,
)
from server.cli.console.terminal import outliving_terminal
from server.cli.generation.control_flags import control_input
from server.cli.generation.image_prompt_flags import image_prompt
from server.cli.generation.input_image import input_image
from server.cli.generation.pictures import save_pictures
from server.cli.generation.previews import PreviewFolder
from server.cli.generation.region_flags import region_input
from server.cli.generation.request import Wish, generate_request, submit_request
from server.cli.generation.run import Ending, GenerationRun, check_ended_well, proof, run_all

if TYPE_CHECKING:
    from deviceops.inference.v1.inference_service_pb2 import GenerateResponse
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The generation, and the files to write."""

    wish: Wish
    files: Sequence[Path]
    """One file for each picture."""
    force: bool
    """Whether to overwrite existing files."""
    previews: Path | None
    """Folder for previews; None: none."""
    inline: bool
    """Whether to draw the first picture into the terminal."""
    json: bool
    """Whether to print each message as JSON on stdout, and nothing else."""


def generate_pictures(plan: Plan, address: str | None) -> bool:
    """Make the pictures and write them. Returns whether Ctrl-C interrupted it. Raises `CliError`."""
    told = KeptOutput()
    with outliving_terminal(), any_server(address) as connection:
        wish = _resolved(plan.wish, connection)
        known = known_prompts(connection, wish.model)
        hint(wish.prompt, known)
        ending, interrupted = _follow(plan, wish, connection, told)
        _write(plan, connection, ending, told)
        if not known:
            # A server that has just started does not know the model's prompts before the generation.
            hint(wish.prompt, known_prompts(connection, wish.model))
        if ending.event.WhichOneof("kind") == "cancelled" and interrupted:
            notice(proof(ending.event.cancelled))
        else:
            check_ended_well(ending.event)
            _tell_receipt(ending)
    told.check()
    return interrupted


def submit(plan: Plan, address: str | None) -> None:
    """Submit the job to a running server, and print its id. Raises `CliError`."""
    with connect(address) as connection:
        request = submit_request(_resolved(plan.wish, connection), _request_id())
        answer = connection.processing.SubmitJob(request)
    print_json(answer) if plan.json else emit(answer.job.id)
    notice(way_back(answer.job.id, plan.files))


def way_back(job_id: str, files: Sequence[Path]) -> str:
    """The command with which a user comes back to a job."""
    out = files[0] if len(files) == 1 else _unnumbered(files[0])
    return f"Job {job_id}. To come back: deviceops watch {job_id} --out {shlex.quote(str(out))}"


def _unnumbered(file: Path) -> Path:
    return file.with_name(f"{file.stem.rpartition('-')[0]}{file.suffix}")


def _request_id() -> str:
    return str(uuid.uuid4())


def _resolved(wish: Wish, connection: Connection) -> Wish:
    """The wish with prefixes of ids replaced by whole ids, and with its picture as the server gets it."""
    return replace(
        wish,
        device=wish.device and ids.device(connection, wish.device),
        model=wish.model and ids.model(connection, wish.model),
        image_input=wish.image and input_image(connection, wish.image),
        mask_input=wish.mask and input_image(connection, wish.mask),
        refiner=wish.refiner and ids.model(connection, wish.refiner),
        components=tuple(replace(one, model=one.model and ids.model(connection, one.model)) for one in wish.components),
        reference_inputs=tuple(input_image(connection, one) for one in wish.references),
        control_inputs=tuple(control_input(connection, one) for one in wish.controls),
        region_inputs=tuple(region_input(connection, one) for one in wish.regions),
        image_prompt_inputs=tuple(image_prompt(connection, one) for one in wish.image_prompts),
    )


def _follow(plan: Plan, wish: Wish, connection: Connection, told: KeptOutput) -> tuple[Ending, bool]:
    with Bars() as bars:
        line = bars.line(_title(wish.prompt))

        def show(message: GenerateResponse | WatchJobResponse) -> None:
            # The command's own server ends with the command, so the user cannot come back to the job.
            if message.event.WhichOneof("kind") == "queued" and not connection.is_own:
                notice(way_back(message.event.job_id, plan.files))
            line.show(message.event)

        def tell(message: GenerateResponse | WatchJobResponse) -> None:
            told.emit(json_text(message, one_line=True))

        observers = [show]
        if plan.json:
            observers.append(tell)
        if plan.previews:
            observers.append(PreviewFolder(plan.previews))
        run = GenerationRun(connection, generate_request(wish, _request_id()), observers)
        endings, interrupted = run_all([run])
    return endings[0], interrupted


def _title(prompt: str) -> str:
    line = " ".join(prompt.split()) or "a picture"
    return line if len(line) <= 40 else line[:39] + "…"


def _write(plan: Plan, connection: Connection, ending: Ending, told: KeptOutput) -> None:
    """Write the finished pictures, even of a job that ended early; then raise `CliError` for the missing ones."""
    for warning in ending.result.warnings if ending.result else ():
        notice(f"Note: {warning.message}")
    save_pictures(connection, ending.images.values(), plan.files, force=plan.force, told=None if plan.json else told)
    if plan.inline and 0 in ending.images:
        draw(plan.files[0])


def draw(file: Path) -> None:
    """Draw a picture's file into the terminal, if stdout is a terminal that can draw pictures."""
    if not sys.stdout.isatty():
        return
    import os

    import numpy as np
    from PIL import Image

    from domains.imaging.terminal import inline_image

    with Image.open(file) as picture:
        text = inline_image(np.asarray(picture.convert("RGB")), os.environ, columns=40)
    if text:
        with contextlib.suppress(OutputLost):
            emit(text, end="")


def _tell_receipt(ending: Ending) -> None:
    receipt = ending.event.succeeded.receipt
    seeds = ", ".join(str(image.seed) for _, image in sorted(ending.images.items()))
    notice(f"{seconds_text(duration_s(receipt.run_time))} on {receipt.device_id}, seed {seeds}.")
