"""Which jobs a list shows: as SQL conditions, and as a test of one job.

A page is read in two steps. The window is the next `LOOKED` rows of one index: the one whose condition probably leaves
the fewest. All conditions then apply to those rows only. So the cost of a call is bounded, however rare a match is.
"""

import json
from collections.abc import Iterator, Sequence

import msgspec

from domains.labels import MAX_LABELS, Labels, has_all
from domains.processing.jobs.job import ListedJob
from domains.processing.jobs.state import JobState

LOOKED = 1000
"""Most rows that one page reads."""

Clause = tuple[str, tuple[object, ...]]
"""An SQL condition and the values of its placeholders."""


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Every condition that is set must hold."""

    states: tuple[JobState, ...] | None = None
    """The job has one of these states. None: any state."""
    kinds: tuple[str, ...] | None = None
    """The job has one of these kinds. None: any kind."""
    session_id: str = ""
    """Empty: any session, or none."""
    labels: Labels = ()
    """The job has all of them. An empty value matches any value of its key."""
    created_from_s: float | None = None
    """Unix time. None: any."""
    created_before_s: float | None = None
    """Unix time. None: any."""
    device_id: str = ""
    """Device of the last attempt. Empty: any device."""
    request_id: str = ""
    """Empty: any request."""
    parent_id: str | None = None
    """Empty: only jobs that are not part of another. None: any job."""

    def accepts(self, job: ListedJob) -> bool:
        """Whether the filter accepts the job."""
        return (
            (self.states is None or job.state in self.states)
            and (self.kinds is None or job.kind in self.kinds)
            and self.session_id in ("", job.options.session_id)
            and has_all(self.labels, job.options.labels)
            and (self.created_from_s is None or job.create_time_s >= self.created_from_s)
            and (self.created_before_s is None or job.create_time_s < self.created_before_s)
            and self.device_id in ("", job.device_id)
            and self.request_id in ("", job.request_id)
            and self.parent_id in (None, job.parent_id)
        )


def window(wanted: JobFilter, before: int) -> Clause:
    """The query of the next `LOOKED` numbers below `before`, newest first, in one index."""
    tail = f"number < ? ORDER BY number DESC LIMIT {LOOKED}"
    parts = [(f"SELECT number FROM {source} {tail}", (*values, before)) for source, values in _sources(wanted)]
    query = " UNION ALL ".join(f"SELECT number FROM ({part})" for part, _ in parts)
    return f"{query} ORDER BY number DESC LIMIT {LOOKED}", tuple(value for _, values in parts for value in values)


def _sources(wanted: JobFilter) -> list[Clause]:
    """Table and condition of the field that is probably rarest; one for each of the field's values."""
    labels = [label for label in wanted.labels if label[1]]
    if wanted.request_id:
        return [("jobs WHERE request_id = ? AND", (wanted.request_id,))]
    if labels:
        return [("job_labels WHERE key = ? AND value = ? AND", labels[0])]
    for name in ("parent_id", "session_id", "device_id"):
        if value := getattr(wanted, name):
            return [(f"jobs WHERE {name} = ? AND", (value,))]
    for name, values in (("state", wanted.states), ("kind", wanted.kinds)):
        if values:
            return [(f"jobs WHERE {name} = ? AND", (value,)) for value in dict.fromkeys(values)]
    return [("jobs WHERE", ())] if wanted.parent_id is None else [("jobs WHERE parent_id = '' AND", ())]


def conditions(wanted: JobFilter) -> Clause:
    """The conditions on a row of `jobs`."""
    clauses = list(_conditions(wanted))
    return " AND ".join(["1", *(text for text, _ in clauses)]), tuple(v for _, values in clauses for v in values)


def _conditions(wanted: JobFilter) -> Iterator[Clause]:
    for name in ("session_id", "device_id", "request_id"):
        if value := getattr(wanted, name):
            yield f"{name} = ?", (value,)
    if wanted.parent_id is not None:
        yield "parent_id = ?", (wanted.parent_id,)
    for limit, operator in ((wanted.created_from_s, ">="), (wanted.created_before_s, "<")):
        if limit is not None:
            yield f"create_time_s {operator} ?", (limit,)
    for name, values in (("state", wanted.states), ("kind", wanted.kinds)):
        if values is not None:
            yield f"{name} IN ({', '.join('?' * len(values))})", values
    labels = dict.fromkeys(wanted.labels)
    if len(labels) > 2 * MAX_LABELS:
        # A job has at most so many labels, and each is wanted at most with its value and with any. SQLite refuses
        # conditions that are nested too deeply.
        yield "0", ()
        return
    for key, value in labels:
        label = "EXISTS (SELECT 1 FROM job_labels AS one WHERE one.key = ? AND one.number = jobs.number"
        yield (f"{label} AND one.value = ?)", (key, value)) if value else (f"{label})", (key,))


def as_list(values: Sequence[object]) -> str:
    """The value of the placeholder in `IN (SELECT value FROM json_each(?))`."""
    return json.dumps(values)
