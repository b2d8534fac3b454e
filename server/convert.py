"""Converts protobuf's own types and small shared messages to and from values of the domains."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from deviceops.common.v1 import domain_pb2, error_pb2, image_pb2, job_event_pb2, label_pb2, measurement_pb2
from deviceops.processing.v1 import job_pb2
from domains import limits
from domains.device.device import OWN_NODE
from domains.errors import (
    DeviceOpsError,
    ErrorReason,
    InvalidRequest,
    NotFound,
    NotServed,
    Violation,
    excerpt,
    refusal,
)
from domains.failure import Failure
from domains.inference.fallback import MOST_ATTEMPTS, Fallback
from domains.labels import Labels, label_violations
from domains.measurement import LatencySummary
from domains.processing.jobs.job import JobOptions
from domains.progress import Degraded
from domains.reasons import NATURE_OF, Domain, Severity
from server.errors import code_of
from server.fitted import fitted
from server.scrub import scrubbed, scrubbed_facts

PRECISIONS = {
    "float32": image_pb2.PRECISION_FLOAT32,
    "float16": image_pb2.PRECISION_FLOAT16,
    "bfloat16": image_pb2.PRECISION_BFLOAT16,
}
"""The contract's values by torch's names."""


def to_precision(word: str) -> image_pb2.Precision.ValueType:
    """The contract's value of torch's name for a precision; UNSPECIFIED where it has none (`mixed`)."""
    return PRECISIONS.get(word, image_pb2.PRECISION_UNSPECIFIED)


First = TypeVar("First")
Second = TypeVar("Second")


def to_time(unix_s: float) -> Timestamp:
    """Unix seconds as a Timestamp."""
    stamp = Timestamp()
    stamp.FromNanoseconds(round(unix_s * 1e9))
    return stamp


def to_duration(seconds: float) -> Duration:
    """Seconds as a Duration; never negative."""
    span = Duration()
    span.FromNanoseconds(round(max(0.0, seconds) * 1e9))
    return span


def from_time(message: Timestamp, path: str) -> int:
    """A Timestamp as Unix nanoseconds. INVALID_FIELD for one that is outside the years 1 to 9999."""
    try:
        return message.ToNanoseconds()
    except ValueError:
        allowed = "0001-01-01T00:00:00Z..9999-12-31T23:59:59.999999999Z"
        text = f"{message.seconds} s and {message.nanos} ns is no time; nanoseconds count from 0 to 999999999"
        raise InvalidRequest([Violation(field=path, message=text, allowed=allowed)]) from None


def from_duration(message: Duration) -> float:
    """A Duration as seconds."""
    return message.seconds + message.nanos / 1e9


def to_latency(summary: LatencySummary) -> measurement_pb2.LatencySummary:
    """The message of a latency summary."""
    p95, p99 = summary.p95_s, summary.p99_s
    return measurement_pb2.LatencySummary(
        sample_count=summary.sample_count,
        mean=to_duration(summary.mean_s),
        shortest=to_duration(summary.shortest_s),
        p50=to_duration(summary.p50_s),
        p95=None if p95 is None else to_duration(p95),
        p99=None if p99 is None else to_duration(p99),
        longest=to_duration(summary.longest_s),
    )


def to_reason(reason: ErrorReason) -> error_pb2.ErrorReason.ValueType:
    """The contract's value of a reason; the names differ in the prefix alone."""
    return error_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")


def to_facts(facts: dict[str, str]) -> list[error_pb2.Fact]:
    """The messages of named values."""
    return [error_pb2.Fact(name=name, value=value) for name, value in facts.items()]


_AFFECTED = ("device_id", "model_id", "loaded_model_id", "job_id", "blob_id", "reservation_id")
"""Facts that hold an id."""


DOMAINS = {domain: domain_pb2.Domain.Value(f"DOMAIN_{domain.name}") for domain in Domain}
SEVERITIES = {severity: error_pb2.Severity.Value(f"SEVERITY_{severity.name}") for severity in Severity}


