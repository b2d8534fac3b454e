"""Validates a model's files. Runs on a thread of its own and only reads; the catalogue applies the result."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from domains.errors import DeviceOpsError, ErrorReason
from domains.model.diffusers_folder import INDEX, Inside, component_faults, read_folder
from domains.model.file_check import FileChecked, check_file
from domains.model.finding import ModelFinding
from domains.model.fingerprint import stamped
from domains.model.model import REASONS, FileStamp, Model, ModelLayout, ModelState
from domains.model.notes import with_hashes
from domains.model.regular_file import open_regular, state_of
from domains.model.validation import GRAVITY, MAX_FINDINGS, Depth, Validation, ValidationReport
from domains.model.weights_model import read_component_folder, read_file
from domains.progress import Progressed, Stage, Unit
from domains.reasons import Severity
from domains.stop import never

_TELL_EVERY_S = 0.1
"""Least time between two reports of progress: a fast disk gives 500 pieces a second."""


class Validated(msgspec.Struct, frozen=True, kw_only=True):
    """A report, and the facts that later scans must keep."""

    report: ValidationReport
    damage: str = ""
    """What is wrong with files that were not written since the scan, so that a scan sees no change. Empty: nothing."""


class Validator:
    """One validation."""

    def __init__(
        self,
        model: Model,
        asked: Validation,
        inside: Inside,
        tell: Callable[[Progressed], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._model = model
        self._asked = asked
        self._inside = inside
        self._tell = tell
        self._cancelled = cancelled
        self._read_bytes = 0
        self._total = 0
        self._told_s = 0.0
        """When progress was last told; 0: never."""

    def run(self) -> Validated:
        """Check everything that was asked for. Raises HashCancelled."""
        began = time.monotonic()
        stamps = self._stamps()
        passes = self._asked.depth - 1  # values are a second reading
        self._total = passes * sum(Path(stamp.real).stat().st_size for stamp in stamps if Path(stamp.real).is_file())
        files = {stamp.path: self._file(stamp) for stamp in stamps}
        findings = [*self._missing_files(), *(finding for one in files.values() for finding in one.findings)]
        findings += self._structure()
        judged = self._judged(files, findings)
        findings += self._whole(judged, findings)
        findings.sort(key=lambda one: GRAVITY.index(one.severity))
        counts = [one.non_finite_count for one in files.values() if one.non_finite_count is not None]
        hashed = all(one.hashes for one in files.values())
        report = ValidationReport(
            model=judged,
            depth=self._asked.depth if hashed or self._asked.depth is Depth.HEADER else Depth.HEADER,
            findings=tuple(findings[:MAX_FINDINGS]),
            tensor_count=sum(one.tensor_count for one in files.values()),
            non_finite_count=sum(counts) if counts else None,
            read_bytes=self._read_bytes,
            duration_s=time.monotonic() - began,
        )
        damage = next((one.findings[0].message for one in files.values() if one.damaged), "")
        return Validated(report=report, damage=damage)

    def _chosen(self, path: str) -> bool:
        wanted = self._asked.component_ids
        return not wanted or any(
            path in part.files or path.partition("/")[0] == part.id
            for part in self._model.components
            if part.id in wanted
        )

    def _stamps(self) -> Sequence[FileStamp]:
        return [one for one in self._model.files if one.path.endswith(".safetensors") and self._chosen(one.path)]

    def _file(self, stamp: FileStamp) -> FileChecked:
        return check_file(self._model, stamp, self._asked.depth, self._cancelled, self._read)

    def _read(self, size: int) -> None:
        self._read_bytes += size
        now = time.monotonic()
        if self._told_s and now - self._told_s < _TELL_EVERY_S and self._read_bytes < self._total:
            return
        self._told_s = now
        self._tell(
            Progressed(
                stage=Stage.VERIFYING,
                completed=min(self._read_bytes, self._total),
                total=self._total,
                unit=Unit.BYTES,
            )
        )

    def _missing_files(self) -> list[ModelFinding]:
        """Files other than weights that are gone; weights report it themselves."""
        return [
            ModelFinding(
                reason=ErrorReason.COMPONENT_MISSING,
                message=f"the model has no {one.path} any more; restore the file",
                field=one.path,
            )
            for one in self._model.files
            if not one.path.endswith(".safetensors") and self._chosen(one.path) and not Path(one.real).is_file()
        ]

    @property
    def _folder(self) -> Path | None:
        """The model's folder, if it has one in the diffusers layout."""
        folder = Path(self._model.folder)
        return folder if self._model.folder and (folder / INDEX).is_file() else None

    def _structure(self) -> list[ModelFinding]:
        """Components of the folder's index that cannot be read."""
        if self._folder is None:
            return []
        try:
            faults = component_faults(self._folder, self._inside)
        except (DeviceOpsError, OSError):
            return []  # of the index: the judgement below tells it
        wanted = self._asked.component_ids
        return [
            ModelFinding(
                reason=error.reason,
                message=error.message,
                field=name,
                severity=Severity.ERROR if needed else Severity.WARNING,
            )
            for name, error, needed in faults
            if not wanted or name in wanted
        ]

    def _judged(self, files: Mapping[str, FileChecked], findings: Sequence[ModelFinding]) -> Model:
        """The model as its files show it now; CORRUPT where a file is damaged."""
        model, folder = self._model, self._folder
        if folder is not None:
            model = read_folder(
                folder,
                model.id,
                self._inside,
                _Noted(model, files),
                embedded=model.embedded,
                cancelled=self._cancelled,
            )
        elif model.folder and (model.layout is ModelLayout.DIFFUSERS or not Path(model.folder).exists()):
            problem = f"{model.folder} holds no model any more"
            model = msgspec.structs.replace(model, state=ModelState.MISSING, problem=problem)
        else:
            model = self._weights_model(files)
        damage = next((one.message for one in findings if one.reason is ErrorReason.MODEL_CORRUPT and _grave(one)), "")
        if damage and (model.state is ModelState.AVAILABLE or _is_part(model)):
            # The noted hashes stay: they say which bytes the model should have.
            return msgspec.structs.replace(self._model, state=ModelState.CORRUPT, problem=damage)
        return model

    def _weights_model(self, files: Mapping[str, FileChecked]) -> Model:
        """A model without an index, as its file or folder shows it now, with the hashes of this check."""
        place = Path(self._model.folder)
        if not self._model.folder:
            model = self._model
        elif self._model.layout is ModelLayout.FILE:
            model = read_file(place, self._model.display_name, self._model.id)
        else:
            model = read_component_folder(place, self._model.id, self._inside)
        return with_hashes(model, [_of_check(stamp, files.get(stamp.path)) for stamp in model.files])

    def _whole(self, judged: Model, findings: Sequence[ModelFinding]) -> list[ModelFinding]:
        """Findings about the model as a whole."""
        told: list[ModelFinding] = []
        if judged.state in REASONS and not any(map(_grave, findings)):
            # A part can be undamaged although this server does not use it.
            severity = Severity.WARNING if _is_part(judged) else Severity.ERROR
            told.append(ModelFinding(reason=REASONS[judged.state], message=judged.problem, severity=severity))
        expected = self._asked.expected_sha256.lower()
        known = {judged.sha256, *(one.sha256 for one in judged.files[:1] if len(judged.files) == 1)} - {""}
        if expected and expected not in known:
            found = judged.sha256 or "not computed"
            message = f"the model's SHA-256 is {found}, not {expected}: it is another model, or another edition"
            told.append(ModelFinding(reason=ErrorReason.MODEL_CORRUPT, message=message, field="expected_sha256"))
        return told


