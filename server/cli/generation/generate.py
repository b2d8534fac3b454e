"""`deviceops generate`: makes picture files from a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli.calls.connection import AddressOption, JsonOption
from server.cli.console.failure import INTERRUPTED, USAGE, CliError, must_be_text
from server.cli.generation.component_flags import components_of
from server.cli.generation.control_flags import controls_of
from server.cli.generation.files import media_type_of, targets
from server.cli.generation.image_prompt_flags import image_prompts_of
from server.cli.generation.lora_flags import loras_of
from server.cli.generation.pass_flags import details_of, hires_of
from server.cli.generation.previews import preview_folder
from server.cli.generation.prompt import LongOption, SyntaxOption
from server.cli.generation.region_flags import regions_of
from server.cli.generation.request import Wish
from server.cli.generation.session import Plan, generate_pictures, submit

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
    distilled_guidance: Annotated[
        float | None, typer.Option(help="Guidance as models that were distilled with it (FLUX.1 dev) read it.")
    ] = None,
    guidance_rescale: Annotated[
        float | None, typer.Option(help="How much the contrast of strong guidance is pulled back, 0..1.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="euler, euler_a, ddim, dpmpp_2m … [default: the model's own]")] = "",
    schedule: Annotated[
        str, typer.Option(help="Noise levels: normal, karras, exponential. [default: the model's own]")
    ] = "",
    seed: Annotated[int | None, typer.Option(help="Start of the noise; picture i uses seed + i.")] = None,
    variation_seed: Annotated[int | None, typer.Option(help="A second seed that varies the first.")] = None,
    variation: Annotated[float | None, typer.Option(help="How far to go to the second seed, 0..1.")] = None,
    first_step: Annotated[
        int | None, typer.Option(help="First of the steps to compute, from 0, in place of --strength.")
    ] = None,
    last_step: Annotated[
        int | None, typer.Option(help="The step to stop before; the picture still has noise then.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures; the files are numbered.")] = 1,
    width: Annotated[int | None, typer.Option(help="px, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="px, a multiple of 8.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="A picture to start from. [default size of the result: the picture's]")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of --image is made anew, 0..1. [default: 0.75]")
    ] = None,
    fit: Annotated[
        Literal["stretch", "cover", "pad"] | None,
        typer.Option(help="How --image gets to --width and --height, if it has another size."),
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="A picture that a model made for editing sees; may be repeated.")
    ] = None,
    image_guidance: Annotated[
        float | None, typer.Option(help="How strongly --reference is followed. [default: 1.5]")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Which part of --image to make anew: white; black keeps its bytes.")
    ] = None,
    mask_blur: Annotated[
        int | None, typer.Option(help="Width of the ramp at the mask's edge, px. [default: 8]")
    ] = None,
    mask_dilation: Annotated[int, typer.Option(help="How much the mask grows first, px.")] = 0,
    mask_invert: Annotated[bool, typer.Option("--mask-invert", help="Make black anew, keep white.")] = False,
    mask_blend: Annotated[
        Literal["none", "feather", "gaussian"] | None, typer.Option(help="The ramp. [default: feather]")
    ] = None,
    mask_fill: Annotated[
        Literal["original", "noise", "edge"] | None,
        typer.Option(help="What the new part starts from. [default: original]"),
    ] = None,
    zoom_to_mask: Annotated[
        bool, typer.Option("--zoom-to-mask", help="Make only the mask's surroundings, at the full size.")
    ] = False,
    zoom_padding: Annotated[
        int | None, typer.Option(help="How much around the mask is made with it, px. [default: 32]")
    ] = None,
    syntax: SyntaxOption = None,
    long_prompt: LongOption = None,
    clip_skip: Annotated[int | None, typer.Option(help="How many last layers of CLIP to leave out.")] = None,
    seamless_x: Annotated[
        bool, typer.Option("--seamless-x", help="Make left and right edges fit together, for textures.")
    ] = False,
    seamless_y: Annotated[
        bool, typer.Option("--seamless-y", help="Make upper and lower edges fit together, for textures.")
    ] = False,
    outpaint: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(help="How far --image grows at the left, top, right and bottom, px.", metavar="L T R B"),
    ] = None,
    outpaint_overlap: Annotated[
        int | None, typer.Option(help="How far the change reaches into the old picture, px. [default: 32]")
    ] = None,
    outpaint_fill: Annotated[
        Literal["edge", "noise"] | None, typer.Option(help="What the new parts start from. [default: edge]")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=FILE", help="A ControlNet and the picture by which it guides; once for each."),
    ] = None,
    control_from: Annotated[
        list[str] | None,
        typer.Option(
            help="How the map of the --control in the same place is made: canny, line-art, tile … [default: map]"
        ),
    ] = None,
    control_weight: Annotated[
        list[float] | None,
        typer.Option(help="How strongly the --control in the same place guides, 0..10. [default: 1]"),
    ] = None,
    control_type: Annotated[
        list[str] | None,
        typer.Option(
            help="What the map of the --control in the same place is, for a ControlNet that knows several types: depth …"
        ),
    ] = None,
    control_fit: Annotated[
        Literal["stretch", "cover", "pad"] | None,
        typer.Option(help="How pictures of --control get to the size of the result."),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHERE=PROMPT",
            help="A prompt for a part: LEFT,TOP,WIDTH,HEIGHT in px, or a file whose white is the part; once for each.",
        ),
    ] = None,
    region_weight: Annotated[
        list[float] | None,
        typer.Option(help="Share of the --region in the same place, 0..10. [default: 1]"),
    ] = None,
    image_prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=FILE[,FILE]", help="An IP-Adapter and the pictures that it reads; once for each."),
    ] = None,
    image_prompt_weight: Annotated[
        list[float] | None,
        typer.Option(help="How strongly the --image-prompt in the same place guides, 0..10. [default: 1]"),
    ] = None,
    image_prompt_mode: Annotated[
        Literal["content-and-style", "style", "composition"] | None,
        typer.Option(help="What is taken from the pictures of --image-prompt. [default: content-and-style]"),
    ] = None,
    model: Annotated[str, typer.Option(help="A model's id. [default: the server's default model]")] = "",
    latents: Annotated[
        str, typer.Option(help="Id of a blob with latents to start from; --strength and --first-step count for it.")
    ] = "",
    return_latents: Annotated[
        bool, typer.Option("--return-latents", help="Keep the latents as a blob, too; --json tells its id.")
    ] = False,
    refiner: Annotated[str, typer.Option(help="A refiner for the last steps (SDXL).", metavar="MODEL")] = "",
    refiner_start: Annotated[
        float | None, typer.Option(help="Share of the steps after which --refiner takes over, 0..1. [default: 0.8]")
    ] = None,
    hires: Annotated[
        float | None, typer.Option(help="A second pass, so many times larger, 1..4.", metavar="SCALE")
    ] = None,
    hires_strength: Annotated[
        float | None, typer.Option(help="How much of the enlarged picture is made anew, 0..1. [default: 0.5]")
    ] = None,
    hires_steps: Annotated[int | None, typer.Option(help="Steps of the second pass. [default: as --steps]")] = None,
    hires_by: Annotated[
        Literal["latents", "pixels"] | None, typer.Option(help="What is enlarged. [default: latents]")
    ] = None,
    hires_upscaler: Annotated[
        str, typer.Option(help="An upscaler model that enlarges the pixels for the second pass.", metavar="MODEL")
    ] = "",
    detail: Annotated[
        list[str] | None,
        typer.Option(help="A detector whose finds (faces) are made anew; may be repeated.", metavar="MODEL"),
    ] = None,
    detail_prompt: Annotated[str, typer.Option(help="What to draw there. [default: the prompt]")] = "",
    detail_strength: Annotated[
        float | None, typer.Option(help="How much of a find is made anew, 0..1. [default: 0.4]")
    ] = None,
    detail_steps: Annotated[int | None, typer.Option(help="Steps of a find. [default: as --steps]")] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(help="A part from another model, vae=MODEL; may be repeated.", metavar="PART=MODEL"),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A part to leave out: text_encoder_3 is T5 of SD3.", metavar="PART"),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(help="A LoRA's id, or ID=WEIGHT; may be repeated.", metavar="MODEL[=WEIGHT]"),
    ] = None,
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
    device: Annotated[str, typer.Option(help="Run on this device. [default: any]")] = "",
    session: Annotated[str, typer.Option(help="The session that the job belongs to.")] = "",
    priority: Annotated[
        Literal["low", "normal", "high", "critical"] | None, typer.Option(help="How urgent it is. [default: normal]")
    ] = None,
    run_timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds that the job may run. [default: as long as it takes]")
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Print the job's id and return; `watch ID --out FILE` gets the pictures."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    inline: Annotated[bool, typer.Option(help="Show the picture in the terminal, where that can.")] = True,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Make pictures from a prompt, on a running server or on one that is started for it.

    Ctrl-C cancels the job and tells what the server proves about its stop. A terminal that closes does not: the command
    goes on, and so does the job if the command is cut off; `deviceops watch ID --out FILE` comes back to it.
    """
    must_be_text(PROMPT=prompt, **{"--negative": negative})
    if detach and (previews is not None or preview_every is not None):
        raise CliError("--detach waits for no previews; `deviceops watch ID --previews DIR` shows them", USAGE)
    if variation is None and variation_seed is not None:
        raise CliError("--variation-seed needs --variation, which says how far to go to it", USAGE)
    if image is None and not latents and (strength is not None or fit is not None):
        raise CliError("--strength and --fit are about a picture to start from; give one with --image FILE", USAGE)
    about_mask = (mask_blur, mask_dilation, mask_invert, mask_blend, mask_fill, zoom_to_mask, zoom_padding)
    if mask is None and any(one not in (None, False, 0) for one in about_mask):
        raise CliError("flags of a mask say how it counts; give one with --mask FILE", USAGE)
    if outpaint is not None and image is None:
        raise CliError("--outpaint grows a picture; give it with --image FILE", USAGE)
    if outpaint is None and (outpaint_overlap is not None or outpaint_fill is not None):
        raise CliError("--outpaint-overlap and --outpaint-fill say how a picture grows; give --outpaint L T R B", USAGE)
    if mask is not None and image is None:
        raise CliError("--mask is a part of a picture; give that picture with --image FILE", USAGE)
    if refiner_start is not None and not refiner:
        raise CliError("--refiner-start says when a refiner takes over; name it with --refiner MODEL", USAGE)
    media_type = media_type_of(format_name, out)
    files = targets(prompt, out, count, media_type, force)
    folder = _preview_folder(previews, preview_every, files[0], force)
    wish = Wish(
        prompt=prompt,
        negative=negative,
        syntax=syntax or "",
        long_prompt=long_prompt or "",
        clip_skip=clip_skip,
        model=model,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        sigma_schedule=schedule,
        seed=seed,
        variation_seed=variation_seed,
        variation=variation,
        distilled_guidance=distilled_guidance,
        image_guidance=image_guidance,
        references=tuple(reference or ()),
        guidance_rescale=guidance_rescale,
        first_step=first_step,
        last_step=last_step,
        count=count,
        width=width,
        height=height,
        image=image,
        strength=strength,
        fit=fit or "",
        mask=mask,
        mask_blur=mask_blur,
        mask_dilation=mask_dilation,
        mask_invert=mask_invert,
        mask_blend=mask_blend or "",
        mask_fill=mask_fill or "",
        zoom=zoom_to_mask,
        zoom_padding=zoom_padding,
        seamless_x=seamless_x,
        seamless_y=seamless_y,
        outpaint=outpaint,
        outpaint_overlap=outpaint_overlap,
        outpaint_fill=outpaint_fill or "",
        controls=controls_of(
            control or (), control_from or (), control_weight or (), control_fit or "", control_type or ()
        ),
        regions=regions_of(region or (), region_weight or ()),
        image_prompts=image_prompts_of(image_prompt or (), image_prompt_weight or (), image_prompt_mode or ""),
        media_type=media_type,
        quality=quality,
        manifest=manifest,
        provenance=provenance,
        latents=latents,
        return_latents=return_latents,
        refiner=refiner,
        refiner_start=refiner_start,
        hires=hires_of(hires, hires_strength, hires_steps, hires_by, hires_upscaler),
        details=details_of(detail or (), detail_prompt, detail_strength, detail_steps),
        components=components_of(component or (), without or ()),
        loras=loras_of(lora or ()),
        preview_every=(preview_every or _PREVIEW_EVERY) if folder else 0,
        device=device,
        session=session,
        priority=priority or "",
        run_timeout_s=run_timeout,
    )
    plan = Plan(wish=wish, files=files, force=force, previews=folder, inline=inline and not json, json=json)
    if detach:
        return submit(plan, address)
    if generate_pictures(plan, address):
        raise typer.Exit(INTERRUPTED)
    return None


def _preview_folder(previews: Path | None, every: int | None, first: Path, force: bool) -> Path | None:
    if previews is None and every is None:
        return None
    return preview_folder(previews or first.with_name(f"{first.stem}-previews"), force)
