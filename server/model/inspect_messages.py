"""Converts evidence and findings to messages."""

from collections.abc import Sequence

from deviceops.common.v1 import error_pb2
from deviceops.model.v1 import model_pb2
from domains import limits
from domains.model.detect.evidence import Evidence
from domains.model.inspect import Finding
from server import convert
from server.fitted import fitted
from server.model.kinds import KINDS

_KEYS = 64
_KEY_CHARACTERS = 160
EVIDENCE = 32
"""Most pieces of evidence in an answer."""


def to_evidence(one: Evidence) -> model_pb2.DetectionEvidence:
    """The message of a piece of evidence."""
    return model_pb2.DetectionEvidence(
        family=one.family,
        kind=KINDS[one.kind],
        component_id=one.component,
        source=str(one.source),
        expected_count=one.expected,
        matched_count=one.matched_count,
        matched_keys=_keys(one.matched),
        missing_keys=_keys(one.missing),
        unexpected_keys=_keys(one.unexpected),
        decisive=one.decisive,
        confidence_ratio=one.share,
    )


def _keys(names: Sequence[str]) -> list[str]:
    return [name[:_KEY_CHARACTERS] for name in names[:_KEYS]]


def to_finding(one: Finding) -> error_pb2.Finding:
    """The message of a finding."""
    message = error_pb2.Finding(
        severity=convert.SEVERITIES[one.severity],
        field=one.field,
        reason=convert.to_reason(one.reason) if one.reason else error_pb2.ERROR_REASON_UNSPECIFIED,
        message=one.message,
    )
    return fitted(message, limits.FINDING_BYTES)
