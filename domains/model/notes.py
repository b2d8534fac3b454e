"""What callers and validations note about models, beside what scans find: it survives the next scan and a restart."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from domains.labels import Labels
from domains.model.fingerprint import hash_of
from domains.model.model import FileStamp, Model, ModelState
from domains.storage import storage_errors


class ModelNote(msgspec.Struct, frozen=True, kw_only=True):
    """The notes about one model."""

    display_name: str = ""
    """Empty: the name that its files give."""
    plain_name: str = ""
    """The name that its files gave when a caller named it."""
    labels: Labels = ()
    update_time_s: float = 0.0
    validate_time_s: float = 0.0
    damage: str = ""
    """What a validation found wrong with files that a scan takes for unchanged. Empty: nothing."""
    damaged: tuple[tuple[str, str], ...] = ()
    """Path and state of each weight file at that validation. Files in another state are judged anew."""
    hashed: tuple[FileStamp, ...] = ()
    """Files that a validation, or a scan that hashes all, has hashed. Files in another state are to be hashed anew."""


_BLANK = ModelNote()


class ModelNotes:
    """The notes about all models, in one table of a shared connection. One thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._folder = Path(connection.execute("PRAGMA database_list").fetchone()[2]).parent
        decode = msgspec.msgpack.Decoder(ModelNote).decode
        rows = connection.execute("SELECT id, body FROM model_notes").fetchall()
        self._notes = {model_id: decode(body) for model_id, body in rows}

    def of(self, model_id: str) -> ModelNote:
        """The notes about a model."""
        return self._notes.get(model_id, _BLANK)

    def put(self, notes: Mapping[str, ModelNote]) -> None:
        """Replace the notes about these models, or none. Raises STORAGE_FULL."""
        with storage_errors(self._folder), self._db:
            rows = [(model_id, msgspec.msgpack.encode(note)) for model_id, note in notes.items()]
            self._db.executemany("INSERT OR REPLACE INTO model_notes VALUES (?, ?)", rows)
        self._notes.update(notes)

    def drop(self, model_id: str) -> None:
        """Forget the notes about a model."""
        with storage_errors(self._folder), self._db:
            self._db.execute("DELETE FROM model_notes WHERE id = ?", (model_id,))
        self._notes.pop(model_id, None)

    def applied(self, model: Model) -> Model:
        """The model with its notes."""
        note = self._notes.get(model.id)
        return model if note is None else self.noted(model, note)

    @staticmethod
    def noted(model: Model, note: ModelNote) -> Model:
        """The model with these notes."""
        model = msgspec.structs.replace(
            model,
            display_name=note.display_name or model.display_name,
            labels=note.labels,
            update_time_s=note.update_time_s,
            validate_time_s=note.validate_time_s,
        )
        model = with_hashes(model, note.hashed)
        if note.damage and model.state is ModelState.AVAILABLE and note.damaged == states_of(model.files):
            return msgspec.structs.replace(model, state=ModelState.CORRUPT, problem=note.damage)
        return model


def with_hashes(model: Model, hashed: Sequence[FileStamp]) -> Model:
    """The model with these hashes of files that it has in the same state and without a hash."""
    known = {(stamp.path, stamp.state): stamp for stamp in hashed if stamp.sha256}
    lacking = [stamp for stamp in model.files if stamp.state and not stamp.sha256]
    if not any((stamp.path, stamp.state) in known for stamp in lacking):
        return model
    files = tuple(known.get((stamp.path, stamp.state), stamp) for stamp in model.files)
    weights = [stamp for stamp in files if stamp.path.endswith(".safetensors")]
    return msgspec.structs.replace(model, files=files, sha256=model.sha256 or hash_of(weights))


def states_of(files: tuple[FileStamp, ...]) -> tuple[tuple[str, str], ...]:
    """Path and state of each file that was hashed."""
    return tuple((file.path, file.state) for file in files if file.sha256)
