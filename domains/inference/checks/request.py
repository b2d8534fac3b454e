"""Finds every fault in a generation at once, each with its field and the allowed values."""

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from domains.errors import ErrorReason, InvalidRequest, Violation, excerpt
from domains.inference import limits
from domains.inference.checks.adapters import adapter_violations
from domains.inference.checks.bounds import within
from domains.inference.checks.components import component_exclusions, component_violations
from domains.inference.checks.controls import control_exclusions, control_violations
from domains.inference.checks.details import detail_exclusions, detail_violations
from domains.inference.checks.guidance import guidance_for_model, guidance_violations
from domains.inference.checks.hires import hires_exclusions, hires_violations
from domains.inference.checks.image_prompts import image_prompt_violations
from domains.inference.checks.latents import latent_exclusions, latent_violations
from domains.inference.checks.masks import mask_exclusions, mask_violations
from domains.inference.checks.outpaint import outpaint_exclusions, outpaint_violations
from domains.inference.checks.references import reference_exclusions, reference_violations
from domains.inference.checks.refiner import refiner_exclusions, refiner_violations
from domains.inference.checks.regions import region_exclusions, region_violations
from domains.inference.checks.sizes import size_violations, sizes_for_family
from domains.inference.checks.steps import step_exclusions, step_violations
from domains.inference.checks.variation import variation_violations
from domains.inference.checks.walk import levels_together, walk_for_model, walk_for_sampler, walk_violations
from domains.inference.family_fields import unread
from domains.inference.fields import FIELDS, SECOND, THIRD
from domains.inference.generation import EncodeOptions, Generation, ManifestDetail, Previews, Sampling
from domains.inference.prompts import LongPrompt, Syntax
from domains.inference.samplers import SAMPLERS, schedules_for, walkers_of
from domains.model.families import Family
from domains.model.model import Model

_LACKS = {
    "controls": "ControlNets that this server computes",
    "image_prompts": "IP-Adapters that this server computes",
    "regions": "cross-attention by which parts of a picture could read prompts of their own",
}
"""By field: what a family lacks if it does not read the field."""
_LEAST_SHARES = 0.01
"""Smallest sum of the weights of blended prompts, which are divided by it."""


class Wrong(NamedTuple):
    """Faults of a generation that do not depend on the model; `resolve` checks the others."""

    alone: tuple[Violation, ...]
    """Fields that are wrong by themselves."""
    together: tuple[Violation, ...]
    """Fields that exclude each other."""

    def error(self) -> InvalidRequest | None:
        """INVALID_FIELD if a field is wrong by itself, else UNSUPPORTED_COMBINATION. None: nothing is wrong."""
        if not self.alone and not self.together:
            return None
        reason = None if self.alone else ErrorReason.UNSUPPORTED_COMBINATION
        return InvalidRequest([*self.alone, *self.together], reason)


class Checked(NamedTuple):
    """A generation with its faults, which are computed once."""

    asked: Generation
    wrong: Wrong


def checked(asked: Generation) -> Checked:
    """Check a generation."""
    return Checked(asked, violations(asked))


def violations(asked: Generation) -> Wrong:
    """Every fault of a generation."""
    parts = (_prompt(asked), _size(asked), _sampling(asked.sampling), _init_image(asked), adapter_violations(asked))
    of_pictures = (
        *(*mask_violations(asked), *outpaint_violations(asked)),
        *(*control_violations(asked), *image_prompt_violations(asked), *region_violations(asked)),
        *reference_violations(asked),
    )
    alone = (
        *chain.from_iterable(parts),
        *of_pictures,
        *size_violations(asked.size_conditioning),
        *component_violations(asked),
        *hires_violations(asked),
        *detail_violations(asked),
        *latent_violations(asked),
        *refiner_violations(asked),
        *_output(asked),
    )
    exclusions = (
        *mask_exclusions(asked),
        *outpaint_exclusions(asked),
        *control_exclusions(asked),
        *component_exclusions(asked),
        *step_exclusions(asked),
        *hires_exclusions(asked),
        *detail_exclusions(asked),
        *latent_exclusions(asked),
        *region_exclusions(asked),
        *refiner_exclusions(asked),
        *reference_exclusions(asked),
    )
    return Wrong(alone, (*_together(asked), *exclusions))


