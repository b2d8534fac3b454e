"""A generation that continues from the checkpoint of another one, with a request of its own."""

from collections.abc import Iterator
from operator import attrgetter

from msgspec.structs import replace

from domains.errors import InvalidRequest, Violation
from domains.inference.checks.request import Checked, checked
from domains.inference.generation import Generation, ResolvedGeneration, Sampling
from domains.inference.own_walk import AS_THE_MODEL, OwnWalk
from domains.inference.seed_variation import ResolvedSeedVariation, SeedVariation
from domains.inference.step_range import ALL_STEPS, StepRange

_SAME = {
    "model_id": "model_id",
    "model_sha256": "model_id",
    "width_px": "width_px",
    "height_px": "height_px",
    "seeds": "sampling.seeds",
    "seed_variation": "sampling.seed_variation",
    "sampler": "sampling.sampler",
    "sigma_schedule": "sampling.sigma_schedule",
    "steps": "sampling.steps",
    "eta": "sampling.eta",
    **{f"own.{name}": f"sampling.{name}" for name in OwnWalk.__struct_fields__},
    **{f"part.{name}": f"sampling.{name}" for name in StepRange.__struct_fields__},
    "components": "components",
    "hires_pass": "hires_pass",
    "init_latents": "init_latents",
    "refiner": "refiner",
    "init_image": "init_image",
    "mask": "mask",
    "outpaint": "outpaint",
    "seamless_x": "seamless_x",
    "seamless_y": "seamless_y",
}
"""Resolved values that the latents of a checkpoint depend on, with the request's field of each."""


def filled(given: Checked, asked: Generation, resolved: ResolvedGeneration) -> Checked:
    """The request. Fields that it leaves open come from the continued generation (`asked` and `resolved`)."""
    own = given.asked
    sizeless = own.width_px is None and own.height_px is None
    named = own.model_id or own.loaded_model_id
    whole = replace(
        own,
        model_id=own.model_id if named else resolved.model_id,
        width_px=resolved.before_px[0] if sizeless else own.width_px,
        height_px=resolved.before_px[1] if sizeless else own.height_px,
        sampling=_sampling(own.sampling, resolved),
        refiner=own.refiner or asked.refiner,
        init_latents=own.init_latents or asked.init_latents,
        hires_pass=own.hires_pass or asked.hires_pass,
        detail_passes=own.detail_passes or asked.detail_passes,
        components=own.components or (() if named else asked.components),
        init_image=own.init_image or asked.init_image,
        mask=own.mask or asked.mask,
        outpaint=own.outpaint or asked.outpaint,
        references=own.references or asked.references,
        seamless_x=own.seamless_x or asked.seamless_x,
        seamless_y=own.seamless_y or asked.seamless_y,
    )
    return checked(whole)


def _sampling(own: Sampling, resolved: ResolvedGeneration) -> Sampling:
    seedless = own.seed is None and not own.seeds
    walk = resolved.own if own.own == AS_THE_MODEL else own.own
    return replace(
        own,
        own=walk,
        part=resolved.part if own.part == ALL_STEPS else own.part,
        sampler=own.sampler or resolved.sampler,
        sigma_schedule=own.sigma_schedule or ("" if walk.steps else resolved.sigma_schedule),
        steps=own.steps or (None if walk.steps else resolved.steps),
        eta=resolved.eta if own.eta is None else own.eta,
        guidance_scale=resolved.guidance_scale if own.guidance_scale is None else own.guidance_scale,
        seeds=resolved.seeds if seedless else own.seeds,
        distilled_guidance=resolved.distilled_guidance if own.distilled_guidance is None else own.distilled_guidance,
        image_guidance_scale=resolved.image_guidance_scale
        if own.image_guidance_scale is None
        else own.image_guidance_scale,
        guidance_rescale=_or(own.guidance_rescale, resolved.guidance_rescale, 0.0),
        guidance_start_ratio=_or(own.guidance_start_ratio, resolved.guidance_start_ratio, 0.0),
        guidance_end_ratio=_or(own.guidance_end_ratio, resolved.guidance_end_ratio, 1.0),
        seed_variation=own.seed_variation or _asked(resolved.seed_variation),
    )


def _or(own: float | None, theirs: float, default: float) -> float | None:
    """The branch's own value, else that of the continued generation. None: the default."""
    return (None if theirs == default else theirs) if own is None else own


def _asked(variation: ResolvedSeedVariation | None) -> SeedVariation | None:
    return None if variation is None else SeedVariation(seed=variation.seeds[0], strength=variation.strength)


def check_branch(branch: ResolvedGeneration, source: ResolvedGeneration, job_id: str) -> None:
    """Raise INVALID_FIELD, naming each field in which the branch may not differ from the job that it continues."""
    if wrong := list(_differing(branch, source, job_id)):
        raise InvalidRequest(wrong, continue_job_id=job_id)


def _differing(branch: ResolvedGeneration, source: ResolvedGeneration, job_id: str) -> Iterator[Violation]:
    named: set[str] = set()
    for name, field in _SAME.items():
        mine, theirs = map(attrgetter(name), (branch, source))
        if mine == theirs or field in named:
            continue
        named.add(field)
        what = "has other weights or another id" if field == "model_id" else f"is {_told(mine)} and was {_told(theirs)}"
        text = f"{what} in job {job_id}, whose latents are made with it; leave it out, or start from nothing"
        yield Violation(field=f"generation.{field}", message=text)


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value[:4])) + (" …" if len(value) > 4 else "")
    return str(value) if isinstance(value, str | int | float) else "another one" if value else "none"
