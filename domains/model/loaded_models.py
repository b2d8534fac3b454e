"""Tracks which models are loaded on which devices, as the workers report it."""

import time
from collections.abc import Callable, Iterable, Sequence, Set

import msgspec

from domains.errors import Aborted, ErrorReason, NotFound, excerpt
from domains.failure import Failure
from domains.model.execution import AS_USUAL, Execution
from domains.model.loaded import LoadedChange, LoadedComponent, LoadedModel, LoadedState, Stay, loaded_id


class LoadedModels:
    """All loaded models. One thread."""

    def __init__(self, keep_alive_s: float = 0.0) -> None:
        """`keep_alive_s`: the keep-alive of a model whose load names none."""
        self._keep_alive_s = keep_alive_s
        self._loaded: dict[str, LoadedModel] = {}
        self._loading: dict[str, LoadedModel] = {}
        self._offloaded: dict[str, LoadedModel] = {}
        self._waiting: dict[str, set[str]] = {}
        """By loading model: the jobs that wait for it."""
        self.listeners: list[Callable[[LoadedModel, bool], None]] = []
        """Called after a model was loaded (True) or removed (False)."""
        self.on_change: list[Callable[[LoadedChange], None]] = []
        """Called after each change of state, pinning or keep-alive."""

    def begin(self, model_id: str, device_id: str, job_id: str, session_id: str = "") -> None:
        """Note that a job waits for a model that is being loaded."""
        name = loaded_id(model_id, device_id)
        self._waiting.setdefault(name, set()).add(job_id)
        if name in self._loading or name in self._loaded:
            return
        self._loading[name] = LoadedModel(
            id=name,
            model_id=model_id,
            device_id=device_id,
            components=(),
            load_time_s=0.0,
            last_use_time_s=0.0,
            state=LoadedState.LOADING,
            session_id=session_id,
        )
        self._changed(self._loading[name], job_id)

    def progress(self, loaded_id: str, components: tuple[LoadedComponent, ...]) -> None:
        """Note how much of a loading model is on its device. Does nothing for one that is not loading."""
        if (one := self._loading.get(loaded_id)) is not None and one.components != components:
            self._loading[loaded_id] = msgspec.structs.replace(one, components=components)
            self._changed(self._loading[loaded_id])

    def leave(self, job_id: str, failure: Failure | None = None, loaded_id: str = "") -> None:
        """Note that a job waits for no load any more. The last one to leave ends the load; `failure`: why it failed.
        `loaded_id`: of this load alone; empty: of all that it waits for."""
        for name in [name for name, jobs in self._waiting.items() if job_id in jobs and loaded_id in ("", name)]:
            self._waiting[name].discard(job_id)
            if self._waiting[name]:
                continue
            del self._waiting[name]
            if (one := self._loading.pop(name, None)) is not None:
                state = LoadedState.FAILED if failure else LoadedState.UNLOADED
                self._changed(msgspec.structs.replace(one, state=state, failure=failure), job_id)
                if name in self._offloaded:
                    self._changed(self._offloaded[name])

    def put(
        self, loaded: LoadedModel, stay: Stay | None = None, *, job_id: str = "", session_id: str = ""
    ) -> LoadedModel:
        """Add a loaded model, or note its use. Once pinned, it stays pinned until it is unloaded or updated.

        `stay`: what its load asks for. `job_id`: the job that uses it.
        """
        stay = stay or Stay()
        coming = self._loading.pop(loaded.id, None)
        self._offloaded.pop(loaded.id, None)
        self._waiting.pop(loaded.id, None)
        known = self._loaded.get(loaded.id)
        before = known or coming
        kept = msgspec.structs.replace(
            loaded,
            pinned=bool(stay.pinned) or (before is not None and before.pinned),
            session_id=before.session_id if before else session_id,
        )
        kept = _with_keep_alive(kept, before, stay, self._keep_alive_s)
        self._loaded[loaded.id] = kept
        if known is None:
            self._tell(kept, True)
        if known is None or known.etag != kept.etag:
            self._changed(kept, job_id)
        return kept

    def used(self, loaded_ids: Iterable[str]) -> None:
        """Note that jobs have just used these models; ids of models that are not loaded are ignored."""
        for name in loaded_ids:
            if (one := self._loaded.get(name)) is not None:
                self._loaded[name] = msgspec.structs.replace(one, last_use_time_s=time.time())

    def update(self, name: str, stay: Stay, etag: str = "") -> LoadedModel:
        """Pin or unpin a loaded model, or set its keep-alive, which counts from now.

        Raises LOADED_MODEL_NOT_FOUND, and ETAG_MISMATCH if `etag` is set and the model has another one.
        """
        before = self.find(name)
        if before is None:
            raise self._missing(name)
        if etag and etag != before.etag:
            message = f"loaded model {name} has changed since; read it again and retry"
            raise Aborted(message, ErrorReason.ETAG_MISMATCH, loaded_model_id=name, etag=before.etag)
        pinned = before.pinned if stay.pinned is None else stay.pinned
        now = _with_keep_alive(msgspec.structs.replace(before, pinned=pinned), before, stay, before.keep_alive_s)
        (self._loaded if name in self._loaded else self._loading)[name] = now
        if now != before:
            self._changed(now)
        return now

    def remove(self, loaded_id: str, *, job_id: str = "", failure: Failure | None = None) -> LoadedModel | None:
        """Remove a model and return it. None: it is not loaded. `failure`: why it was lost; None: it was unloaded."""
        if gone := self._loaded.pop(loaded_id, None):
            self._tell(gone, False)
            state = LoadedState.FAILED if failure else LoadedState.UNLOADED
            self._changed(msgspec.structs.replace(gone, state=state, failure=failure), job_id)
        return gone

    def offload(self, one: LoadedModel) -> None:
        """Note that a model that was removed waits in the RAM tier."""
        self._offloaded[one.id] = msgspec.structs.replace(one, state=LoadedState.OFFLOADED, pinned=False)
        self._changed(self._offloaded[one.id])

    def forget_offloaded(self, loaded_id: str) -> None:
        """Note that a model waits there no more. Ignores one that did not."""
        if (one := self._offloaded.pop(loaded_id, None)) is not None:
            self._changed(msgspec.structs.replace(one, state=LoadedState.UNLOADED))

    def offloaded(self) -> Sequence[LoadedModel]:
        """The models that wait in the RAM tier, ordered by id. Jobs cannot use them before a load."""
        return [self._offloaded[name] for name in sorted(self._offloaded)]

    def comes_back_as(self, model_id: str, device_id: str) -> Execution:
        """How a job that names no execution brings a model onto a device: as it was there, if it waits in the RAM tier."""
        one = self._offloaded.get(loaded_id(model_id, device_id))
        return AS_USUAL if one is None else one.asked

    def remove_device(self, device_id: str, failure: Failure | None = None) -> None:
        """Remove all models of a device, whose worker is gone. `failure`: why; None: it was ended on purpose."""
        for one in [one for one in self._loaded.values() if one.device_id == device_id]:
            self.remove(one.id, failure=failure)

    def _tell(self, one: LoadedModel, there: bool) -> None:
        for listener in self.listeners:
            listener(one, there)

    def _changed(self, one: LoadedModel, job_id: str = "") -> None:
        change = LoadedChange(loaded=one, time_s=time.time(), job_id=job_id)
        for listener in self.on_change:
            listener(change)

    def list(self) -> list[LoadedModel]:
        """All models that jobs can use, ordered by id."""
        return sorted(self._loaded.values(), key=lambda one: one.id)

    def everything(self) -> Sequence[LoadedModel]:
        """All models, with those that are loading or wait in the RAM tier. Ordered by device, the one used last first."""
        waiting = [one for name, one in self._offloaded.items() if name not in self._loading]
        every = [*self._loaded.values(), *self._loading.values(), *waiting]
        return sorted(every, key=lambda one: (one.device_id, -one.last_use_time_s, one.id))

    def waiting_for(self, loaded_id: str) -> Set[str]:
        """Ids of the jobs that wait for the load of a model."""
        return self._waiting.get(loaded_id, set()) if loaded_id in self._loading else set()

    def find(self, loaded_id: str) -> LoadedModel | None:
        """The model with this id, loaded or loading. None: there is none."""
        return self._loaded.get(loaded_id) or self._loading.get(loaded_id)

    def get(self, loaded_id: str) -> LoadedModel:
        """The model with this id that jobs can use. Raises LOADED_MODEL_NOT_FOUND."""
        if loaded_id not in self._loaded:
            raise self._missing(loaded_id)
        return self._loaded[loaded_id]

    def _missing(self, loaded_id: str) -> NotFound:
        known = ", ".join(self._loaded) or "none"
        return NotFound(
            f"no model is loaded as {excerpt(loaded_id)!r}; loaded: {known}",
            ErrorReason.LOADED_MODEL_NOT_FOUND,
            loaded_model_id=excerpt(loaded_id),
        )


def _with_keep_alive(one: LoadedModel, before: LoadedModel | None, stay: Stay, usual_s: float) -> LoadedModel:
    """The model with the keep-alive that was asked for (counted from now), else the one from before, else the usual."""
    if stay.keep_alive_s is not None:
        return msgspec.structs.replace(one, keep_alive_s=stay.keep_alive_s, kept_since_s=time.time())
    if before is not None and before.state is not LoadedState.LOADING:
        return msgspec.structs.replace(one, keep_alive_s=before.keep_alive_s, kept_since_s=before.kept_since_s)
    kept_s = before.keep_alive_s if before is not None and before.kept_since_s else usual_s
    return msgspec.structs.replace(one, keep_alive_s=kept_s)
