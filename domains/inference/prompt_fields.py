"""The prompts of a generation with the fields that they come from."""

from domains.inference.generation import ResolvedGeneration
from domains.inference.prompts import FieldPrompt
from domains.model.families import FAMILIES


def prompts_of(resolved: ResolvedGeneration) -> tuple[FieldPrompt, ...]:
    """Each prompt that the text encoders read; the negative one only where guidance makes use of it."""
    found = [FieldPrompt(fields=_fields("", resolved), prompt=resolved.positive)]
    found += [
        FieldPrompt(fields=(f"blended_prompts[{place}].prompt",), prompt=prompt)
        for place, (prompt, _) in enumerate(resolved.blended)
    ]
    if FAMILIES[resolved.family].reads_negative(resolved.guidance_scale):
        found.append(FieldPrompt(fields=_fields("negative_", resolved), prompt=resolved.negative))
    return tuple(found)


def _fields(kind: str, resolved: ResolvedGeneration) -> tuple[str, ...]:
    """The field for each encoder: an empty one stands for the first."""
    first = f"{kind}prompt"
    others = (f"{number}_{kind}prompt" for number in ("second", "third"))
    return (first, *(name if getattr(resolved, name) else first for name in others))
