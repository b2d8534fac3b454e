"""Converts findings about a model's files."""

from deviceops.common.v1 import error_pb2
from domains import limits
from domains.model.finding import ModelFinding
from server import convert
from server.fitted import fitted
from server.scrub import scrubbed


def to_finding(finding: ModelFinding) -> error_pb2.Finding:
    """The message of a finding."""
    message = error_pb2.Finding(
        severity=convert.SEVERITIES[finding.severity],
        reason=convert.to_reason(finding.reason) if finding.reason else error_pb2.ERROR_REASON_UNSPECIFIED,
        field=scrubbed(finding.field),
        message=scrubbed(finding.message),
    )
    return fitted(message, limits.FINDING_BYTES)