def _of_check(stamp: FileStamp, checked: FileChecked | None) -> FileStamp:
    """The stamp with the hashes of the check; unchanged if it has none."""
    if checked is None or checked.hashes is None:
        return stamp
    made = stamped(stamp.path, Path(stamp.real), checked.hashes, checked.size_bytes)
    return msgspec.structs.replace(made, blob_id=stamp.blob_id, generation=stamp.generation)


def _is_part(model: Model) -> bool:
    """Whether the files are readable, but are not a whole pipeline."""
    return model.state is ModelState.INCOMPATIBLE and model.layout is not ModelLayout.DIFFUSERS


def _grave(finding: ModelFinding) -> bool:
    return finding.severity is Severity.ERROR


class _Noted:
    """Stamps from the check's own hashes, else from the noted ones of files that have not changed, else without a hash."""

    def __init__(self, model: Model, files: Mapping[str, FileChecked]) -> None:
        self._model = model
        self._files = files

    def stamps(
        self, folder: Path, files: Mapping[str, Path], cancelled: Callable[[], bool] = never
    ) -> tuple[FileStamp, ...]:
        return tuple(self._stamp(name, files[name]) for name in sorted(files))

    def _stamp(self, name: str, real: Path) -> FileStamp:
        checked, noted = self._files.get(name), self._model.stamp(name)
        if checked is not None and checked.hashes is not None:
            made = stamped(name, real, checked.hashes, checked.size_bytes)
            # A file that was too young for its time to tell a change stays so.
            return made if noted.state else msgspec.structs.replace(made, state="")
        with open_regular(real) as file:
            state = state_of(file)
        # A file without a noted state was too young: whether it has changed cannot be told without reading it.
        return noted if noted.state in ("", state) else FileStamp(path=name, real=str(real))