def to_failure(failure: Failure, fail_time_s: float, domain: Domain = Domain.PROCESSING) -> error_pb2.Failure:
    """The message of a failure. `domain`: the domain that failed, for reasons that do not tell it."""
    number: int = code_of(failure.reason).value[0]
    retry_s = failure.retry_after_s if failure.retryable else None
    message = error_pb2.Failure(
        reason=to_reason(failure.reason),
        message=scrubbed(failure.message),
        status_code=number,
        facts=to_facts(scrubbed_facts(failure.facts)),
        violations=[
            error_pb2.FieldViolation(field=v.field, message=scrubbed(v.message), allowed=v.allowed)
            for v in failure.violations
        ],
        root_cause=to_reason(failure.root_cause or failure.reason),
        affected_ids=dict.fromkeys(failure.facts[name] for name in _AFFECTED if failure.facts.get(name)),
        actions_taken=map(scrubbed, failure.actions_taken),
        state_consistent=failure.state_consistent,
        retryable=failure.retryable,
        fail_time=to_time(fail_time_s),
        domain=DOMAINS[NATURE_OF[failure.reason].domain or domain],
        severity=SEVERITIES[failure.severity],
        retry_delay=None if retry_s is None else to_duration(retry_s),
    )
    return fitted(message, limits.FAILURE_BYTES)


def to_findings(error: DeviceOpsError) -> list[error_pb2.Finding]:
    """The findings of a refusal: one for each violation, or one for the error."""
    severity, reason = error_pb2.SEVERITY_ERROR, to_reason(error.reason)
    if error.violations:
        told = [
            error_pb2.Finding(
                severity=severity, reason=reason, field=violation.field, message=scrubbed(violation.message)
            )
            for violation in error.violations[: limits.VIOLATIONS]
        ]
    else:
        told = [error_pb2.Finding(severity=severity, reason=reason, message=scrubbed(error.message))]
    return [fitted(finding, limits.FINDING_BYTES) for finding in told]


def refuse(wrong: Sequence[Violation], unserved: Sequence[Violation] = ()) -> None:
    """Raise all violations, and all fields that are not served, in one error; do nothing if there are none."""
    if wrong or unserved:
        raise refusal(wrong, unserved)


def both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Convert two parts of a request. Raises the violations of both in one error, under the first one's reason; a
    violation decides the reason before a field that is only not served."""
    refused: list[InvalidRequest | NotServed] = []
    results: list[Any] = []
    for read in (first, second):
        try:
            results.append(read())
        except (InvalidRequest, NotServed) as error:
            refused.append(error)
    if refused:
        wrong = next((error for error in refused if isinstance(error, InvalidRequest)), None)
        violations = [violation for error in refused for violation in error.violations]
        raise InvalidRequest(violations, wrong.reason) if wrong else NotServed(violations)
    return results[0], results[1]


def to_degradation(degraded: Degraded) -> job_event_pb2.Degradation:
    """The message of a degradation."""
    return job_event_pb2.Degradation(
        kind=degraded.kind, reason=to_reason(ErrorReason(degraded.reason)), detail=scrubbed(degraded.detail)
    )


def to_options(options: JobOptions) -> job_event_pb2.JobOptions:
    """The message of the options that every kind of job has."""
    message = job_event_pb2.JobOptions(
        session_id=options.session_id,
        reservation_id=options.reservation_id,
        priority=job_event_pb2.Priority.ValueType(options.priority),
        devices=_to_selector(options),
        labels=[label_pb2.Label(key=key, value=value) for key, value in options.labels],
        fallback=to_fallback(options.fallback),
    )
    spans = ("queue_timeout", options.queue_timeout_s), ("run_timeout", options.run_timeout_s)
    for name, seconds in (*spans, ("load_timeout", options.load_timeout_s), ("keep_for", options.keep_for_s)):
        if seconds is not None:
            getattr(message, name).CopyFrom(to_duration(seconds))
    return message


def _to_selector(options: JobOptions) -> job_event_pb2.DeviceSelector | None:
    if not options.device_ids and not options.allow_cpu and not options.node_ids:
        return None
    return job_event_pb2.DeviceSelector(
        device_ids=options.device_ids, allow_cpu=options.allow_cpu, node_ids=options.node_ids
    )


def check_nodes(selector: job_event_pb2.DeviceSelector) -> None:
    """Raise NODE_NOT_FOUND for every node except the server's own machine, the only one."""
    for node_id in selector.node_ids:
        if node_id != OWN_NODE:
            message = f"there is no node {excerpt(node_id)!r}; GetSystemStatus tells which there are"
            raise NotFound(message, ErrorReason.NODE_NOT_FOUND, node_id=excerpt(node_id))


