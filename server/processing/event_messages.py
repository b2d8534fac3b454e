"""Converts events of the log of changes to messages, each event once for all readers."""

from collections.abc import Callable
from typing import Any

from deviceops.processing.v1 import job_pb2, processing_service_pb2, system_event_pb2
from domains.device.record import DeviceView
from domains.journal import Entry
from domains.memory.blobs.blob import Blob
from domains.memory.pools.pool import PoolView
from domains.model.loaded import LoadedModel
from domains.processing.event_snapshots import restored
from domains.processing.jobs.job import Job, ListedJob
from domains.processing.jobs.rows import as_listed
from domains.processing.sessions.session import SessionView
from domains.system_event import StoredSnapshot, SystemEvent
from server import convert
from server.convert import DOMAINS, SEVERITIES
from server.device.messages import to_device
from server.memory.blob_messages import to_blob
from server.memory.messages import to_pool
from server.model.messages import to_loaded
from server.processing.session_messages import to_session
from server.scrub import scrubbed

JobMessage = Callable[[ListedJob], job_pb2.Job]
"""The message of a job as ListJobs returns it."""


def to_event(entry: Entry[SystemEvent], listed: JobMessage) -> system_event_pb2.SystemEvent:
    """The message of an event; later calls return the same object."""
    if not isinstance(entry.rendered, system_event_pb2.SystemEvent):
        entry.rendered = _render(entry.value, entry.sequence, entry.time_s, listed)
    return entry.rendered


def _render(event: SystemEvent, sequence: int, time_s: float, listed: JobMessage) -> system_event_pb2.SystemEvent:
    return system_event_pb2.SystemEvent(
        sequence=sequence,
        cause_sequence=event.cause_sequence,
        event_time=convert.to_time(time_s),
        domain=DOMAINS[event.domain],
        severity=SEVERITIES[event.severity],
        kind=event.kind,
        resource_id=event.resource_id,
        server_instance_id=event.instance_id,
        message=scrubbed(event.message),
        failure=convert.to_failure(event.failure, time_s, event.domain) if event.failure else None,
        **_snapshot(event.snapshot, listed),
    )


def _snapshot(value: object, listed: JobMessage) -> dict[str, Any]:
    """The arm of the snapshot for a domain's value, as keyword arguments."""
    match value:
        case DeviceView():
            return {"device": to_device(value)}
        case Job():
            return {"job": listed(as_listed(value))}
        case ListedJob():
            return {"job": listed(value)}
        case StoredSnapshot():
            return _snapshot(restored(value), listed)
        case Blob():
            return {"blob": to_blob(value)}
        case PoolView():
            return {"memory_pool": to_pool(value, include_owners=False)}
        case LoadedModel():
            return {"loaded_model": to_loaded(value, [])}
        case SessionView():
            return {"session": to_session(value)}
        case _:
            return {}


def accepting(wanted: processing_service_pb2.SystemEventFilter) -> Callable[[SystemEvent], bool]:
    """A test of one event: whether it meets every condition that is set, except the chain of causes, which the caller
    checks. Reads the lists of the filter once, since a filter and the log can each have thousands of entries."""
    domains, kinds, least = frozenset(wanted.domains), frozenset(wanted.kinds), wanted.min_severity

    def accepts(event: SystemEvent) -> bool:
        return (
            (not domains or DOMAINS[event.domain] in domains)
            and SEVERITIES[event.severity] >= least
            and (not kinds or not kinds.isdisjoint(_within(event.kind)))
        )

    return accepts


def _within(kind: str) -> list[str]:
    """The kind and the groups that it is in: `job` and `job.state_changed`."""
    return [kind, *(kind[:end] for end, letter in enumerate(kind) if letter == ".")]
