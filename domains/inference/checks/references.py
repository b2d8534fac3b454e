"""Finds the faults of the pictures that a model sees beside the prompt."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference import limits
from domains.inference.checks.bounds import within
from domains.inference.generation import Generation
from domains.inference.resolution.references import default_image_guidance, references_of
from domains.model.model import Model

_PATH = "generation.reference_images"
_EXCLUDED = ("controls", "image_prompts", "regions", "refiner", "hires_pass")
"""Fields whose networks, rows or passes are made for models that read a prompt alone."""


def reference_violations(asked: Generation) -> Iterator[Violation]:
    """Every fault that does not depend on the model."""
    yield from within("sampling.image_guidance_scale", asked.sampling.image_guidance_scale)
    if len(asked.references) > limits.REFERENCES:
        message = f"has {len(asked.references)} pictures; at most {limits.REFERENCES} are seen"
        yield Violation(field=_PATH, message=message, allowed=f"0..{limits.REFERENCES} entries")
        return
    for place, one in enumerate(asked.references):
        if not one.image.given:
            message = "must be set: give the file in `data`, or a blob that holds it in `blob_id`"
            yield Violation(field=f"{_PATH}[{place}].image", message=message)
        if one.fit is not None and one.fit not in limits.FITS:
            able = ", ".join(f"IMAGE_FIT_{name.upper()}" for name in limits.FITS)
            message = f"the model takes whole sizes, which a contained picture may not have; known: {able}"
            yield Violation(field=f"{_PATH}[{place}].fit", message=message, allowed=able)


def reference_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that exclude pictures to see."""
    if not asked.references:
        return
    for name in _EXCLUDED:
        if getattr(asked, name):
            message = (
                f"are seen by models made for editing or for a map, which are not combined with {name}; leave one out"
            )
            yield Violation(field=_PATH, message=message)
    if asked.mask is not None and asked.mask.zoom_to_mask:
        message = "show the whole picture, and zoom_to_mask makes a part of it; leave one of the two out"
        yield Violation(field=_PATH, message=message)


def references_for_model(asked: Generation, model: Model) -> Iterator[Violation]:
    """More or fewer pictures than a model sees, and guidance by a picture that it does not see."""
    least, most = references_of(model)
    count = len(asked.references)
    if not least <= count <= most:
        span = f"{least}" if least == most else f"{least}..{most}"
        sees = (
            f"sees {span}" if most else "sees none beside the prompt; leave them out, or name a model made for editing"
        )
        text = f"has {count} pictures, and model {model.id} {sees}"
        yield Violation(field=_PATH, message=text, allowed=f"{span} entries")
    if asked.sampling.image_guidance_scale is not None and default_image_guidance(model) is None:
        text = f"model {model.id} has no guidance by a picture; leave it out"
        yield Violation(field="generation.sampling.image_guidance_scale", message=text)
