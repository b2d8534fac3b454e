"""Tracks which models are loaded on which devices, as the workers report it."""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from domains.errors import ErrorReason, NotFound


class LoadedState(StrEnum):
    """Whether a loaded model can be used."""

    READY = "ready"


class LoadedComponent(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a loaded model; its bytes are counted on its tensors."""

    id: str
    bytes: int
    precision: str
    """Precision of its computation, in torch's words."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a device."""

    id: str
    """`<model>@<device>`: a device holds a model once."""
    model_id: str
    device_id: str
    components: tuple[LoadedComponent, ...]
    """The denoiser first."""
    load_time_s: float
    last_use_time_s: float
    state: LoadedState = LoadedState.READY
    model_sha256: str = ""
    """Hash over its weights at the load (see `domains.model.fingerprint`). Empty: its worker did not report one."""
    pinned: bool = False

    @property
    def size_bytes(self) -> int:
        """Size of all components."""
        return sum(component.bytes for component in self.components)


def loaded_id(model_id: str, device_id: str) -> str:
    """The id of a model on a device."""
    return f"{model_id}@{device_id}"


def outdated(loaded: LoadedModel, sha256: str) -> bool:
    """Whether the model's files now have other weights, with the hash `sha256`. A load replaces the model.

    False if the worker did not report what it loaded, and if the files cannot be read (`sha256` is empty).
    """
    return bool(loaded.model_sha256 and sha256) and loaded.model_sha256 != sha256


class LoadedModels:
    """All loaded models. One thread."""

    def __init__(self) -> None:
        self._loaded: dict[str, LoadedModel] = {}
        self.listeners: list[Callable[[LoadedModel, bool], None]] = []
        """Called after a model was loaded (True) or removed (False)."""

    def put(self, loaded: LoadedModel, *, pin: bool = False) -> LoadedModel:
        """Add a loaded model. Once pinned, it stays pinned until it is unloaded."""
        known = self._loaded.get(loaded.id)
        kept = msgspec.structs.replace(loaded, pinned=pin or (known is not None and known.pinned))
        self._loaded[loaded.id] = kept
        if known is None:
            self._tell(kept, True)
        return kept

    def remove(self, loaded_id: str) -> LoadedModel | None:
        """Remove a model and return it. None: it is not loaded."""
        if gone := self._loaded.pop(loaded_id, None):
            self._tell(gone, False)
        return gone

    def remove_device(self, device_id: str) -> None:
        """Remove all models of a device, whose worker is gone."""
        for one in [one for one in self._loaded.values() if one.device_id == device_id]:
            self.remove(one.id)

    def _tell(self, one: LoadedModel, there: bool) -> None:
        for listener in self.listeners:
            listener(one, there)

    def list(self) -> list[LoadedModel]:
        """All loaded models, ordered by id."""
        return sorted(self._loaded.values(), key=lambda one: one.id)

    def get(self, loaded_id: str) -> LoadedModel:
        """The loaded model with this id. Raises LOADED_MODEL_NOT_FOUND."""
        if loaded_id not in self._loaded:
            known = ", ".join(self._loaded) or "none"
            raise NotFound(
                f"no model is loaded as {loaded_id[:128]!r}; loaded: {known}",
                ErrorReason.LOADED_MODEL_NOT_FOUND,
                loaded_model_id=loaded_id[:128],
            )
        return self._loaded[loaded_id]
