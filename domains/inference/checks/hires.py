"""Finds the faults of the second pass at a larger size, and makes its choices."""

from collections.abc import Iterator

from msgspec.structs import replace

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation, excerpt
from domains.inference import limits
from domains.inference.checks.bounds import within
from domains.inference.fields import FIELDS
from domains.inference.generation import Generation, ResolvedGeneration, Sampling
from domains.inference.hires import DEFAULT_SCALE, DEFAULT_STRENGTH, HiresPass, ResolvedHires
from domains.inference.resampling import OF_LATENTS, Resampling
from domains.inference.samplers import schedule_of, schedules_for
from domains.model.families import FAMILIES
from domains.model.model import Model, ModelState

_PATH = "generation.hires_pass"
_EXCLUDES = {
    "mask": "keeps the pixels outside its mask, which no pass at another size can",
    "outpaint": "keeps the pixels of its old picture, which no pass at another size can",
}
"""What cannot be together with a second pass, and why."""


def hires_violations(asked: Generation) -> Iterator[Violation]:
    """Fields of the second pass that are wrong by themselves."""
    hires = asked.hires_pass
    if hires is None:
        return
    yield from within("hires_pass.scale", hires.scale)
    yield from within("hires_pass.strength", hires.strength)
    yield from within("hires_pass.steps", hires.steps)
    yield from within("hires_pass.guidance_scale", hires.guidance_scale)
    if hires.upscaler_model_id == "":
        yield Violation(field=f"{_PATH}.upscaler_model_id", message="must not be empty; name the upscaler")
    for name, edge in zip(("width_px", "height_px"), hires.size_px or (), strict=False):
        yield from _edge(f"hires_pass.size.{name}", edge)
    for name in ("sampler", "sigma_schedule"):
        allowed, value = FIELDS[f"sampling.{name}"].allowed, getattr(hires, name)
        if value and value not in allowed:
            known = ", ".join(allowed)
            text = f"there is no {name.replace('_', ' ')} {excerpt(value)!r}; known: {known}"
            yield Violation(field=f"{_PATH}.{name}", message=text, allowed=known)
    for name in ("prompt", "negative_prompt"):
        size = len(getattr(hires, name).encode())
        if size > limits.PROMPT_BYTES:
            text = f"has {size} bytes; a prompt has at most {limits.PROMPT_BYTES}"
            yield Violation(field=f"{_PATH}.{name}", message=text, allowed=f"0..{limits.PROMPT_BYTES} bytes")


def _edge(path: str, edge: int) -> Iterator[Violation]:
    outside = list(within(path, edge))
    yield from outside
    multiple = limits.EDGE_MULTIPLE_PX
    if not outside and edge % multiple:
        text = f"{edge} is no multiple of {multiple}; {edge - edge % multiple} is"
        yield Violation(field=f"generation.{path}", message=text, allowed=limits.EDGES)


