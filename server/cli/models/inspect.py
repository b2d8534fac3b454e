"""`deviceops models inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.console.printing import bytes_text, emit, percent, print_json, word
from server.cli.console.tables import print_table

if TYPE_CHECKING:
    from deviceops.common.v1.error_pb2 import Severity
    from deviceops.model.v1.model_pb2 import DetectionEvidence, Model, ModelComponent, ModelKind
    from deviceops.model.v1.model_service_pb2 import InspectModelRequest, InspectModelResponse


def inspect(
    what: Annotated[str, typer.Argument(help="A path of the server's disk, or a model's id or its beginning.")],
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a file, a folder or a model is, and why: kind, family, components, precision. Reads headers only."""
    with connect(address) as connection:
        answer = connection.model.InspectModel(_request(connection, what))
    if json:
        return print_json(answer)
    return _print(answer)


def _request(connection: Connection, what: str) -> InspectModelRequest:
    """A request by path if `what` has a separator or exists as a file, else by id."""
    from deviceops.model.v1 import model_service_pb2

    if "/" in what or "\\" in what or Path(what).exists():
        source = model_service_pb2.ModelPathSource(path=str(Path(what).absolute()))
        return model_service_pb2.InspectModelRequest(path_source=source)
    return model_service_pb2.InspectModelRequest(model_id=ids.model(connection, what))


def _print(answer: InspectModelResponse) -> None:
    for name, text in _facts(answer):
        emit(f"{name}: {text}")
    if answer.model.components:
        emit()
        heads = ("component", "kind", "architecture", "precision", "weights", "size")
        print_table(heads, map(_component, answer.model.components), "")
    if answer.evidence:
        emit()
        heads = ("evidence", "of", "found", "decides", "keys")
        print_table(heads, map(_evidence, answer.evidence), "")
    if answer.findings:
        emit()
    for finding in answer.findings:
        emit(f"{severity(finding.severity)}: {f'{finding.field}: ' if finding.field else ''}{finding.message}")


def _facts(answer: InspectModelResponse) -> list[tuple[str, str]]:
    model = answer.model
    confidence = percent(model.confidence_ratio) if model.HasField("confidence_ratio") else ""
    facts = (
        ("model", f"{model.id} ({'known' if answer.registered else 'not known to the server yet'})"),
        ("kind", _kind(model.kind) + (f", {confidence} of what was looked for is there" if confidence else "")),
        ("family", model.family or "not known"),
        ("variant", model.variant),
        ("goes with", ", ".join(model.compatible_families)),
        ("predicts", model.prediction_type),
        ("weights", _count(model)),
        ("size", bytes_text(model.size_bytes)),
        ("version", model.version),
    )
    return [(name, text) for name, text in facts if text]


def _count(model: Model) -> str:
    return f"{sum(component.parameter_count for component in model.components):,}"


def _component(component: ModelComponent) -> tuple[str, ...]:
    from deviceops.common.v1 import image_pb2

    precision = word(image_pb2.Precision.Name(component.precision), "PRECISION_") if component.precision else "–"
    return (
        component.id,
        _kind(component.kind),
        component.architecture or "–",
        precision,
        f"{component.parameter_count:,}" if component.parameter_count else "–",
        bytes_text(component.size_bytes),
    )


def _evidence(one: DetectionEvidence) -> tuple[str, ...]:
    shown = [*one.matched_keys[:2], *(f"no {key}" for key in one.missing_keys[:2])]
    return (
        one.source.replace("_", " "),
        one.family or _kind(one.kind),
        f"{one.matched_count} of {one.expected_count}",
        "yes" if one.decisive else "no",
        ", ".join(shown),
    )


def _kind(kind: ModelKind.ValueType) -> str:
    from deviceops.model.v1 import model_pb2

    return word(model_pb2.ModelKind.Name(kind), "MODEL_KIND_") if kind else "not known"


def severity(severity: Severity.ValueType) -> str:
    """The word for a severity."""
    from deviceops.common.v1 import error_pb2

    return word(error_pb2.Severity.Name(severity), "SEVERITY_")
