"""Makes every choice that a generation left open."""

import secrets

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference import limits
from domains.inference.check import check
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.schedulers import SCHEDULERS
from domains.model.model import Model, ModelState


def resolve(asked: Generation, model: Model) -> ResolvedGeneration:
    """What will run. Raises what is wrong with the request (all of it at once), or with the model for it."""
    check(asked)
    usable(model)
    sampling = asked.sampling
    scheduler = sampling.scheduler or model.default_scheduler or "euler"
    karras = bool(sampling.karras_sigmas)
    if karras and not SCHEDULERS[scheduler].karras:
        message = f"the model's own scheduler {scheduler} has no sigmas to space; name another scheduler"
        raise InvalidRequest([Violation(field="generation.sampling.karras_sigmas", message=message)])
    width_px, height_px = _size(asked, model)
    return ResolvedGeneration(
        model_id=model.id,
        model_sha256=model.sha256,
        family=model.family,
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        width_px=width_px,
        height_px=height_px,
        scheduler=scheduler,
        steps=sampling.steps or SCHEDULERS[scheduler].recommended_steps,
        guidance_scale=limits.DEFAULT_GUIDANCE if sampling.guidance_scale is None else sampling.guidance_scale,
        eta=sampling.eta or 0.0,
        karras_sigmas=karras,
        seeds=seeds(sampling.seed, asked.image_count),
        output=asked.output,
        previews=asked.previews,
    )


def _size(asked: Generation, model: Model) -> tuple[int, int]:
    """As asked, or the model's own; its files may say nothing of that, or what no picture can have."""
    if asked.width_px and asked.height_px:
        return asked.width_px, asked.height_px
    size = model.native_width_px, model.native_height_px
    (low, high), multiple = limits.EDGE_PX, limits.EDGE_MULTIPLE_PX
    if all(low <= edge <= high and edge % multiple == 0 for edge in size):
        return size
    own = f"has the native size {size[0]}×{size[1]}, which cannot be made" if any(size) else "does not say its size"
    text = f"model {model.id} {own}; give width_px and height_px"
    violations = [
        Violation(field=f"generation.{name}", message=text, allowed=f"{low}..{high}")
        for name in ("width_px", "height_px")
    ]
    raise InvalidRequest(violations, ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)


def seeds(first: int | None, count: int) -> tuple[int, ...]:
    """One seed a picture: consecutive from the first, round the end of the range. None: drawn, at most 2**32 so that
    people can type it."""
    start = secrets.randbelow(2**32) if first is None else first
    return tuple((start + index) % (limits.SEED[1] + 1) for index in range(count))


def usable(model: Model) -> None:
    """Raise why a model cannot run, in the words of its last scan."""
    facts = {"model_id": model.id}
    match model.state:
        case ModelState.AVAILABLE:
            return
        case ModelState.CORRUPT:
            message = f"the files of model {model.id} are damaged: {model.problem}; replace them and scan again"
            raise DataLoss(message, ErrorReason.MODEL_CORRUPT, **facts)
        case ModelState.MISSING:
            message = f"the files of model {model.id} are gone; put them back and scan again"
            raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, **facts)
        case ModelState.INCOMPATIBLE:
            message = f"model {model.id} cannot be used: {model.problem}"
            raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
