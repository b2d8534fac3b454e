"""`deviceops models validate` and `hashes`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.calls.job_call import last_of
from server.cli.console.printing import bytes_text, emit, print_json, word
from server.cli.console.tables import print_table

if TYPE_CHECKING:
    from deviceops.model.v1.model_pb2 import Model, ModelFile
    from deviceops.model.v1.model_work_pb2 import ModelValidationReport

_INVALID = 1
"""Exit status for a model with an error."""


class DepthName(StrEnum):
    """How closely to look."""

    HEADER = "header"
    CHECKSUM = "checksum"
    VALUES = "values"
    EXECUTE = "execute"


def validate(
    model: Annotated[str, typer.Argument(help="The model's id, or its beginning.")],
    depth: Annotated[
        DepthName, typer.Option(help="values looks at every weight for NaN; execute computes a step too.")
    ] = DepthName.CHECKSUM,
    component: Annotated[list[str] | None, typer.Option(help="Only this component; may be repeated.")] = None,
    sha256: Annotated[str, typer.Option(help="The hash that it must have. [default: the noted one]")] = "",
    base: Annotated[str, typer.Option(help="The model that it must go together with.")] = "",
    device: Annotated[str, typer.Option(help="The device that it must fit.")] = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Check a model's files for damage; status 1 if there is some. Ctrl-C cancels. With --json: one event a line."""
    from deviceops.model.v1 import model_service_pb2, model_work_pb2

    with connect(address) as connection:
        work = model_work_pb2.ModelValidation(
            model_id=ids.model(connection, model),
            depth=model_work_pb2.ModelValidationDepth.Value(f"MODEL_VALIDATION_DEPTH_{depth.name}"),
            component_ids=component or [],
            expected_sha256=sha256,
            base_model_id=ids.model(connection, base) if base else "",
            device_id=ids.device(connection, device) if device else "",
        )
        call = connection.model.ValidateModel(model_service_pb2.ValidateModelRequest(model_validation=work))
        report = last_of(connection, call, f"validate {work.model_id}", json=json).report
    if not json:
        _tell(report)
    if not report.valid:
        raise typer.Exit(_INVALID)


def _tell(report: ModelValidationReport) -> None:
    from deviceops.common.v1 import error_pb2

    for finding in report.findings:
        emit(f"{word(error_pb2.Severity.Name(finding.severity), 'SEVERITY_')}: {finding.message}")
    counts = f"{report.tensor_count} tensors, {bytes_text(report.read_bytes)} read"
    if report.HasField("non_finite_count"):
        counts += f", {report.non_finite_count} values NaN or infinite"
    emit(f"{report.model.id} is {'whole' if report.valid else 'damaged'}: {counts}")


def hashes(
    model: Annotated[str, typer.Argument(help="The model's id, or its beginning.")],
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """The hashes of a model's weight files, also as other tools print them."""
    from deviceops.model.v1 import model_service_pb2

    with connect(address) as connection:
        request = model_service_pb2.GetModelRequest(model_id=ids.model(connection, model))
        found = connection.model.GetModel(request).model
    return print_json(found) if json else _print(found)


def _print(model: Model) -> None:
    files = {file.path: file for part in model.components for file in part.files if file.sha256}
    heads = ("file", "AutoV2", "AutoV3", "A1111", "SHA-256")
    print_table(heads, map(_row, files.values()), "No hashes are known: `deviceops models --scan`.")


def _row(file: ModelFile) -> tuple[str, ...]:
    return (file.path, file.sha256[:10], file.data_sha256[:12] or "–", file.short_hash or "–", file.sha256)
