"""Converts conversions of models and their reports."""

from collections.abc import Mapping

from deviceops.common.v1 import image_pb2
from deviceops.model.v1 import model_work_pb2
from domains.errors import Violation, excerpt
from domains.model.conversion import Conversion, ConversionReport
from domains.model.model import ModelLayout
from server import convert
from server.model.messages import to_model

_FORMATS: Mapping[str, ModelLayout] = {"diffusers": ModelLayout.DIFFUSERS, "safetensors": ModelLayout.FILE}
_WORDS = {number: word for word, number in convert.PRECISIONS.items()}


def from_conversion(message: model_work_pb2.ModelConversion) -> Conversion:
    """The conversion that is asked for. Raises INVALID_FIELD."""
    convert.refuse(_wrong(message))
    return Conversion(
        model_id=message.model_id,
        precision=_WORDS.get(message.precision, ""),
        layout=_FORMATS.get(message.format),
        destination=message.destination_path,
        new_model_id=message.new_model_id,
        keep=tuple(dict.fromkeys(message.keep_component_ids)),
    )


def _wrong(message: model_work_pb2.ModelConversion) -> list[Violation]:
    wrong: list[Violation] = []
    if not message.model_id:
        wrong.append(Violation(field="model_conversion.model_id", message="is empty; ListModels tells which there are"))
    if not message.destination_path:
        text = "is empty; name the new file or folder"
        wrong.append(Violation(field="model_conversion.destination_path", message=text))
    if message.precision and message.precision not in _WORDS:
        name, able = image_pb2.Precision.Name(message.precision), ", ".join(convert.PRECISIONS)
        text = f"{name} is no precision that weights are converted to; able are {able}"
        wrong.append(Violation(field="model_conversion.precision", message=text, allowed=able))
    if message.format and message.format not in _FORMATS:
        text = f"{excerpt(message.format)!r} is no format; {' or '.join(_FORMATS)}"
        wrong.append(Violation(field="model_conversion.format", message=text, allowed=", ".join(_FORMATS)))
    return wrong


def to_conversion(asked: Conversion) -> model_work_pb2.ModelConversion:
    """The message of what was asked for."""
    return model_work_pb2.ModelConversion(
        model_id=asked.model_id,
        precision=convert.PRECISIONS[asked.precision] if asked.precision else image_pb2.PRECISION_UNSPECIFIED,
        format=next((name for name, layout in _FORMATS.items() if layout is asked.layout), ""),
        destination_path=asked.destination,
        new_model_id=asked.new_model_id,
        keep_component_ids=asked.keep,
    )


def to_conversion_report(report: ConversionReport) -> model_work_pb2.ModelConversionReport:
    """The message of a conversion's report."""
    written = report.written
    return model_work_pb2.ModelConversionReport(
        model=to_model(report.model, [], whole=False),
        source_model_id=report.source_model_id,
        converted_tensor_count=written.converted,
        copied_tensor_count=written.copied,
        max_absolute_error=written.max_absolute_error,
        clamped_count=written.clamped,
        written_bytes=written.written_bytes,
        duration=convert.to_duration(report.duration_s),
    )
