"""`deviceops reproduce`: makes a picture again from what its file says, and compares."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.failure import CliError
from server.cli.console.printing import emit, notice, print_json, word
from server.cli.generation.input_image import input_image
from server.cli.generation.pictures import save_blob
from server.cli.generation.run import check_ended_well

if TYPE_CHECKING:
    from deviceops.inference.v1.inference_service_pb2 import ReproduceImageResponse
    from deviceops.inference.v1.reproduction_pb2 import ReproductionReport


def reproduce(
    file: Annotated[Path, typer.Argument(help="A picture of this server, A1111, ComfyUI or InvokeAI.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the new picture to this file.")] = None,
    model: Annotated[str, typer.Option(help="A model's id. [default: the one that the file names]")] = "",
    tolerance: Annotated[
        int | None, typer.Option(help="Largest difference of a colour that counts as the same. [default: 2]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Make a picture again from what its file says, and tell whether it is the same and what differs."""
    from deviceops.inference.v1 import inference_service_pb2

    if out is not None and out.exists() and not force:
        raise CliError(f"{out} exists; --force overwrites it")
    with connect(address) as connection:
        request = inference_service_pb2.ReproduceImageRequest(request_id=str(uuid.uuid4()))
        request.reproduction.image.CopyFrom(input_image(connection, file))
        request.reproduction.model_id = ids.model(connection, model) if model else ""
        if tolerance is not None:
            request.reproduction.tolerance = tolerance
        messages = list(connection.inference.ReproduceImage(request))
        report = _report(messages[-1])
        if out is not None:
            save_blob(connection, report.image.file, out, force=force)
    return print_json(report) if json else _tell(report)


def _report(last: ReproduceImageResponse) -> ReproductionReport:
    """The report of the last message. Raises `CliError` for a job that ended otherwise."""
    check_ended_well(last.event)
    if last.WhichOneof("output") != "report":
        raise CliError("the server ended the call before the job had an end")
    return last.report


def _tell(report: ReproductionReport) -> None:
    emit(word(_verdict(report), "REPRODUCTION_VERDICT_"))
    if report.max_difference:
        share = f"{report.different_pixels_ratio:.1%}"
        emit(f"largest difference {report.max_difference}, mean {report.mean_difference:.2g}, {share} of the pixels")
    for cause in report.causes:
        notice(f"{cause.name}: was {cause.original_value or 'not said'}, is {cause.present_value or 'missing'}")


def _verdict(report: ReproductionReport) -> str:
    from deviceops.inference.v1 import reproduction_pb2

    return reproduction_pb2.ReproductionVerdict.Name(report.verdict)
