"""What a scan for models found, and what that means against what was known."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from domains.errors import ErrorReason
from domains.model.model import Model, ModelState

MAX_PROBLEMS = 1000
"""The rest is not told."""


class ScanProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that could not be read."""

    path: str
    reason: ErrorReason
    message: str


class ScanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan found, against what was known."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unchanged: int = 0
    problems: tuple[ScanProblem, ...] = ()
    """At most 1000."""
    cancelled: bool = False
    """It was stopped half-way: what it had found by then counts, and nothing is called missing."""
    files: int = 0
    """Files of the models that were looked at."""
    read_bytes: int = 0
    """Bytes read to compute hashes; files that have not changed are not read again."""
    duration_s: float = 0.0
    roots: tuple[str, ...] = ()
    """The folders that were looked through."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one look through the roots found."""

    models: tuple[Model, ...]
    problems: tuple[ScanProblem, ...]
    roots: tuple[str, ...]
    """Where it began: models that lie elsewhere were not looked for."""
    passed: tuple[str, ...] = ()
    """Model folders that are there and were not judged, because they may still be written."""
    cancelled: bool
    read_bytes: int
    duration_s: float


def missing(known: Mapping[str, Model], found: Found) -> dict[str, Model]:
    """Scanned models that should have been found and were not, as they are to be known from now on."""
    if found.cancelled:
        return {}
    there = {model.folder for model in found.models} | set(found.passed)
    why = {problem.path: problem.message for problem in found.problems}
    return {
        name: msgspec.structs.replace(
            model, state=ModelState.MISSING, problem=why.get(model.folder, f"{model.folder} holds no model any more")
        )
        for name, model in known.items()
        if not model.embedded
        and model.folder not in there
        and any(Path(model.folder).is_relative_to(root) for root in found.roots)
    }


def not_taken(before: Sequence[ScanProblem], found: Found) -> tuple[ScanProblem, ...]:
    """What the last looks could not take as a model: `before`, as far as it lies elsewhere, and what was found now.

    A model whose files are damaged is no part of it: it is known, with its problem.
    """
    models = {model.folder for model in found.models}
    elsewhere = [one for one in before if not any(Path(one.path).is_relative_to(root) for root in found.roots)]
    kept = before if found.cancelled else elsewhere
    new = [one for one in found.problems if one.path not in models and one not in kept]
    return (*kept, *new)[:MAX_PROBLEMS]


def compare(known: Mapping[str, Model], found: Found) -> ScanReport:
    """What is new, what differs, what is gone. `known`: as it was before."""
    now = {model.id: model for model in found.models}
    shared = [model_id for model_id in now if model_id in known]
    changed = [model_id for model_id in shared if not now[model_id].same_as(known[model_id])]
    gone = [name for name in missing(known, found) if known[name].state is not ModelState.MISSING]
    return ScanReport(
        added=tuple(sorted(set(now) - set(known))),
        changed=tuple(sorted(changed)),
        missing=tuple(sorted(gone)),
        unchanged=len(shared) - len(changed),
        problems=found.problems,
        cancelled=found.cancelled,
        files=sum(len(component.files) for model in found.models for component in model.components),
        read_bytes=found.read_bytes,
        duration_s=found.duration_s,
        roots=found.roots,
    )
