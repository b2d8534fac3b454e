"""Scans the roots for models once."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from pathlib import Path

from domains.errors import DeviceOpsError, ErrorReason
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints, HashCancelled
from domains.model.look_memory import LookMemory
from domains.model.model import Model, ModelState
from domains.model.naming import display_name, free_id_of
from domains.model.notes import with_hashes
from domains.model.places import Form, Place
from domains.model.publish_note import being_published
from domains.model.roots import Roots
from domains.model.scan import MAX_PROBLEMS, Found, ScanProblem
from domains.model.walk import places
from domains.model.weights_model import pickle_refusal, read_component_folder, read_file
from domains.progress import Progressed, Stage, Unit


class Look:
    """One scan. Runs on a thread of its own and only reads files; the catalogue applies its result."""

    def __init__(
        self,
        roots: Roots,
        known: Mapping[str, Model],
        fingerprints: Fingerprints,
        memory: LookMemory,
        tell: Callable[[Progressed], None],
        cancelled: Callable[[], bool],
        judged: Collection[str] | None = None,
        recompute: bool = False,
    ) -> None:
        """`judged`: the complete model folders, which may be checked; others may be incomplete. None: all.

        `recompute`: hash every file again, and single files too.
        """
        self._recompute = recompute
        self._roots = roots
        self._fingerprints = fingerprints
        self._memory = memory
        self._tell = tell
        self._cancelled = cancelled
        self._judged = judged
        self._embedded = {model.folder for model in known.values() if model.embedded}
        self._id_of = {model.folder: model.id for model in known.values()}
        self._taken = set(known)
        self._problems: list[ScanProblem] = []

    def run(self, beginnings: Sequence[Path]) -> Found:
        """Read every model at or below the beginnings, which lie in the roots."""
        began, read_before = time.monotonic(), self._fingerprints.read_bytes
        models: list[Model] = []
        passed: tuple[str, ...] = ()
        try:
            found = [place for place in self._places(beginnings) if str(place.path) not in self._embedded]
            coming = self._coming(found)
            found = [place for place in found if place.path not in coming]
            chosen = [place for place in found if self._judged is None or str(place.path) in self._judged]
            names = {str(place.path) for place in chosen}
            passed = tuple(str(place.path) for place in found if str(place.path) not in names)
            for number, place in enumerate(chosen):
                self._progress(number, len(chosen))
                models += self._read(place)
            self._progress(len(chosen), len(chosen))
            cancelled = False
        except HashCancelled:
            cancelled = True
        return Found(
            models=tuple(models),
            problems=tuple(self._problems),
            roots=tuple(map(str, beginnings)),
            passed=passed,
            cancelled=cancelled,
            read_bytes=self._fingerprints.read_bytes - read_before,
            duration_s=time.monotonic() - began,
        )

    def _places(self, beginnings: Sequence[Path]) -> Sequence[Place]:
        """The places of all models, listed first, so that progress has a total."""
        found: list[Place] = []
        for place in places(self._roots, beginnings, self._complain):
            if self._cancelled():
                raise HashCancelled
            if place.form is Form.PICKLE:
                self._complain(place.path, ErrorReason.MODEL_INCOMPATIBLE, pickle_refusal(place.name))
            else:
                found.append(place)
        return found

    def _coming(self, found: Sequence[Place]) -> Set[Path]:
        """Results of conversions that have their name and are not known yet: their job makes them known, under its id."""
        folders = {place.path.parent for place in found if str(place.path) not in self._id_of}
        return {path for folder in folders for path in being_published(folder) if str(path) not in self._id_of}

    def _read(self, place: Place) -> list[Model]:
        """One model, or none if it leads out of the roots."""
        name = Path(place.name).stem if place.form is Form.FILE else display_name(place.path)
        model_id = self._id_of.get(str(place.path)) or free_id_of(name, self._taken)
        self._taken.add(model_id)
        try:
            if self._recompute:
                model = self._hashed(place, name, model_id)
            else:
                read = lambda: self._read_anew(place, name, model_id)  # noqa: E731
                model = self._memory.read(place.path, model_id, self._roots, read)
        except DeviceOpsError as error:
            self._complain(place.path, error.reason, error.message)
            return []
        if model.state is ModelState.CORRUPT:
            self._complain(place.path, ErrorReason.MODEL_CORRUPT, model.problem)
        return [model]

    def _hashed(self, place: Place, name: str, model_id: str) -> Model:
        """The model with the hashes of its weights, computed now."""
        self._fingerprints.forget_below(place.path)
        model = self._read_anew(place, name, model_id)
        if place.form is not Form.FILE:
            return model
        self._fingerprints.forget(place.path.parent, [place.path.name])
        try:
            files = {place.path.name: place.path}
            return with_hashes(model, self._fingerprints.stamps(place.path.parent, files, self._cancelled))
        except OSError as error:
            message = f"{place.path} cannot be hashed: {error.strerror}"
            self._complain(place.path, ErrorReason.MODEL_CORRUPT, message)
            return model

    def _read_anew(self, place: Place, name: str, model_id: str) -> Model:
        if place.form is Form.FILE:
            return read_file(place.path, name, model_id)
        if place.form is Form.COMPONENT:
            return read_component_folder(place.path, model_id, self._roots.inside)
        inside, prints = self._roots.inside, self._fingerprints
        return read_folder(place.path, model_id, inside, prints, cancelled=self._cancelled)

    def _complain(self, path: Path, reason: ErrorReason, message: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(ScanProblem(path=str(path), reason=reason, message=message))

    def _progress(self, completed: int, total: int) -> None:
        if self._cancelled():
            raise HashCancelled
        self._tell(Progressed(stage=Stage.SCANNING, completed=completed, total=total, unit=Unit.FILES))
