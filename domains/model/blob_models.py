"""Models whose files are blobs: reads them, and keeps the blobs as long as a model or a loaded model needs them."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from domains.errors import DeviceOpsError, ErrorReason
from domains.memory.blobs.blob import Blob, BlobState
from domains.memory.blobs.links import of_model
from domains.memory.blobs.store import BlobStore
from domains.model.blob_files import BlobFiles, BlobFolder, BlobPaths, blob_files, blobs_of, of_blobs
from domains.model.catalogue import Catalogue
from domains.model.diffusers_folder import INDEX, read_folder
from domains.model.inspect import Inspection, findings_of
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model, ModelState
from domains.model.naming import free_id_of
from domains.model.weights_model import read_component_folder, read_file

_NAME = "model"
"""Name of a model whose caller gives none and whose path names no file of its own."""


class BlobModels:
    """All of them. One thread; headers are read on another."""

    def __init__(self, catalogue: Catalogue, loaded: LoadedModels, blobs: BlobStore) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        blobs.listeners.on_spoilt.append(self._spoilt)
        loaded.listeners.append(self._loaded)

    async def inspect(self, asked: BlobPaths) -> Inspection:
        """What the files in some blobs are. Raises as `blob_files`."""
        known = self.known(asked)
        model = await self.read(asked, known.id if known else "", "")
        return Inspection(model=model, findings=tuple(findings_of(model)), registered=known is not None)

    def known(self, asked: BlobPaths) -> Model | None:
        """The model that was registered from these blobs. None: there is none."""
        wanted = {(path, blob_id) for path, blob_id in asked}
        every = self._catalogue.list()
        return next((one for one in every if {(file.path, file.blob_id) for file in blobs_of(one)} == wanted), None)

    async def read(self, asked: BlobPaths, model_id: str, name: str) -> Model:
        """The model in these files; an empty id or name is made up. Raises as `blob_files`."""
        files = blob_files(asked, self._blobs)
        name = name or model_id or (Path(asked[0][0]).stem if len(asked) == 1 else _NAME)
        made = model_id or free_id_of(name, {model.id for model in self._catalogue.list()})
        return await asyncio.to_thread(_read, files, made, name)

    def hold(self, model: Model) -> None:
        """Keep the blobs until the model is forgotten. Raises why one is unreadable, and holds none then."""
        try:
            for stamp in blobs_of(model):
                self._blobs.hold(stamp.blob_id, of_model(model.id))
        except DeviceOpsError:
            self.let_go(model)
            raise

    def let_go(self, model: Model) -> list[str]:
        """Release the model's hold on its blobs; returns those that nothing else needs."""
        owner = of_model(model.id)
        names = dict.fromkeys(stamp.blob_id for stamp in blobs_of(model) if self._blobs.is_held(stamp.blob_id, owner))
        spare = [name for name in names if not self._blobs.is_needed(name, besides={owner})]
        for name in names:
            self._blobs.let_go(name, owner)
        return spare

    def read_by(self, loaded: Iterable[LoadedModel]) -> set[str]:
        """Ids of the blobs that these loaded models hold."""
        return {name for one in loaded for name in self._of_loaded(one) if self._blobs.is_held(name, one.id)}

    def read_by_any(self, names: Iterable[str], loaded: Iterable[LoadedModel]) -> set[str]:
        """The blobs among `names` that at least one of these loaded models holds."""
        owners = [one.id for one in loaded]
        return {name for name in names if any(self._blobs.is_held(name, owner) for owner in owners)}

    def _of_loaded(self, one: LoadedModel) -> Sequence[str]:
        model = self._catalogue.find(one.model_id)
        return [] if model is None else [stamp.blob_id for stamp in blobs_of(model, weights=True)]

    def _loaded(self, one: LoadedModel, there: bool) -> None:
        """Hold the blobs of a loaded model, which reads its weights in place; release them when it is gone."""
        for name in self._of_loaded(one):
            if there:
                # A blob that is to be deleted stays as long as the model itself needs it.
                with suppress(DeviceOpsError):
                    self._blobs.hold(name, one.id)
            else:
                self._blobs.let_go(name, one.id)

    def _spoilt(self, blob: Blob) -> None:
        """Mark the models of a blob as unusable, because it was lost or its bytes do not match its hash."""
        corrupt = blob.state is BlobState.CORRUPT
        what = "has other bytes than its hash says" if corrupt else "is gone: its file has vanished or shrunk"
        for model in self._catalogue.list():
            if any(stamp.blob_id == blob.id for stamp in blobs_of(model)):
                spoilt = replace(
                    model,
                    state=ModelState.CORRUPT if corrupt else ModelState.MISSING,
                    problem=f"blob {blob.id} {what}; register the blob again, then the model",
                    reason=ErrorReason.BLOB_CORRUPT if corrupt else ErrorReason.BLOB_NOT_FOUND,
                )
                self._catalogue.register(spoilt, self._catalogue.notes.of(model.id))
                # It cannot be read any more, and a blob that is held cannot be registered again.
                self._blobs.let_go(blob.id, of_model(model.id))


def _read(files: BlobFiles, model_id: str, name: str) -> Model:
    """Read headers and configs alone."""
    folder = Path(name.replace("/", "-"))
    tree = BlobFolder(folder, files)
    if INDEX in files:
        found = read_folder(folder, model_id, tree.inside, tree, files=tree.files)
    elif len(files) == 1:
        (path, one), *_ = files.items()
        found = read_file(one.real, name, model_id, path=path)
    else:
        found = read_component_folder(folder, model_id, tree.inside, sorted(path for path in files if "/" not in path))
    return of_blobs(replace(found, display_name=name), files)
