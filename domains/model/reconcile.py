"""Compares the caller's cache of model files with what the server knows and has loaded."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial

import msgspec

from domains.errors import InvalidRequest, Violation, excerpt
from domains.memory.blobs.blob import Blob, BlobState
from domains.memory.blobs.creation import is_sha256
from domains.model.content_hash import weights_hash
from domains.model.loaded import LoadedModel, outdated
from domains.model.model import Model

MAX_ENTRIES = 4000
_READABLE = (BlobState.READY, BlobState.WRITING)


class MismatchKind(StrEnum):
    """How the caller's cache and the server disagree. The names are those of the contract."""

    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    UNKNOWN_COMPONENT = "UNKNOWN_COMPONENT"
    UNKNOWN_BLOB = "UNKNOWN_BLOB"
    STALE_GENERATION = "STALE_GENERATION"
    CHECKSUM = "CHECKSUM"
    SOURCE_EVICTED = "SOURCE_EVICTED"
    EVICTABLE_IN_USE = "EVICTABLE_IN_USE"


class CacheEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a model in the caller's cache."""

    model_id: str
    component_id: str = ""
    """Empty: the whole model."""
    blob_id: str = ""
    generation: int = 0
    sha256: str = ""
    """Empty: not compared."""
    evictable: bool = False


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """One disagreement."""

    kind: MismatchKind
    entry: CacheEntry
    message: str
    loaded_ids: tuple[str, ...] = ()
    caller_value: str = ""
    server_value: str = ""
    action_taken: str = ""


def check_entries(entries: Sequence[CacheEntry]) -> None:
    """Raise INVALID_FIELD for too many entries, the same one twice, or a malformed hash."""
    wrong: list[Violation] = []
    if len(entries) > MAX_ENTRIES:
        text = f"has {len(entries)} entries; at most {MAX_ENTRIES}"
        wrong.append(Violation(field="entries", message=text, allowed=f"0..{MAX_ENTRIES} entries"))
    seen: dict[tuple[str, str, str], int] = {}
    for index, entry in enumerate(entries[:MAX_ENTRIES]):
        first = seen.setdefault((entry.model_id, entry.component_id, entry.blob_id), index)
        if first != index:
            wrong.append(Violation(field=f"entries[{index}]", message=f"is the same part as entries[{first}]"))
        if entry.sha256 and not is_sha256(entry.sha256):
            wrong.append(Violation(field=f"entries[{index}].sha256", message="is not 64 hex digits"))
    if wrong:
        raise InvalidRequest(wrong)


class Comparison:
    """One comparison with the state of one moment."""

    def __init__(
        self,
        entries: Sequence[CacheEntry],
        find_model: Callable[[str], Model | None],
        blobs: Iterable[Blob],
        loaded: Iterable[LoadedModel],
    ) -> None:
        self._entries = entries
        self._find_model = find_model
        self._blobs: Mapping[str, Blob] = {blob.id: blob for blob in blobs}
        self._loaded = list(loaded)

    def in_use(self) -> list[str]:
        """Ids of the blobs that the server reads now."""
        return sorted(blob.id for blob in self._blobs.values() if blob.reader_count)

    def mismatches(self) -> list[Mismatch]:
        """All disagreements: those of the entries in their order, then sources that are gone from the cache."""
        found = [one for entry in self._entries for one in self._of_entry(entry)]
        there = {entry.blob_id for entry in self._entries}
        return found + [self._evicted(blob_id) for blob_id in self.in_use() if blob_id not in there]

    def _of_entry(self, entry: CacheEntry) -> Iterator[Mismatch]:
        model = self._find_model(entry.model_id)
        if model is None:
            message = f"the server does not know model {excerpt(entry.model_id)!r}; register it again, or scan"
            yield Mismatch(kind=MismatchKind.UNKNOWN_MODEL, entry=entry, message=message)
        elif entry.component_id and entry.component_id not in {part.id for part in model.components}:
            names = ", ".join(part.id for part in model.components) or "none"
            message = f"model {model.id} has no component {excerpt(entry.component_id)!r}; it has {names}"
            yield Mismatch(kind=MismatchKind.UNKNOWN_COMPONENT, entry=entry, message=message)
        else:
            yield from self._of_content(entry, model)
        if entry.blob_id:
            yield from self._of_blob(entry)

    def _of_content(self, entry: CacheEntry, model: Model) -> Iterator[Mismatch]:
        known = _hashes(model, entry.component_id)
        if entry.sha256 and not entry.blob_id and known and entry.sha256.lower() not in known:
            yield Mismatch(
                kind=MismatchKind.CHECKSUM,
                entry=entry,
                loaded_ids=self._loads(model.id),
                caller_value=entry.sha256,
                server_value=known[0],
                message=f"model {model.id} has other bytes than the cache; validate it, and read it again",
            )
        for one in self._loaded:
            if one.model_id == model.id and outdated(one, model.sha256):
                yield Mismatch(
                    kind=MismatchKind.STALE_GENERATION,
                    entry=entry,
                    loaded_ids=(one.id,),
                    caller_value=entry.sha256,
                    server_value=one.model_sha256,
                    message=f"{one.id} has weights from before the model's files changed; unload it and load it again",
                )

    def _of_blob(self, entry: CacheEntry) -> Iterator[Mismatch]:
        blob = self._blobs.get(entry.blob_id)
        if blob is None or blob.state not in _READABLE:
            state = "does not know" if blob is None else f"has lost ({blob.state})"
            message = f"the server {state} blob {excerpt(entry.blob_id)!r}; register it again"
            yield Mismatch(kind=MismatchKind.UNKNOWN_BLOB, entry=entry, message=message)
            return
        told = partial(Mismatch, entry=entry, loaded_ids=self._loads(entry.model_id))
        if entry.generation and entry.generation != blob.generation:
            yield told(
                kind=MismatchKind.STALE_GENERATION,
                caller_value=str(entry.generation),
                server_value=str(blob.generation),
                message=f"blob {blob.id} is generation {blob.generation} here; register the cache's generation",
            )
        elif entry.sha256 and blob.sha256 and entry.sha256.lower() != blob.sha256:
            yield told(
                kind=MismatchKind.CHECKSUM,
                caller_value=entry.sha256,
                server_value=blob.sha256,
                message=f"blob {blob.id} has other bytes than the cache; register the new content as a new generation",
            )
        if entry.evictable and blob.reader_count:
            message = f"blob {blob.id} has {blob.reader_count} readers; keep it until they are done"
            yield told(kind=MismatchKind.EVICTABLE_IN_USE, message=message)

    def _evicted(self, blob_id: str) -> Mismatch:
        message = f"the server reads blob {blob_id}, which the cache does not hold; its memory must stay until then"
        return Mismatch(
            kind=MismatchKind.SOURCE_EVICTED, entry=CacheEntry(model_id="", blob_id=blob_id), message=message
        )

    def _loads(self, model_id: str) -> tuple[str, ...]:
        return tuple(one.id for one in self._loaded if one.model_id == model_id)


def _hashes(model: Model, component_id: str) -> list[str]:
    """The hashes that a model or its component is known by; a single file's own hash names it too. Empty: none."""
    stamps = {stamp.path: stamp for stamp in model.files if stamp.sha256}
    if not component_id:
        mine = list(stamps.values())
        whole = model.sha256
    else:
        part = next(part for part in model.components if part.id == component_id)
        mine = [stamps[path] for path in sorted(part.files) if path in stamps]
        whole = weights_hash(stamp.tensor_sha256 for stamp in mine)
    single = mine[0].sha256 if len(mine) == 1 else ""
    return [one for one in (whole, single) if one]
