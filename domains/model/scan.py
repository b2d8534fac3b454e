"""The result of a scan for models, compared with the known models."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from domains.errors import ErrorReason
from domains.model.model import Model, ModelState

MAX_PROBLEMS = 1000
"""Most problems in a report; the rest is left out."""


class ScanProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A path that could not be read."""

    path: str
    reason: ErrorReason
    message: str


class ScanReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a scan, compared with the known models."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unchanged: int = 0
    problems: tuple[ScanProblem, ...] = ()
    """At most 1000."""
    cancelled: bool = False
    """The scan was stopped: models found by then count, and none is reported missing."""
    files: int = 0
    """Number of files of the models that were read."""
    read_bytes: int = 0
    """Bytes read to compute hashes; files that have not changed are not read again."""
    duration_s: float = 0.0
    roots: tuple[str, ...] = ()
    """Folders that were scanned."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one look through the roots."""

    models: tuple[Model, ...]
    problems: tuple[ScanProblem, ...]
    roots: tuple[str, ...]
    """Folders at which it began: models outside of them were not looked for."""
    passed: tuple[str, ...] = ()
    """Model folders that were skipped, because a program may still be writing them."""
    cancelled: bool
    read_bytes: int
    duration_s: float


def missing(known: Mapping[str, Model], found: Found) -> dict[str, Model]:
    """Scanned models that were expected and not found, with the new state MISSING."""
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
    """Problems of folders that are not models: those of `before` outside of this scan's roots, and the new ones.

    A model with damaged files is not among them: the catalogue has it, with its problem.
    """
    models = {model.folder for model in found.models}
    elsewhere = [one for one in before if not any(Path(one.path).is_relative_to(root) for root in found.roots)]
    kept = before if found.cancelled else elsewhere
    new = [one for one in found.problems if one.path not in models and one not in kept]
    return (*kept, *new)[:MAX_PROBLEMS]


def compare(known: Mapping[str, Model], found: Found) -> ScanReport:
    """New, changed and missing models. `known`: the models before the scan."""
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
