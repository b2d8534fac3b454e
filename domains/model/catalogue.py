"""The models that requests may name: the embedded one, and what scans found."""

import asyncio
import difflib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from domains.errors import ErrorReason, NotFound
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints, HashCancelled
from domains.model.model import Model, ModelState
from domains.model.roots import Roots
from domains.model.scan import Found, ScanReport, compare, scan
from domains.progress import Progressed
from domains.storage import storage_errors

EMBEDDED = Path(__file__).parent / "embedded"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fingerprints (file TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID;
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Model).decode


class Catalogue:
    """One thread, except where a scan reads files."""

    def __init__(self, connection: sqlite3.Connection, roots: Roots, default_id: str) -> None:
        self._db = connection
        self._roots = roots
        self._default_id = default_id
        with storage_errors(EMBEDDED):
            connection.executescript(_SCHEMA)
        stored = [_decode(body) for (body,) in connection.execute("SELECT body FROM models")]
        self._models = {model.id: model for model in stored if self._still_inside(model)}
        self._fingerprints = Fingerprints(dict(connection.execute("SELECT file, sha256 FROM fingerprints")))
        self._scanning = asyncio.Lock()
        for model in embedded_models(self._fingerprints):
            self._models[model.id] = model

    def _still_inside(self, model: Model) -> bool:
        """Roots may have changed since it was stored."""
        return any(root == Path(model.folder) or root in Path(model.folder).parents for root in self._roots.folders)

    def list(self) -> list[Model]:
        """All, in the order of their ids."""
        return sorted(self._models.values(), key=lambda model: model.id)

    def get(self, model_id: str) -> Model:
        """MODEL_NOT_FOUND names the nearest ones."""
        if model_id in self._models:
            return self._models[model_id]
        near = difflib.get_close_matches(model_id[:128], self._models, n=3, cutoff=0.3) or list(self._models)[:3]
        message = f"there is no model {model_id[:128]!r}; nearest: {', '.join(near)}; ScanModels looks for new ones"
        raise NotFound(message, ErrorReason.MODEL_NOT_FOUND, model_id=model_id[:128], nearest=", ".join(near))

    def default(self) -> Model:
        """The model of a request that names none."""
        return self.get(self._default_id)

    async def rescan(self, tell: Callable[[Progressed], None], cancelled: Callable[[], bool]) -> ScanReport:
        """Look again; what was found replaces what was known. One scan at a time."""
        async with self._scanning:
            known = dict(self._models)
            scanned = {name: model for name, model in known.items() if not model.embedded}
            try:
                found = await asyncio.to_thread(scan, self._roots, known, self._fingerprints, tell, cancelled)
            except HashCancelled:
                return ScanReport(cancelled=True)
            self._take(found, scanned)
            return compare(scanned, found.models, found.problems)

    def _take(self, found: Found, known: dict[str, Model]) -> None:
        now = {model.id: model for model in found.models}
        gone = {
            name: msgspec.structs.replace(model, state=ModelState.MISSING, problem="its folder is gone")
            for name, model in known.items()
            if name not in now
        }
        embedded = {name: model for name, model in self._models.items() if model.embedded}
        self._models = gone | now | embedded
        with storage_errors(EMBEDDED):
            self._db.execute("BEGIN")
            self._db.execute("DELETE FROM models")
            rows = [(model.id, _encode(model)) for model in (gone | now).values()]
            self._db.executemany("INSERT INTO models VALUES (?, ?)", rows)
            self._db.executemany(
                "INSERT OR REPLACE INTO fingerprints VALUES (?, ?)", list(self._fingerprints.known.items())
            )
            self._db.execute("COMMIT")


def embedded_models(fingerprints: Fingerprints) -> list[Model]:
    """The models that come with the package."""
    inside = Roots([EMBEDDED]).inside
    folders = sorted(folder for folder in EMBEDDED.iterdir() if (folder / "model_index.json").is_file())
    return [read_folder(folder, folder.name, inside, fingerprints, embedded=True) for folder in folders]