def for_sampler(sampler: str, asked: Sampling) -> Iterator[Violation]:
    """Requested values that the sampler does not take."""
    entry = SAMPLERS[sampler]
    schedule, takes = asked.sigma_schedule, ", ".join(entry.sigma_schedules)
    if schedule in FIELDS["sampling.sigma_schedule"].allowed and schedule not in entry.sigma_schedules:
        text = f"{sampler} does not take the sigma schedule {schedule}; it takes: {takes}"
        yield Violation(field="generation.sampling.sigma_schedule", message=text, allowed=takes)
    if asked.eta and not entry.eta:
        able = ", ".join(name for name, one in SAMPLERS.items() if one.eta)
        text = f"{sampler} does not read eta; leave it absent or 0, or take one that does: {able}"
        yield Violation(field="generation.sampling.eta", message=text, allowed="0")
    yield from walk_for_sampler(sampler, asked)


def for_model(sampler: str, asked: Sampling, model: Model) -> Iterator[Violation]:
    """Requested values that the sampler does not take with such a model."""
    takes = schedules_for(sampler, flow=model.flow)
    if not takes:
        able = ", ".join(walkers_of(flow=model.flow))
        text = f"{sampler} does not walk models of the family {model.family}; these do: {able}"
        yield Violation(field="generation.sampling.sampler", message=text, allowed=able)
    elif asked.sigma_schedule in SAMPLERS[sampler].sigma_schedules and asked.sigma_schedule not in takes:
        known = ", ".join(takes)
        text = f"{sampler} does not take the sigma schedule {asked.sigma_schedule} with models of the family"
        text = f"{text} {model.family}; it takes: {known}"
        yield Violation(field="generation.sampling.sigma_schedule", message=text, allowed=known)
    yield from walk_for_model(asked, model)
    yield from guidance_for_model(asked, model)


def for_family(asked: Generation, family: Family) -> Iterator[Violation]:
    """Ways to read prompts that models of a family do not have."""
    given = {
        **{name: bool(getattr(asked, name)) for name in (*SECOND, *THIRD)},
        "clip_skip": bool(asked.clip_skip),
        "blended_prompts.prompt": bool(asked.blended_prompts),
        "controls.model_id": bool(asked.controls),
        "image_prompts.model_id": bool(asked.image_prompts),
        "regions.prompt": bool(asked.regions),
    }
    yield from sizes_for_family(asked.size_conditioning, family)
    for path in sorted(unread(family)):
        if given.get(path):
            name = path.removesuffix(".prompt").removesuffix(".model_id")
            lacks = _LACKS.get(name, "text encoder that reads it")
            text = f"models of the family {family.id} have no {lacks}; leave it out"
            yield Violation(field=f"generation.{name}", message=text)
    if not family.reads_windows and asked.prompt_syntax is not Syntax.PLAIN:
        text = f"models of the family {family.id} read prompts as plain text"
        yield Violation(field="generation.prompt_syntax", message=text, allowed="PROMPT_SYNTAX_PLAIN")
    if not family.reads_windows and asked.long_prompt is LongPrompt.CHUNK:
        text = f"models of the family {family.id} read one window; truncate a longer prompt, or refuse it"
        allowed = "LONG_PROMPT_TRUNCATE, LONG_PROMPT_REFUSE"
        yield Violation(field="generation.long_prompt", message=text, allowed=allowed)


