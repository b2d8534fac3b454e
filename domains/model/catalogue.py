"""The models that requests may name: the embedded one and those that scans found."""

import asyncio
import difflib
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from domains.errors import AlreadyExists, DataLoss, DeviceOpsError, ErrorReason, FailedPrecondition, NotFound, excerpt
from domains.model.assembly import Assembly, assembled, assembly_of
from domains.model.catalogue_store import CatalogueStore
from domains.model.composition import follows
from domains.model.conversion import Conversion
from domains.model.conversion_check import check_conversion
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints, hash_of
from domains.model.inspect import Inspector
from domains.model.look import Look
from domains.model.look_memory import LookMemory
from domains.model.model import Model, ModelLayout
from domains.model.notes import ModelNote, ModelNotes, states_of, with_hashes
from domains.model.roots import Roots
from domains.model.scan import Found, ScanProblem, ScanReport, compare, missing, not_taken
from domains.model.shipped_files import is_shipped
from domains.model.validate import Validated, Validator
from domains.model.validation import Validation, ValidationReport
from domains.progress import Progressed

_ASSEMBLED = 256
"""Most models of requests that are kept; others are assembled again."""
EMBEDDED = Path(__file__).resolve().parent / "embedded"


class Catalogue:
    """Knows all models. One thread, except that a scan reads files on another."""

    def __init__(self, connection: sqlite3.Connection, roots: Roots, default_id: str) -> None:
        self._store = CatalogueStore(connection)
        self.notes = ModelNotes(connection)
        self._roots = roots
        self._default_id = default_id
        # Roots may have changed since a model was stored.
        self._models = {model.id: model for model in self._store.models() if _inside(roots, model)}
        self._fingerprints = Fingerprints(self._store.hashes())
        self._memory = LookMemory()
        self.inspector = Inspector(roots, self._fingerprints, lambda: self._models.values())
        self._scanning = asyncio.Lock()
        self.listeners: list[Callable[[ScanReport], None]] = []
        """Called after each scan, when its models are in the list."""
        self._asked = 0
        """Number of running scans with a waiting caller."""
        self.not_taken: tuple[ScanProblem, ...] = ()
        """Problems of folders that the last scans could not read as models. Empty before the first scan too."""
        self._models |= {model.id: model for model in embedded_models(self._fingerprints)}
        self._models = _following({model.id: self.notes.applied(model) for model in self._models.values()})
        self._assembled: dict[str, tuple[list[Model | None], Model]] = {}
        """Models of requests by id, with the models that they take components from."""

    def list(self) -> list[Model]:
        """All models, ordered by id."""
        return sorted(self._models.values(), key=lambda model: model.id)

    def get(self, model_id: str) -> Model:
        """The model with this id. Raises MODEL_NOT_FOUND, which names the nearest ids."""
        if model_id in self._models:
            return self._models[model_id]
        if (assembly := assembly_of(model_id)) is not None:
            return self.assembled(assembly)
        shown = excerpt(model_id)
        close = difflib.get_close_matches(shown, self._models, n=3, cutoff=0.3) or sorted(self._models)[:3]
        near = ", ".join(close) or "none"
        message = f"there is no model {shown!r}; nearest: {near}; ScanModels looks for new ones"
        raise NotFound(message, ErrorReason.MODEL_NOT_FOUND, model_id=shown, nearest=near)

    def find(self, model_id: str) -> Model | None:
        """The model with this id. None: there is none."""
        if model_id not in self._models and (assembly := assembly_of(model_id)) is not None:
            with suppress(DeviceOpsError):
                return self.assembled(assembly)
        return self._models.get(model_id)

    def assembled(self, assembly: Assembly) -> Model:
        """A model with components of others, as these are now. A file that was never hashed is hashed first.

        Raises MODEL_NOT_FOUND, and as `domains.model.assembly.assembled`.
        """
        sources = [self._models.get(model_id) for model_id in assembly.model_ids]
        known = self._assembled.get(assembly.id)
        if known is not None and all(one is other for one, other in zip(known[0], sources, strict=True)):
            return known[1]
        found = assembled(assembly, lambda model_id: self.content_hashed(self.get(model_id)))
        if len(self._assembled) >= _ASSEMBLED:
            self._assembled.clear()
        self._assembled[assembly.id] = sources, found
        return found

    def _check_listed(self, model_id: str) -> None:
        """Raise MODEL_NOT_FOUND for a model that exists for requests alone."""
        if model_id not in self._models and (assembly := assembly_of(model_id)) is not None:
            shown = excerpt(model_id)
            message = f"model {shown} is assembled for requests alone; name {excerpt(assembly.base_id)} instead"
            raise NotFound(message, ErrorReason.MODEL_NOT_FOUND, model_id=shown)

    def hash_sources(self, model_id: str) -> None:
        """Compute the hashes of the models that an assembled one takes components from, unless they are known; does nothing
        for another model. On any thread. Raises as `assembled`."""
        assembly = assembly_of(model_id)
        for source in assembly.model_ids if assembly is not None and model_id not in self._models else ():
            self.content_hashed(self.get(source))

    def content_hashed(self, model: Model) -> Model:
        """The model with its hash, which is computed unless it is known. Raises as `hashed`."""
        return model if model.sha256 or model.layout is ModelLayout.PARTS else self.hashed_whole(model)

    def hashed(self, model: Model) -> Model:
        """The model of a single file with the file's hash, which is computed unless it is known. Takes a second a gigabyte.

        Raises COMPONENT_MISSING, MODEL_CORRUPT.
        """
        real = Path(model.folder or model.files[0].real)
        if model.sha256 and not model.folder:
            return model
        try:
            stamps = self._fingerprints.stamps(real.parent, {real.name: real})
        except FileNotFoundError:
            message = f"the file of model {model.id} is gone; put it back and scan again"
            raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=model.id) from None
        except OSError as error:
            message = f"the file of model {model.id} cannot be read: {error.strerror}; restore it and scan again"
            raise DataLoss(message, ErrorReason.MODEL_CORRUPT, model_id=model.id) from error
        if not model.folder:  # a blob: its file has another name than the model's
            source = model.files[0]
            names = {"path": source.path, "blob_id": source.blob_id, "generation": source.generation}
            stamps = tuple(msgspec.structs.replace(stamp, **names) for stamp in stamps)
        return msgspec.structs.replace(model, files=stamps)

    def hashed_whole(self, model: Model) -> Model:
        """A model of one component with the hashes of its weight files and of itself. Raises as `hashed`."""
        if model.layout is ModelLayout.FILE:
            found = self.hashed(model)
            return msgspec.structs.replace(found, sha256=hash_of(found.files))
        weights = {file.path: Path(file.real) for file in model.files if file.path.endswith(".safetensors")}
        try:
            stamps = self._fingerprints.stamps(Path(model.folder), weights)
        except FileNotFoundError:
            message = f"a file of model {model.id} is gone; put it back and scan again"
            raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=model.id) from None
        except OSError as error:
            message = f"the files of model {model.id} cannot be read: {error.strerror}; restore them and scan again"
            raise DataLoss(message, ErrorReason.MODEL_CORRUPT, model_id=model.id) from error
        others = tuple(file for file in model.files if file.path not in weights)
        return msgspec.structs.replace(model, files=(*stamps, *others), sha256=hash_of(stamps))

    def place_of(self, asked: Conversion) -> Path:
        """The real path that a conversion's result gets. Raises PATH_OUTSIDE_ROOTS."""
        return self._roots.inside(asked.destination, "model_conversion.destination_path")

    async def destination(self, asked: Conversion) -> Path:
        """The real path of a conversion's result. Raises MODEL_NOT_FOUND, ID_TAKEN, and what `check_conversion` raises."""
        model = self.get(asked.model_id)
        if asked.new_model_id in self._models:
            message = f"the id {asked.new_model_id} names a model already; choose another"
            raise AlreadyExists(message, model_id=asked.new_model_id)
        return await asyncio.to_thread(check_conversion, asked, model, self._roots)

    def default(self) -> Model:
        """The model of a request that names none. Raises MODEL_NOT_FOUND if the configured one does not exist."""
        return self.get(self._default_id)

    async def rescan(
        self,
        tell: Callable[[Progressed], None],
        cancelled: Callable[[], bool],
        folders: Sequence[str] = (),
        *,
        recompute: bool = False,
    ) -> ScanReport:
        """Scan again; the models found replace the known ones. One scan at a time.

        `folders`: scan only these. Each must lie in a root, else PATH_OUTSIDE_ROOTS. Empty: all roots.
        `recompute`: hash every file again, and single files too.
        `tell` and `cancelled` are called on the scan's own thread. A cancelled scan keeps the models found so far.
        """
        beginnings = self.beginnings(folders)
        self._asked += 1
        try:
            return await self._scan(beginnings, tell, cancelled, recompute=recompute)
        finally:
            self._asked -= 1

    async def rescan_unasked(self, judged: Collection[str]) -> ScanReport:
        """Scan all roots without a caller; a scan that a caller asks for cancels this one.

        `judged`: the complete model folders; known models in other folders stay as they are.
        """
        return await self._scan(self._roots.folders, lambda report: None, lambda: self._asked > 0, judged)

    async def _scan(
        self,
        beginnings: Sequence[Path],
        tell: Callable[[Progressed], None],
        cancelled: Callable[[], bool],
        judged: Collection[str] | None = None,
        *,
        recompute: bool = False,
    ) -> ScanReport:
        async with self._scanning:
            known = dict(self._models)
            stop = threading.Event()
            ends = lambda: stop.is_set() or cancelled()  # noqa: E731
            look = Look(self._roots, known, self._fingerprints, self._memory, tell, ends, judged, recompute)
            try:
                found = await asyncio.to_thread(look.run, beginnings)
            finally:
                # The caller may be cancelled; then the thread must stop reading.
                stop.set()
            found = msgspec.structs.replace(found, models=tuple(map(self.notes.applied, found.models)))
            # A hash that is known only now is no change of the model.
            hashed = {one.id: one.files for one in found.models if recompute and one.id in known}
            report = compare(known | {name: with_hashes(known[name], files) for name, files in hashed.items()}, found)
            self._take(known, found, report, recompute=recompute)
            for listener in self.listeners:
                listener(report)
            return report

    def beginnings(self, folders: Sequence[str]) -> Sequence[Path]:
        """Folders at which a scan begins; empty: all roots. Raises PATH_OUTSIDE_ROOTS, PATH_NOT_FOUND."""
        return [self._beginning(folder) for folder in folders] or self._roots.folders

    def _beginning(self, folder: str) -> Path:
        beginning = self._roots.inside(folder, "roots")
        if not beginning.exists():
            shown = excerpt(folder)
            message = f"there is no folder {shown!r}; make it, or scan another"
            raise NotFound(message, ErrorReason.PATH_NOT_FOUND, path=shown)
        return beginning

    def _take(self, known: dict[str, Model], found: Found, report: ScanReport, *, recompute: bool) -> None:
        # Other calls may have changed `_models` during the scan.
        gone = {name: model for name, model in missing(known, found).items() if name in self._models}
        models = self._models | gone | {model.id: model for model in found.models}
        folders = {model.folder for model in models.values()}
        self._fingerprints.forget_all_but(folders)
        self._memory.forget_all_but(folders)
        # The next scan reads headers alone, and finds the hashes of single files here.
        singles = [one for one in found.models if recompute and one.layout is ModelLayout.FILE]
        noted = {one.id: msgspec.structs.replace(self.notes.of(one.id), hashed=one.files) for one in singles}
        self._apply(models, [*report.added, *report.changed, *report.missing], noted)
        self.not_taken = not_taken(self.not_taken, found)

    def _apply(self, models: Mapping[str, Model], updated: Collection[str], noted: Mapping[str, ModelNote]) -> None:
        """Store all models, then have requests see them. Raises STORAGE_FULL, and changes nothing then.

        `updated`: ids of the models that have changed. `noted`: new notes by id.
        """
        models = _following(models)
        now = time.time()
        notes = {name: noted.get(name, self.notes.of(name)) for name in {*updated, *noted}}
        notes |= {name: msgspec.structs.replace(notes[name], update_time_s=now) for name in updated}
        # Stored with their notes, as the next scan finds them: then it has nothing to write.
        models |= {name: self.notes.noted(models[name], note) for name, note in notes.items() if name in models}
        # Blobs do not survive a restart, so models made of blobs are not stored.
        stored = [model for model in models.values() if not model.embedded and not any(f.blob_id for f in model.files)]
        self._store.replace(stored, self._fingerprints.known)
        self.notes.put(notes)
        self._models = models

    def register(self, model: Model, note: ModelNote) -> Model:
        """Make a model known, with the notes about it. Returns it with them. Raises STORAGE_FULL."""
        self._apply(self._models | {model.id: model}, [model.id], {model.id: note})
        return self._models[model.id]

    def annotate(self, model: Model, note: ModelNote) -> Model:
        """Replace the notes about a model. Returns it with them. Raises STORAGE_FULL, MODEL_NOT_FOUND."""
        self._check_listed(model.id)
        before = self.notes.of(model.id)
        plain = before.plain_name if before.display_name else model.display_name
        note = msgspec.structs.replace(note, update_time_s=time.time(), plain_name=plain)
        self.notes.put({model.id: note})
        self._models[model.id] = self.notes.applied(msgspec.structs.replace(model, display_name=plain))
        return self._models[model.id]

    def drop(self, model_id: str) -> None:
        """Forget a model and the notes about it. Its files stay. Raises STORAGE_FULL, MODEL_NOT_FOUND."""
        self._check_listed(model_id)
        self._apply({name: model for name, model in self._models.items() if name != model_id}, [], {})
        self.notes.drop(model_id)

    async def validate(
        self, asked: Validation, tell: Callable[[Progressed], None], cancelled: Callable[[], bool]
    ) -> ValidationReport:
        """Check a model's files; its state follows what was found. Raises MODEL_NOT_FOUND, HashCancelled.

        `tell` and `cancelled` are called on the validation's own thread. A cancelled validation changes nothing.
        """
        model = self.get(asked.model_id)
        stop = threading.Event()
        # Files of a model without a folder were found inside of roots, or are blobs.
        inside = Path.resolve if model.embedded or not model.folder else self._roots.inside
        check = Validator(model, asked, inside, tell, lambda: stop.is_set() or cancelled())
        try:
            done = await asyncio.to_thread(check.run)
        finally:
            stop.set()
        return self._validated(model, done)

    def _validated(self, before: Model, done: Validated) -> ValidationReport:
        """Apply a validation. The noted hashes stay those of the last scan."""
        now = self._models.get(before.id)
        if now is None or (now.files, now.state) != (before.files, before.state):
            return done.report  # it was forgotten, or a scan has judged it meanwhile
        before = now
        judged = done.report.model
        if before.sha256 and not judged.sha256:
            judged = msgspec.structs.replace(before, state=judged.state, problem=judged.problem)
        note = self.notes.of(before.id)
        if done.report.valid or done.damage:
            damaged = states_of(before.files) if done.damage else ()
            note = msgspec.structs.replace(note, damage=done.damage, damaged=damaged)
        hashed = () if before.layout is ModelLayout.DIFFUSERS else judged.files
        note = msgspec.structs.replace(note, validate_time_s=time.time(), hashed=hashed)
        changed = [] if before.same_as(self.notes.noted(judged, note)) else [before.id]
        self._apply(self._models | {before.id: judged}, changed, {before.id: note})
        return msgspec.structs.replace(done.report, model=self._models[before.id])


def _inside(roots: Roots, model: Model) -> bool:
    """Whether the model's folder and all its files lie in the roots, or are the package's own."""
    if model.layout is ModelLayout.PARTS:
        return True  # its files are those of other models
    places = (Path(place) for place in (model.folder, *(file.real for file in model.files)))
    return all(is_shipped(place) or roots.holds(place) for place in places)


def _following(models: Mapping[str, Model]) -> dict[str, Model]:
    """The models; those made of parts are derived again from their sources."""
    return {
        name: follows(model, models) if model.layout is ModelLayout.PARTS else model for name, model in models.items()
    }


def embedded_models(fingerprints: Fingerprints) -> list[Model]:
    """The models in the package. Their files are trusted at any place to which an installer has linked them."""
    folders = sorted(folder for folder in EMBEDDED.iterdir() if (folder / "model_index.json").is_file())
    return [read_folder(folder, folder.name, Path.resolve, fingerprints, embedded=True) for folder in folders]
