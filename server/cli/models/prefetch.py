"""`deviceops models prefetch`: which models will be needed soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.printing import emit, notice, print_json
from server.cli.console.tables import print_reasons
from server.cli.models.load import put_components

if TYPE_CHECKING:
    from deviceops.model.v1.model_service_pb2 import PrefetchModelsResponse


def prefetch(
    models: Annotated[
        list[str] | None, typer.Argument(help="Their ids, or their beginnings. [default: takes earlier hints back]")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Needed on this device; may be repeated.")] = None,
    in_s: Annotated[float, typer.Option("--in", help="Seconds until they are needed.")] = 0,
    component: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODEL", help="With this component of another model; may be repeated."),
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="Without this component; may be repeated.")] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Have models read into host memory while nothing else needs the room. Replaces earlier hints."""
    from deviceops.model.v1 import model_service_pb2 as pb

    with connect(address) as connection:
        devices = [ids.device(connection, name) for name in device or ()]
        hints = [pb.PrefetchHint(model_id=ids.model(connection, name)) for name in models or ()]
        for hint in hints:
            hint.devices.device_ids.extend(devices)
            put_components(connection, hint, component, without)
            if in_s:
                hint.need_in.FromNanoseconds(round(in_s * 1e9))
        answer = connection.model.PrefetchModels(pb.PrefetchModelsRequest(hints=hints))
    if json:
        return print_json(answer)
    _tell(answer)
    return print_reasons((one.field, one.message) for one in answer.findings)


def _tell(answer: PrefetchModelsResponse) -> None:
    for what, names in (("read ahead", answer.accepted_model_ids), ("loaded there already", answer.ready_model_ids)):
        if names:
            emit(f"{what}: {', '.join(names)}")
    if not (answer.accepted_model_ids or answer.ready_model_ids or answer.findings):
        notice("No model is read ahead any more.")