def _prompt(asked: Generation) -> Iterator[Violation]:
    for name in ("prompt", "negative_prompt", *SECOND, *THIRD):
        yield from _text(f"generation.{name}", getattr(asked, name))
    yield from within("clip_skip", asked.clip_skip)
    if len(asked.blended_prompts) > limits.BLENDED_PROMPTS:
        message = f"has {len(asked.blended_prompts)} prompts; at most {limits.BLENDED_PROMPTS} blend with the main one"
        yield Violation(
            field="generation.blended_prompts", message=message, allowed=f"0..{limits.BLENDED_PROMPTS} entries"
        )
    shares = [1.0]
    for place, one in enumerate(asked.blended_prompts):
        path = f"generation.blended_prompts[{place}]"
        yield from _text(f"{path}.prompt", one.prompt)
        yield from within("blended_prompts.weight", one.weight, f"{path}.weight")
        shares.append(1.0 if one.weight is None else one.weight)
    if abs(sum(shares)) < _LEAST_SHARES:
        message = "the weights, and the 1 of `prompt`, add up to nothing; change one, so that their sum is not 0"
        yield Violation(field="generation.blended_prompts", message=message)


def _text(field: str, text: str) -> Iterator[Violation]:
    size = len(text.encode())
    if size > limits.PROMPT_BYTES:
        message = f"has {size} bytes; a prompt has at most {limits.PROMPT_BYTES}"
        yield Violation(field=field, message=message, allowed=f"0..{limits.PROMPT_BYTES} bytes")


def _size(asked: Generation) -> Iterator[Violation]:
    edges = (("width_px", asked.width_px), ("height_px", asked.height_px))
    for field, edge in edges:
        low, high = limits.EDGE_PX
        if edge is not None and not low <= edge <= high:
            message = f"{edge} is not within {low}..{high}"
            yield Violation(field=f"generation.{field}", message=message, allowed=limits.EDGES)
        elif edge is not None and (beyond := edge % limits.EDGE_MULTIPLE_PX):
            below = edge - beyond
            message = (
                f"{edge} is no multiple of {limits.EDGE_MULTIPLE_PX}; {below} or {below + limits.EDGE_MULTIPLE_PX} is"
            )
            yield Violation(field=f"generation.{field}", message=message, allowed=limits.EDGES)
    if (asked.width_px is None) != (asked.height_px is None):
        message = "give both width and height, or neither for the model's native size"
        yield Violation(
            field="generation.height_px" if asked.height_px is None else "generation.width_px", message=message
        )
    yield from within("image_count", asked.image_count)


def _sampling(sampling: Sampling) -> Iterator[Violation]:
    for name in ("steps", "guidance_scale", "eta"):
        yield from within(f"sampling.{name}", getattr(sampling, name))
    yield from within("sampling.seed", sampling.seed, advice=_SEED_ADVICE)
    yield from variation_violations(sampling.seed_variation)
    yield from guidance_violations(sampling)
    for index, seed in enumerate(sampling.seeds):
        yield from within("sampling.seed", seed, f"generation.sampling.seeds[{index}]", _SEED_ADVICE)
    yield from within("sampling.seeds", len(sampling.seeds))
    yield from _known("sampling.sampler", sampling.sampler, "sampler")
    yield from _known("sampling.sigma_schedule", sampling.sigma_schedule, "sigma schedule")
    yield from walk_violations(sampling)
    yield from step_violations(sampling.part)


def _init_image(asked: Generation) -> Iterator[Violation]:
    init = asked.init_image
    if init is None:
        return
    if not (init.blob_id or init.data):
        message = "must be set: give the file in `data`, or a blob that holds it in `blob_id`"
        yield Violation(field="generation.init_image.image", message=message)
    yield from within("init_image.strength", init.strength)
    if init.fit is not None and init.fit not in limits.FITS:
        able = ", ".join(FIELDS["init_image.fit"].allowed)
        message = "the result has exactly the size that is asked for, which a contained picture may not have"
        yield Violation(field="generation.init_image.fit", message=f"{message}; known: {able}", allowed=able)