def cause_violations(cause: str) -> list[Violation]:
    """The violations of a request's `cause`."""
    longest = limits.CAUSE_CHARACTERS
    if len(cause) <= longest:
        return []
    text = f"has {len(cause)} characters; at most {longest}"
    return [Violation(field="cause", message=text, allowed=f"0..{longest} characters")]


def unserved_scope(scope: job_pb2.CancelScope.ValueType) -> list[Violation]:
    """The violations of a cancellation's scope, which this server does not serve in full."""
    if scope in (job_pb2.CANCEL_SCOPE_UNSPECIFIED, job_pb2.CANCEL_SCOPE_NOW):
        return []
    return [Violation(field="scope", message="this server only stops jobs at once yet; leave it empty")]


def labels_of(messages: Iterable[label_pb2.Label]) -> Labels:
    """The labels of messages, unchanged."""
    return tuple((label.key, label.value) for label in messages)


def wanted_labels(messages: Iterable[label_pb2.Label]) -> Labels:
    """The labels of a filter, each once."""
    return distinct(labels_of(messages))


def distinct(values: Iterable[First]) -> tuple[First, ...]:
    """The values in their order, each once: a filter compares each listed item with all of them."""
    return tuple(dict.fromkeys(values))


_FALLBACK = Fallback.__struct_fields__
"""The fields of `Fallback` have the names of the contract."""


def from_fallback(message: job_event_pb2.FallbackPolicy, path: str, wrong: list[Violation]) -> Fallback:
    """The fallbacks that a request permits. Absent fields have their defaults. Adds violations to `wrong`."""
    given = {name: getattr(message, name) for name in _FALLBACK if message.HasField(name)}  # pyright: ignore[reportArgumentType]
    if not 0 <= given.get("max_attempts", 0) <= MOST_ATTEMPTS:
        text, allowed = f"is {given['max_attempts']}", f"0..{MOST_ATTEMPTS}"
        wrong.append(Violation(field=f"{path}.max_attempts", message=text, allowed=allowed))
    return Fallback(**given)


def to_fallback(fallback: Fallback) -> job_event_pb2.FallbackPolicy | None:
    """The message, with every field set. None: all fields have their defaults."""
    if fallback == Fallback():
        return None
    return job_event_pb2.FallbackPolicy(**{name: getattr(fallback, name) for name in _FALLBACK})


def unserved_options(message: job_event_pb2.JobOptions, path: str) -> list[Violation]:
    """Violations for options that this server does not serve."""
    unserved: list[Violation] = []
    if message.devices.strategy:
        text = "this server places jobs by its own choice yet; leave it empty, or name the device"
        unserved.append(Violation(field=f"{path}.devices.strategy", message=text))
    if message.devices.node_labels:
        text = "nodes have no labels yet, so no device matches; leave it empty"
        unserved.append(Violation(field=f"{path}.devices.node_labels", message=text))
    return unserved


def from_options(message: job_event_pb2.JobOptions, path: str = "options") -> JobOptions:
    """The options of a request. Raises INVALID_FIELD with all violations."""
    wrong: list[Violation] = []
    spans: dict[str, float | None] = {}
    for name in ("queue_timeout", "run_timeout", "load_timeout", "keep_for"):
        spans[name] = from_duration(getattr(message, name)) if message.HasField(name) else None  # pyright: ignore[reportArgumentType]
        if spans[name] is not None and not 0 < (spans[name] or math.nan) < 10 * 365 * 86400:
            wrong.append(Violation(field=f"{path}.{name}", message="is not a positive time below ten years"))
    labels = labels_of(message.labels)
    wrong += label_violations(labels, f"{path}.labels")
    fallback = from_fallback(message.fallback, f"{path}.fallback", wrong)
    refuse(wrong, unserved_options(message, path))
    check_nodes(message.devices)
    return JobOptions(
        session_id=message.session_id,
        priority=message.priority or job_event_pb2.PRIORITY_NORMAL,
        device_ids=tuple(message.devices.device_ids),
        node_ids=tuple(message.devices.node_ids),
        allow_cpu=message.devices.allow_cpu,
        queue_timeout_s=spans["queue_timeout"],
        run_timeout_s=spans["run_timeout"],
        load_timeout_s=spans["load_timeout"],
        keep_for_s=spans["keep_for"],
        labels=labels,
        reservation_id=message.reservation_id,
        fallback=fallback,
    )
