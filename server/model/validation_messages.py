"""Converts validations and their reports."""

from deviceops.model.v1 import model_work_pb2
from domains.errors import InvalidRequest, Violation
from domains.memory.blobs.creation import is_sha256
from domains.model.validation import Depth, Validation, ValidationReport
from server import convert
from server.model.findings import to_finding
from server.model.load_messages import (
    SERVED_EXECUTION,
    execution_violations,
    from_execution,
    to_asked_execution,
)
from server.model.messages import to_model
from server.model.quantization_messages import check_quantization
from server.unserved import Served, check_served

_DEPTHS = {
    model_work_pb2.MODEL_VALIDATION_DEPTH_UNSPECIFIED: Depth.CHECKSUM,
    model_work_pb2.MODEL_VALIDATION_DEPTH_HEADER: Depth.HEADER,
    model_work_pb2.MODEL_VALIDATION_DEPTH_CHECKSUM: Depth.CHECKSUM,
    model_work_pb2.MODEL_VALIDATION_DEPTH_VALUES: Depth.VALUES,
    model_work_pb2.MODEL_VALIDATION_DEPTH_EXECUTE: Depth.EXECUTE,
}
_SERVED: Served = {
    "model_id": (),
    "depth": tuple(model_work_pb2.ModelValidationDepth.Name(depth) for depth in _DEPTHS),
    "component_ids": (),
    "expected_sha256": (),
    "base_model_id": (),
    "device_id": (),
    **{f"execution.{name}": values for name, values in SERVED_EXECUTION.items()},
}


def from_validation(message: model_work_pb2.ModelValidation) -> Validation:
    """The validation that is asked for. Raises INVALID_FIELD, NOT_IMPLEMENTED for fields that are not served."""
    wrong: list[Violation] = []
    if not message.model_id:
        wrong.append(Violation(field="model_validation.model_id", message="is empty; ListModels tells which there are"))
    if message.expected_sha256 and not is_sha256(message.expected_sha256.lower()):
        wrong.append(Violation(field="model_validation.expected_sha256", message="is not 64 hex digits"))
    wrong += execution_violations(message.execution, "model_validation.execution")
    check_served(message, "model_validation", _SERVED, InvalidRequest(wrong) if wrong else None)
    check_quantization(message.execution, "model_validation.execution")
    return Validation(
        model_id=message.model_id,
        depth=_DEPTHS[message.depth],
        component_ids=tuple(message.component_ids),
        expected_sha256=message.expected_sha256.lower(),
        base_model_id=message.base_model_id,
        device_id=message.device_id,
        execution=from_execution(message.execution),
    )


def to_validation(validation: Validation) -> model_work_pb2.ModelValidation:
    """The message of what was asked for."""
    return model_work_pb2.ModelValidation(
        model_id=validation.model_id,
        depth=_depth(validation.depth),
        component_ids=validation.component_ids,
        expected_sha256=validation.expected_sha256,
        base_model_id=validation.base_model_id,
        device_id=validation.device_id,
        execution=to_asked_execution(validation.execution),
    )


def to_validation_report(report: ValidationReport) -> model_work_pb2.ModelValidationReport:
    """The message of a validation's report."""
    return model_work_pb2.ModelValidationReport(
        model=to_model(report.model, [], whole=False),
        depth=_depth(report.depth),
        device_id=report.device_id,
        valid=report.valid,
        findings=map(to_finding, report.findings),
        tensor_count=report.tensor_count,
        non_finite_count=report.non_finite_count,
        read_bytes=report.read_bytes,
        duration=convert.to_duration(report.duration_s),
    )


def _depth(depth: Depth) -> model_work_pb2.ModelValidationDepth.ValueType:
    return model_work_pb2.ModelValidationDepth.Value(f"MODEL_VALIDATION_DEPTH_{depth.name}")
