"""Finds the faults of the components that a generation takes from elsewhere, as far as they do not depend on models."""

from collections.abc import Iterator, Sequence

from domains.errors import Violation, excerpt
from domains.inference import limits
from domains.inference.components import ComponentSource
from domains.inference.generation import Generation


def component_violations(asked: Generation) -> Iterator[Violation]:
    """Every fault of its components."""
    yield from source_violations(asked.components, "generation.components")


def source_violations(given: Sequence[ComponentSource], path: str) -> Iterator[Violation]:
    """Every fault of a list of components. `path`: of the list in the request."""
    if len(given) > limits.COMPONENTS:
        message = f"has {len(given)} entries; a request names at most {limits.COMPONENTS}"
        yield Violation(field=path, message=message, allowed=f"0..{limits.COMPONENTS} entries")
    named = {""}
    for place, one in enumerate(given):
        if one.component_id in named:
            field = f"{path}[{place}].component_id"
            yield Violation(field=field, message="must name a component, and each one once")
        named.add(one.component_id)


def component_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that exclude each other."""
    yield from source_exclusions(asked.components, "generation.components")
    if asked.components and asked.loaded_model_id:
        message = "a loaded model is used with the components that it has; name the model with model_id instead"
        yield Violation(field="generation.components", message=message)


def source_exclusions(given: Sequence[ComponentSource], path: str) -> Iterator[Violation]:
    """Fields of components that exclude each other. `path`: of the list in the request."""
    for place, one in enumerate(given):
        if one.omitted and one.model_id:
            message = (
                f"{excerpt(one.component_id)} is left out or comes from a model, not both; leave one of the two empty"
            )
            yield Violation(field=f"{path}[{place}].omitted", message=message)
