"""Converts evidence to messages."""

from collections.abc import Sequence

from deviceops.model.v1 import model_pb2
from domains.model.detect.evidence import Evidence
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
