"""`deviceops models convert`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.calls.job_call import last_of
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import bytes_text, emit, notice
from server.cli.models.load import Precision

if TYPE_CHECKING:
    from deviceops.model.v1.model_work_pb2 import ModelConversionReport

_FILES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".safetensors")


class FormatName(StrEnum):
    """Layouts of a model's files."""

    DIFFUSERS = "diffusers"
    SAFETENSORS = "safetensors"


def convert(
    source: Annotated[str, typer.Argument(help="A pickle on this machine, or the id of a model of the server.")],
    to: Annotated[Path | None, typer.Option("--to", help="The new file or folder. [of a pickle: beside it]")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the weights. [default: as they are]")] = None,
    layout: Annotated[FormatName | None, typer.Option("--format", help="[default: as it is]")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Keep this component's precision; may be repeated.")] = None,
    new_id: Annotated[str, typer.Option("--id", help="Of the new model. [default: from the path]")] = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Write a model in another precision or layout, or a pickle of tensors as safetensors. Ctrl-C cancels.

    A .ckpt, .pt, .pth or .bin file is read on this machine, in a process that is thrown away: code in it is not run, and a
    file that holds anything else than tensors is refused. A model of the server becomes a new one, in one of its roots.
    """
    if Path(source).suffix.lower() in _FILES:
        _convert_pickle(Path(source), to)
        return
    if to is None:
        raise CliError(
            "say with --to where the new model shall lie: a file or folder in a model root of the server", USAGE
        )
    from deviceops.common.v1 import image_pb2
    from deviceops.model.v1 import model_service_pb2, model_work_pb2

    work = model_work_pb2.ModelConversion(
        destination_path=str(to.absolute()),
        format=layout.value if layout else "",
        new_model_id=new_id,
        keep_component_ids=keep or [],
    )
    if precision:
        work.precision = image_pb2.Precision.Value(f"PRECISION_{precision.upper()}")
    with connect(address) as connection:
        work.model_id = ids.model(connection, source)
        call = connection.model.ConvertModel(model_service_pb2.ConvertModelRequest(model_conversion=work))
        report = last_of(connection, call, f"convert {work.model_id}", json=json).report
    if not json:
        _tell(report)


def _convert_pickle(source: Path, to: Path | None) -> None:
    from domains.model.convert_pickle import convert_pickle

    done = convert_pickle(source, to)
    emit(f"{done.path}: {done.tensors} tensors, {bytes_text(done.written_bytes)}")
    if done.left_out:
        notice(f"{done.left_out} entries are no tensors and were left out")


def _tell(report: ModelConversionReport) -> None:
    counts = f"{report.converted_tensor_count} tensors converted, {report.copied_tensor_count} copied"
    emit(f"{report.source_model_id} is converted to {report.model.id}: {counts}, {bytes_text(report.written_bytes)}")
    if report.HasField("max_absolute_error"):
        emit(f"largest change of a weight: {report.max_absolute_error:.3g}")
    if report.clamped_count:
        notice(f"{report.clamped_count} weights were too large for the precision and became its largest value")
