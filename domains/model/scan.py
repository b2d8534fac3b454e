"""Looks for models under the roots."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from domains.errors import DeviceOpsError, ErrorReason
from domains.model.diffusers_folder import INDEX, read_folder
from domains.model.fingerprint import Fingerprints, HashCancelled
from domains.model.model import Model, ModelState
from domains.model.roots import Roots
from domains.progress import Progressed, Stage, Unit

_MAX_DEPTH = 6
_MAX_FOLDERS = 100_000


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
    cancelled: bool = False
    """It was stopped half-way; nothing was changed."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All models under the roots."""

    models: tuple[Model, ...]
    problems: tuple[ScanProblem, ...]


def scan(
    roots: Roots,
    known: Mapping[str, Model],
    fingerprints: Fingerprints,
    tell: Callable[[Progressed], None],
    cancelled: Callable[[], bool],
) -> Found:
    """Read every model folder. Runs on a thread; raises HashCancelled."""
    problems: list[ScanProblem] = []
    folders = list(_model_folders(roots, problems))
    id_of = {model.folder: model.id for model in known.values()}
    taken = set(id_of.values())
    models: list[Model] = []
    for number, folder in enumerate(folders):
        if cancelled():
            raise HashCancelled
        tell(Progressed(stage=Stage.SCANNING, completed=number, total=len(folders), unit=Unit.FILES))
        model_id = id_of.get(str(folder)) or _free_id(folder, taken)
        taken.add(model_id)
        try:
            models.append(read_folder(folder, model_id, roots.inside, fingerprints, cancelled=cancelled))
        except DeviceOpsError as error:
            problems.append(ScanProblem(path=str(folder), reason=error.reason, message=error.message))
    tell(Progressed(stage=Stage.SCANNING, completed=len(folders), total=len(folders), unit=Unit.FILES))
    broken = (model for model in models if model.state is ModelState.CORRUPT)
    problems += [ScanProblem(path=m.folder, reason=ErrorReason.MODEL_CORRUPT, message=m.problem) for m in broken]
    return Found(models=tuple(models), problems=tuple(problems))


def _model_folders(roots: Roots, problems: list[ScanProblem]) -> Iterator[Path]:
    """Folders with a model index, in a stable order; symlinks that lead out are refused and named."""
    seen: set[Path] = set()
    for root in roots.folders:
        for place, names, files in os.walk(root, followlinks=True, onerror=None):
            folder = Path(place)
            real = folder.resolve()
            depth = len(folder.relative_to(root).parts)
            if real in seen or len(seen) > _MAX_FOLDERS:
                names.clear()
                continue
            seen.add(real)
            try:
                roots.inside(folder, "folder")
            except DeviceOpsError as error:
                problems.append(ScanProblem(path=place, reason=error.reason, message=error.message))
                names.clear()
                continue
            if INDEX in files:
                names.clear()
                yield real
            elif depth >= _MAX_DEPTH:
                names.clear()
            names.sort()


def _free_id(folder: Path, taken: set[str]) -> str:
    """The folder's name as an id; numbered if two folders have the same."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-.") or "model"
    number = 2
    candidate = slug
    while candidate in taken:
        candidate, number = f"{slug}-{number}", number + 1
    return candidate


def compare(known: Mapping[str, Model], found: Sequence[Model], problems: Sequence[ScanProblem]) -> ScanReport:
    """What is new, what differs, what is gone."""
    now = {model.id: model for model in found}
    shared = [model_id for model_id in now if model_id in known]
    changed = [model_id for model_id in shared if now[model_id] != known[model_id]]
    gone = [m.id for m in known.values() if m.id not in now and not m.embedded and m.state is not ModelState.MISSING]
    return ScanReport(
        added=tuple(sorted(set(now) - set(known))),
        changed=tuple(sorted(changed)),
        missing=tuple(sorted(gone)),
        unchanged=len(shared) - len(changed),
        problems=tuple(problems),
    )
