"""Finds the faults of the image prompts in a generation, as far as they do not depend on models or pictures."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference import limits
from domains.inference.checks.bounds import RATIOS, range_faults, within
from domains.inference.generation import Generation
from domains.inference.image_prompts import ImagePrompt


def image_prompt_violations(asked: Generation) -> Iterator[Violation]:
    """Every fault of its image prompts."""
    if len(asked.image_prompts) > limits.IMAGE_PROMPTS:
        message = f"has {len(asked.image_prompts)} IP-Adapters; at most {limits.IMAGE_PROMPTS} guide together"
        allowed = f"0..{limits.IMAGE_PROMPTS} entries"
        yield Violation(field="generation.image_prompts", message=message, allowed=allowed)
        return
    for place, prompt in enumerate(asked.image_prompts):
        yield from _prompt(prompt, f"generation.image_prompts[{place}]")


def _prompt(prompt: ImagePrompt, path: str) -> Iterator[Violation]:
    if not prompt.model_id:
        yield Violation(field=f"{path}.model_id", message="must not be empty; name the IP-Adapter")
    low, high = limits.PROMPT_IMAGES
    if not low <= len(prompt.images) <= high:
        message = f"has {len(prompt.images)} pictures; an IP-Adapter reads {low}..{high} at once"
        yield Violation(field=f"{path}.images", message=message, allowed=f"{low}..{high} entries")
        return
    for name, picture in prompt.pictures():
        if not picture.given:
            message = "must be set: give the file in `data`, or a blob that holds it in `blob_id`"
            yield Violation(field=f"{path}.{name}", message=message)
    yield from within("image_prompts.weight", prompt.weight, f"{path}.weight")
    yield from range_faults("image_prompts", path, RATIOS, (prompt.start_ratio, prompt.end_ratio), "the steps end")
