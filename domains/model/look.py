"""Scans the roots for models once."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from domains.errors import DeviceOpsError, ErrorReason
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints, HashCancelled
from domains.model.model import Model, ModelState
from domains.model.naming import free_id
from domains.model.roots import Roots
from domains.model.scan import MAX_PROBLEMS, Found, ScanProblem
from domains.model.walk import model_folders
from domains.progress import Progressed, Stage, Unit


class Look:
    """One scan. Runs on a thread of its own and only reads files; the catalogue applies its result."""

    def __init__(
        self,
        roots: Roots,
        known: Mapping[str, Model],
        fingerprints: Fingerprints,
        tell: Callable[[Progressed], None],
        cancelled: Callable[[], bool],
        judged: Collection[str] | None = None,
    ) -> None:
        """`judged`: the complete model folders, which may be checked; others may be incomplete. None: all."""
        self._roots = roots
        self._fingerprints = fingerprints
        self._tell = tell
        self._cancelled = cancelled
        self._judged = judged
        self._embedded = {model.folder for model in known.values() if model.embedded}
        self._id_of = {model.folder: model.id for model in known.values()}
        self._taken = set(known)
        self._problems: list[ScanProblem] = []

    def run(self, beginnings: Sequence[Path]) -> Found:
        """Read every model folder at or below the beginnings, which lie in the roots."""
        began, read_before = time.monotonic(), self._fingerprints.read_bytes
        models: list[Model] = []
        passed: tuple[str, ...] = ()
        try:
            found = [folder for folder in self._folders(beginnings) if str(folder) not in self._embedded]
            folders = [folder for folder in found if self._judged is None or str(folder) in self._judged]
            passed = tuple(map(str, set(found) - set(folders)))
            for number, folder in enumerate(folders):
                self._progress(number, len(folders))
                models += self._read(folder)
            self._progress(len(folders), len(folders))
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

    def _folders(self, beginnings: Sequence[Path]) -> Sequence[Path]:
        """All model folders, listed first, so that progress has a total."""
        folders: list[Path] = []
        for folder in model_folders(self._roots, beginnings, self._complain):
            if self._cancelled():
                raise HashCancelled
            folders.append(folder)
        return folders

    def _read(self, folder: Path) -> list[Model]:
        """One model, or none if the folder leads out of the roots."""
        model_id = self._id_of.get(str(folder)) or free_id(folder, self._taken)
        self._taken.add(model_id)
        try:
            model = read_folder(folder, model_id, self._roots.inside, self._fingerprints, cancelled=self._cancelled)
        except DeviceOpsError as error:
            self._complain(folder, error.reason, error.message)
            return []
        if model.state is ModelState.CORRUPT:
            self._complain(folder, ErrorReason.MODEL_CORRUPT, model.problem)
        return [model]

    def _complain(self, path: Path, reason: ErrorReason, message: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(ScanProblem(path=str(path), reason=reason, message=message))

    def _progress(self, completed: int, total: int) -> None:
        if self._cancelled():
            raise HashCancelled
        self._tell(Progressed(stage=Stage.SCANNING, completed=completed, total=total, unit=Unit.FILES))
