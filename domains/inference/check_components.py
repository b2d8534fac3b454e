"""Finds the faults of the components that a generation takes from elsewhere, as far as they do not depend on models."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference import limits
from domains.inference.generation import Generation


def component_violations(asked: Generation) -> Iterator[Violation]:
    """Every fault of its components."""
    given = asked.components
    if len(given) > limits.COMPONENTS:
        message = f"has {len(given)} entries; a request names at most {limits.COMPONENTS}"
        yield Violation(field="generation.components", message=message, allowed=f"0..{limits.COMPONENTS} entries")
    named = {""}
    for place, one in enumerate(given):
        if one.component_id in named:
            path = f"generation.components[{place}].component_id"
            yield Violation(field=path, message="must name a component, and each one once")
        named.add(one.component_id)


def component_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that exclude each other."""
    for place, one in enumerate(asked.components):
        if one.omitted and one.model_id:
            message = f"{one.component_id[:64]} is left out or comes from a model, not both; leave one of the two empty"
            yield Violation(field=f"generation.components[{place}].omitted", message=message)
    if asked.components and asked.loaded_model_id:
        message = "a loaded model is used with the components that it has; name the model with model_id instead"
        yield Violation(field="generation.components", message=message)
