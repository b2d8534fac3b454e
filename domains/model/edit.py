"""Changes that callers make to what is known about models: names, labels, and forgetting. Files are never touched."""

from collections.abc import Callable, Sequence

import msgspec

from domains.errors import Aborted, FailedPrecondition, InvalidRequest, Violation
from domains.labels import Labels, label_violations
from domains.model.blob_models import BlobModels
from domains.model.catalogue import Catalogue
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model

MAX_DISPLAY_NAME = 255


class ModelChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to change about a model."""

    model_id: str
    display_name: str | None = None
    """None: as it is. Empty: the name that its files give."""
    set_labels: Labels = ()
    remove_label_keys: tuple[str, ...] = ()
    etag: str = ""
    """Empty: change it in any case."""


class ModelEdits:
    """Changes models. One thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        loaded: LoadedModels,
        needed_by: Callable[[str], Sequence[str]],
        etag_of: Callable[[Model], str],
        blobs: BlobModels | None = None,
    ) -> None:
        """`needed_by`: ids of unfinished jobs that need a model. `blobs` None: no model is made of blobs."""
        self._blobs = blobs
        self._catalogue = catalogue
        self._loaded = loaded
        self._needed_by = needed_by
        self._etag_of = etag_of

    def update(self, change: ModelChange) -> Model:
        """Make all changes, or none. Raises MODEL_NOT_FOUND, INVALID_FIELD, ETAG_MISMATCH, STORAGE_FULL."""
        model = self._catalogue.get(change.model_id)
        self._check_etag(model, change.etag)
        kept = {key: value for key, value in model.labels if key not in change.remove_label_keys}
        labels = tuple((kept | dict(change.set_labels)).items())
        wrong = [*_repeated(change.set_labels), *label_violations(labels, "set_labels")]
        if change.display_name is not None and len(change.display_name) > MAX_DISPLAY_NAME:
            text = f"has {len(change.display_name)} characters; at most {MAX_DISPLAY_NAME}"
            wrong.append(Violation(field="display_name", message=text, allowed=f"0..{MAX_DISPLAY_NAME} characters"))
        if wrong:
            raise InvalidRequest(wrong)
        note = self._catalogue.notes.of(model.id)
        name = note.display_name if change.display_name is None else change.display_name
        changed = msgspec.structs.replace(note, labels=labels, display_name=name)
        return model if changed == note else self._catalogue.annotate(model, changed)

    def forget(self, model_id: str, etag: str) -> list[str]:
        """Forget a model; returns the blobs that nothing else needs.

        Raises MODEL_NOT_FOUND, ETAG_MISMATCH; ILLEGAL_STATE while it is in use or embedded.
        """
        model = self._catalogue.get(model_id)
        self._check_etag(model, etag)
        loads = [one.id for one in self._loaded.list() if one.model_id == model.id]
        jobs = self._needed_by(model.id)
        why = (
            (model.embedded and "it is part of the server")
            or (loads and f"it is loaded as {', '.join(loads[:8])}; unload it first")
            or (jobs and f"jobs need it: {', '.join(jobs[:8])}; cancel them, or wait")
        )
        if why:
            raise FailedPrecondition(f"model {model.id} cannot be forgotten: {why}", model_id=model.id)
        self._catalogue.drop(model.id)
        return self._blobs.let_go(model) if self._blobs else []

    def _check_etag(self, model: Model, etag: str) -> None:
        if etag and etag != self._etag_of(model):
            message = f"model {model.id} has changed since it was read; read it again and retry"
            raise Aborted(message, model_id=model.id)


def _repeated(labels: Labels) -> list[Violation]:
    if len(dict(labels)) == len(labels):
        return []
    return [Violation(field="set_labels", message="has a key twice; give each key once")]
