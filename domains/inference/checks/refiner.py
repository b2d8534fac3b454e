"""Finds the faults of a refiner, and makes its choices."""

from collections.abc import Iterator

from domains.errors import ErrorReason, FailedPrecondition, Violation
from domains.inference.checks.bounds import within
from domains.inference.generation import Generation
from domains.inference.refiner import DEFAULT_NEGATIVE_SCORE, DEFAULT_SCORE, DEFAULT_START, ResolvedRefiner
from domains.model.families import FAMILIES
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState

_PATH = "generation.refiner"

_EXCLUDES = {
    "mask": "knows no picture around a part",
    "outpaint": "knows no picture around a part",
    "regions": "reads one prompt for the whole picture",
}
"""What cannot be together with a refiner, and why."""


def refiner_violations(asked: Generation) -> Iterator[Violation]:
    """Fields that are wrong by themselves."""
    refiner = asked.refiner
    if refiner is None:
        return
    if not refiner.model_id:
        yield Violation(field=f"{_PATH}.model_id", message="must not be empty; name the refiner")
    for name in ("start_ratio", "aesthetic_score", "negative_aesthetic_score"):
        yield from within(f"refiner.{name}", getattr(refiner, name))


def refiner_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that a refiner excludes."""
    if asked.refiner is None:
        return
    for name, why in _EXCLUDES.items():
        if getattr(asked, name):
            text = f"takes over the latents, and {why}; leave `{name}` or the refiner out"
            yield Violation(field=_PATH, message=text)


def resolved_refiner(asked: Generation, refiner: Model | None, model: Model) -> ResolvedRefiner | None:
    """The refiner with every choice made. `refiner`: its entry in the catalogue, with its hash.

    Raises MODEL_INCOMPATIBLE for a model that is no refiner or is made for another family, and the scan's fault for an
    unusable one.
    """
    given = asked.refiner
    if given is None or refiner is None:
        return None
    facts = {"refiner_model_id": refiner.id, "model_id": model.id, "family": model.family}
    if refiner.kind is not ModelKind.REFINER:
        what = str(refiner.kind).replace("_", " ")
        message = f"model {refiner.id} is a {what} and no refiner; name a refiner in `refiner`"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
    if refiner.state is not ModelState.AVAILABLE:
        message = f"refiner {refiner.id} cannot be used: {refiner.problem}; scan again when its files are whole"
        raise FailedPrecondition(message, refiner.fault, **facts)
    base = FAMILIES[refiner.family].base
    if base != model.family:
        message = f"refiner {refiner.id} goes on from models of {base}; model {model.id} is of {model.family}"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
    return ResolvedRefiner(
        model_id=refiner.id,
        model_sha256=refiner.sha256,
        family=refiner.family,
        start_ratio=_or(given.start_ratio, DEFAULT_START),
        aesthetic_score=_or(given.aesthetic_score, DEFAULT_SCORE),
        negative_aesthetic_score=_or(given.negative_aesthetic_score, DEFAULT_NEGATIVE_SCORE),
    )


def _or(given: float | None, default: float) -> float:
    return default if given is None else given
