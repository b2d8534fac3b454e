"""Snapshots of the things in events, as the log of changes stores them."""

import msgspec
import structlog

from domains.device.record import DeviceView
from domains.memory.blobs.blob import Blob
from domains.memory.pools.pool import PoolView
from domains.model.loaded import LoadedModel
from domains.processing.jobs.job import Job, ListedJob
from domains.processing.jobs.rows import as_listed
from domains.processing.sessions.session import SessionView
from domains.system_event import StoredSnapshot

_log = structlog.get_logger()
_encode = msgspec.msgpack.Encoder().encode
_TYPES: dict[str, type] = {
    "device": DeviceView,
    # Without work and result, which the job's own row has.
    "job": ListedJob,
    "blob": Blob,
    "memory_pool": PoolView,
    "loaded_model": LoadedModel,
    "session": SessionView,
}
"""The names are stored, so a type must keep its name."""
_NAMES = {kind: name for name, kind in _TYPES.items()}
_DECODERS = {name: msgspec.msgpack.Decoder(kind) for name, kind in _TYPES.items()}


def stored(value: object) -> StoredSnapshot | None:
    """The stored form of a domain's value; None: there is nothing to store."""
    value = _kept(value)
    name = _NAMES.get(type(value))
    return None if name is None else StoredSnapshot(name, _encode(value))


def _kept(value: object) -> object:
    """The part of a value that is stored.

    Pools are stored without owners, blobs without labels: labels may name a person, and would outlive their blob.
    The snapshots of a deleted job or session are deleted by the database.
    """
    match value:
        case Job():
            return as_listed(value)
        case Blob():
            return msgspec.structs.replace(value, labels=())
        case PoolView():
            measure = msgspec.structs.replace(value.measure, owners=(), host_owners=())
            return msgspec.structs.replace(value, measure=measure)
        case _:
            return value


def restored(snapshot: StoredSnapshot) -> object:
    """The domain's value; None, with a warning, if this server cannot read it."""
    try:
        return _DECODERS[snapshot.kind].decode(snapshot.body)
    except (KeyError, msgspec.DecodeError) as problem:
        _log.warning(
            "snapshot of an event skipped: this server cannot read it", kind=snapshot.kind, problem=str(problem)
        )
        return None
