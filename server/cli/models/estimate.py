"""`deviceops models estimate`: what a load would cost on each device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.printing import bytes_text, duration_s, measured_bytes, print_json, seconds_text
from server.cli.console.tables import print_reasons, print_table
from server.cli.models.load import Precision, Quantization, put_components, put_precisions

if TYPE_CHECKING:
    from deviceops.model.v1.model_estimate_pb2 import ModelEstimate

_HEADS = ("device", "fits", "weights", "peak", "available", "load", "step", "evicts", "samples")


def estimate(
    model: Annotated[str, typer.Argument(help="The model's id, or its beginning.")],
    device: Annotated[list[str] | None, typer.Option(help="On this device; may be repeated.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the denoiser. [default: the device's best]")] = None,
    text_precision: Annotated[
        Precision | None, typer.Option(help="Of the text encoders. [default: the denoiser's]")
    ] = None,
    vae_precision: Annotated[Precision | None, typer.Option(help="Of the VAE. [default: the denoiser's]")] = None,
    quantization: Annotated[
        Quantization | None, typer.Option(help="Store the denoiser's weights in fewer bits. [default: none]")
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODEL", help="Take this component from another model; may be repeated."),
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave this component out; may be repeated.")] = None,
    width: Annotated[int, typer.Option(help="Of the pictures to be made. [default: the model's own]")] = 0,
    height: Annotated[int, typer.Option(help="Of the pictures to be made. [default: the model's own]")] = 0,
    batch: Annotated[int, typer.Option(help="Pictures at once.")] = 1,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what a load and its use would cost, before anything moves. `–` is what could not be forecast yet."""
    from deviceops.model.v1 import model_service_pb2 as pb

    with connect(address) as connection:
        request = pb.EstimateModelRequest(batch_size=batch)
        request.model_load.model_id = ids.model(connection, model)
        put_components(connection, request.model_load, component, without)
        put_precisions(request.model_load, precision, text_precision, vae_precision)
        if quantization:
            request.model_load.execution.quantization = quantization
        request.devices.device_ids.extend(ids.device(connection, name) for name in device or ())
        if width or height:
            request.size.width_px, request.size.height_px = width, height
        answer = connection.model.EstimateModel(request)
    if json:
        return print_json(answer)
    print_table(_HEADS, map(_row, answer.estimates), "No device could take it.")
    return print_reasons((one.device_id, "; ".join(f.message for f in one.findings)) for one in answer.estimates)


def _row(one: ModelEstimate) -> tuple[str, ...]:
    return (
        one.device_id,
        "yes" if one.fits else "no",
        bytes_text(one.weights_bytes),
        measured_bytes(one, "peak_device_bytes"),
        measured_bytes(one, "available_device_bytes"),
        seconds_text(duration_s(one.load_time)) if one.HasField("load_time") else "–",
        seconds_text(duration_s(one.step_time)) if one.HasField("step_time") else "–",
        ", ".join(each.loaded_model_id for each in one.evictions) or "–",
        str(one.sample_count),
    )