def _together(asked: Generation) -> Iterator[Violation]:
    sampling, output = asked.sampling, asked.output
    if sampling.sampler in SAMPLERS:
        yield from for_sampler(sampling.sampler, sampling)
    yield from levels_together(sampling)
    if sampling.seeds and sampling.seed is not None:
        text = "one seed a picture and a first seed exclude each other; leave `seed` or `seeds` empty"
        yield Violation(field="generation.sampling.seeds", message=text)
    if sampling.seeds and asked.image_count not in (None, len(sampling.seeds)):
        text = (
            f"has {len(sampling.seeds)} seeds for {asked.image_count} pictures; leave image_count 0, or make them equal"
        )
        yield Violation(field="generation.sampling.seeds", message=text)
    if output.a1111_parameters and output.manifest is not ManifestDetail.FULL:
        text = "the text holds the prompts, which this manifest leaves out; ask for a full manifest, or leave it out"
        yield Violation(field="generation.output.a1111_parameters", message=text)


def _output(asked: Generation) -> Iterator[Violation]:
    output = asked.output
    yield from _known("output.media_type", output.media_type, "format to write")
    if output.media_type in limits.MEDIA_TYPES:
        yield from _depth(output)
    yield from _quality(output)
    yield from _parameters(asked)
    yield from preview_violations(asked.previews, "generation.previews")


def _quality(output: EncodeOptions) -> Iterator[Violation]:
    if output.lossless and output.media_type == "image/jpeg":
        able = ", ".join(limits.LOSSLESS)
        message = f"JPEG cannot keep every pixel; these can: {able}"
        yield Violation(field="generation.output.lossless", message=message, allowed=able)
    if output.quality is not None and (output.lossless or output.media_type == "image/png"):
        what = "PNG is lossless" if output.media_type == "image/png" else "a lossless picture keeps every pixel"
        message = f"{what} and has no quality; leave it absent, or ask for a lossy image/jpeg or image/webp"
        yield Violation(field="generation.output.quality", message=message)
    else:
        yield from within("output.quality", output.quality)


def preview_violations(previews: Previews, path: str) -> Iterator[Violation]:
    """Faults of previews; `path` is their place in the request."""
    for name, value in (("every_steps", previews.every_steps), ("max_edge_px", previews.max_edge_px)):
        yield from within(f"previews.{name}", value, f"{path}.{name}")


def _depth(output: EncodeOptions) -> Iterator[Violation]:
    depths = limits.BIT_DEPTHS.get(output.media_type, (0,))
    if output.bit_depth not in depths:
        allowed = ", ".join(str(depth) for depth in depths)
        message = f"{output.media_type} has no depth of {output.bit_depth} bits a colour; known (0: 8): {allowed}"
        yield Violation(field="generation.output.bit_depth", message=message, allowed=allowed)


def _parameters(asked: Generation) -> Iterator[Violation]:
    size = len((asked.prompt + asked.negative_prompt).encode("utf-16-le"))
    output, limit = asked.output, limits.JPEG_PARAMETERS_BYTES
    if output.a1111_parameters and output.media_type == "image/jpeg" and size > limit:
        message = f"the prompts have {size} bytes as UTF-16, and JPEG holds {limit}; ask for image/png or image/webp"
        yield Violation(field="generation.output.a1111_parameters", message=message)


def _known(path: str, value: str, what: str) -> Iterator[Violation]:
    """Refuse a name that is not empty and not one of the field's."""
    allowed = FIELDS[path].allowed
    if value and value not in allowed:
        known = ", ".join(allowed)
        text = f"there is no {what} {excerpt(value)!r}; known: {known}"
        yield Violation(field=f"generation.{path}", message=text, allowed=known)


_SEED_ADVICE = "; leave it out for one that the server draws and tells"
"""Other programs take -1 for a drawn seed, so requests contain it."""
