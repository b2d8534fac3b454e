"""`deviceops generate`: a prompt in, picture files out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli.connection import AddressOption, JsonOption
from server.cli.failure import INTERRUPTED, USAGE, CliError
from server.cli.files import make_folder, media_type_of, targets
from server.cli.generation_session import Plan, generate_pictures
from server.cli.request import Wish

_PREVIEW_EVERY = 5


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write: .png, .jpg, .webp or .avif. [default: named by the prompt]"),
    ] = None,
    negative: Annotated[str, typer.Option(help="What not to draw.")] = "",
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt is followed.")] = None,
    sampler: Annotated[str, typer.Option(help="euler, euler_a, ddim, dpmpp_2m … [default: the model's own]")] = "",
    schedule: Annotated[
        str, typer.Option(help="Noise levels: normal, karras, exponential. [default: the model's own]")
    ] = "",
    seed: Annotated[int | None, typer.Option(help="Start of the noise; picture i uses seed + i.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures; the files are numbered.")] = 1,
    width: Annotated[int | None, typer.Option(help="px, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="px, a multiple of 8.")] = None,
    model: Annotated[str, typer.Option(help="A model's id. [default: the server's default model]")] = "",
    format_name: Annotated[
        Literal["png", "jpeg", "webp", "avif"] | None, typer.Option("--format", help="File format.")
    ] = None,
    quality: Annotated[int | None, typer.Option(help="1..100 for JPEG, WebP and AVIF.")] = None,
    manifest: Annotated[
        Literal["full", "recipe", "none"],
        typer.Option(help="What the file says about how it was made; recipe: hashes for prompts."),
    ] = "full",
    provenance: Annotated[
        bool, typer.Option("--provenance/--no-provenance", help="Mark the file as made by AI (IPTC).")
    ] = True,
    previews: Annotated[Path | None, typer.Option(help="Folder for pictures of the way there.")] = None,
    preview_every: Annotated[
        int | None, typer.Option(min=1, help=f"Steps between two previews. [default: {_PREVIEW_EVERY} with --previews]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    inline: Annotated[bool, typer.Option(help="Show the picture in the terminal, where that can.")] = True,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Make pictures from a prompt, on a running server or on one that is started for it.

    Ctrl-C cancels the job and tells what the server proves about its stop.
    """
    media_type = media_type_of(format_name, out)
    files = targets(prompt, out, count, media_type, force)
    folder = _preview_folder(previews, preview_every, files[0])
    wish = Wish(
        prompt=prompt,
        negative=negative,
        model=model,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        sigma_schedule=schedule,
        seed=seed,
        count=count,
        width=width,
        height=height,
        media_type=media_type,
        quality=quality,
        manifest=manifest,
        provenance=provenance,
        preview_every=(preview_every or _PREVIEW_EVERY) if folder else 0,
    )
    plan = Plan(wish=wish, files=files, force=force, previews=folder, inline=inline and not json, json=json)
    if generate_pictures(plan, address):
        raise typer.Exit(INTERRUPTED)


def _preview_folder(previews: Path | None, every: int | None, first: Path) -> Path | None:
    if previews is None and every is None:
        return None
    folder = previews or first.with_name(f"{first.stem}-previews")
    if folder.exists() and not folder.is_dir():
        raise CliError(f"--previews {folder} is a file; name a folder", USAGE)
    make_folder(folder)
    return folder
