"""Which kinds of guidance a model reads, and what it takes by itself."""

from domains.model.families import FAMILIES
from domains.model.model import Model


def default_guidance(model: Model) -> float:
    """Classifier-free guidance of a request that names none."""
    family = FAMILIES[model.family]
    variant = family.variant(model.variant)
    return family.default_guidance if variant is None or variant.guidance is None else variant.guidance


def default_distilled(model: Model) -> float | None:
    """Embedded guidance of a request that names none. None: the model reads none."""
    family = FAMILIES[model.family]
    variant = family.variant(model.variant)
    if variant is None:
        return family.distilled_guidance
    if not variant.reads_distilled:
        return None
    return family.distilled_guidance if variant.distilled_guidance is None else variant.distilled_guidance