def hires_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that a second pass excludes."""
    if asked.hires_pass is None:
        return
    for name, why in _EXCLUDES.items():
        if getattr(asked, name):
            text = f"{why}; leave `{name}` or the second pass out"
            yield Violation(field=_PATH, message=text)
    if asked.hires_pass.upscaler_model_id and (asked.seamless_x or asked.seamless_y):
        text = (
            "sees an edge where the picture goes on at the other side; take a filter, or leave the seamless edges out"
        )
        yield Violation(field=f"{_PATH}.upscaler_model_id", message=text)
    if asked.sampling.part.last_step is not None:
        text = "leaves noise in what the second pass enlarges; leave `last_step` or the second pass out"
        yield Violation(field=_PATH, message=text)


def sampling_of(hires: HiresPass, sampling: Sampling) -> Sampling:
    """The sampling of the second pass, as requested."""
    own = hires.sampler or hires.sigma_schedule or hires.steps
    return replace(
        sampling,
        sampler=hires.sampler or sampling.sampler,
        sigma_schedule=hires.sigma_schedule or ("" if hires.sampler else sampling.sigma_schedule),
        steps=hires.steps or sampling.steps,
        eta=None if hires.sampler else sampling.eta,
        own=replace(sampling.own, sigmas=(), timesteps=()) if own else sampling.own,
    )


def hires_size(asked: HiresPass, size: tuple[int, int], model: Model) -> tuple[int, int]:
    """The size of the second pass. Raises INVALID_FIELD if it is too large or smaller than the first pass, and
    UNSUPPORTED_COMBINATION if the family does not make it."""
    multiple = max(limits.EDGE_MULTIPLE_PX, FAMILIES[model.family].alignment_px)
    scale = DEFAULT_SCALE if asked.scale is None else asked.scale
    width, height = asked.size_px or (_rounded(edge * scale, multiple) for edge in size)
    told, (_, high) = f"the second pass has {width}×{height} pixels", limits.EDGE_PX
    field = f"{_PATH}.size" if asked.size_px else f"{_PATH}.scale"
    text, reason = "", None
    if max(width, height) > high:
        text = f"{told}; an edge has at most {high}"
    elif width < size[0] or height < size[1]:
        text = f"{told}, and the first one {size[0]}×{size[1]}; a second pass does not make it smaller"
    elif width % multiple or height % multiple:
        text, reason = f"{told}, and {model.family} needs multiples of {multiple}", ErrorReason.UNSUPPORTED_COMBINATION
    if text:
        raise InvalidRequest([Violation(field=field, message=text, allowed=limits.EDGES)], reason, model_id=model.id)
    return width, height


def _rounded(edge: float, multiple: int) -> int:
    return max(multiple, round(edge / multiple) * multiple)


def check_model(own: Model, base: Model) -> None:
    """Raise MODEL_INCOMPATIBLE if the model cannot denoise the base's latents, and the scan's fault if it is unusable."""
    if own.state is not ModelState.AVAILABLE:
        message = (
            f"model {own.id} of the second pass cannot be used: {own.problem}; scan again when its files are whole"
        )
        raise FailedPrecondition(message, own.fault, model_id=own.id)
    if own.kind is base.kind and (own.family, own.variant) == (base.family, base.variant):
        return
    if own.kind is base.kind:
        said = f"is of {_told(own)}, and model {base.id} of {_told(base)}; name one that fits"
    else:
        said = f"is a {str(own.kind).replace('_', ' ')} and no {base.kind}; name one"
    message = f"model {own.id} of the second pass {said} in `generation.hires_pass.model_id`"
    facts = {"hires_model_id": own.id, "model_id": base.id, "family": base.family}
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)


def _told(model: Model) -> str:
    return f"{model.family}{model.variant and f' ({model.variant})'}"


def resolved_hires(
    asked: Generation,
    first: ResolvedGeneration,
    model: Model,
    steps: int,
    eta: float | None,
    own: Model | None = None,
    upscaler: Model | None = None,
) -> ResolvedHires | None:
    """The second pass with every choice made. `first`: the first pass. `model`: of the second one. `steps`, `eta`: of its
    sampler. `own`, `upscaler`: the models that it names, with their hashes; None: it names none."""
    hires = asked.hires_pass
    if hires is None:
        return None
    width_px, height_px = hires_size(hires, (first.width_px, first.height_px), model)
    as_first = not (hires.sampler or hires.sigma_schedule or hires.steps)
    sampler = hires.sampler or first.sampler
    takes = schedules_for(sampler, flow=model.flow)
    kept = first.sigma_schedule if first.sigma_schedule in takes else schedule_of(model, sampler)
    return ResolvedHires(
        width_px=width_px,
        height_px=height_px,
        filter=_filter(hires),
        of_pixels=hires.pixel_filter is not None or upscaler is not None,
        upscaler_model_id="" if upscaler is None else upscaler.id,
        upscaler_sha256="" if upscaler is None else upscaler.sha256,
        strength=DEFAULT_STRENGTH if hires.strength is None else hires.strength,
        steps=first.steps if as_first else steps,
        sampler=sampler,
        sigma_schedule=first.sigma_schedule if as_first else hires.sigma_schedule or kept,
        guidance_scale=first.guidance_scale if hires.guidance_scale is None else hires.guidance_scale,
        eta=first.eta if sampler == first.sampler else eta,
        prompt=hires.prompt,
        negative_prompt=hires.negative_prompt,
        model_id="" if own is None else own.id,
        model_sha256="" if own is None else own.sha256,
    )


def _filter(hires: HiresPass) -> Resampling:
    if hires.upscaler_model_id:
        return Resampling.LANCZOS
    return hires.pixel_filter or hires.latent_filter or OF_LATENTS[0]
