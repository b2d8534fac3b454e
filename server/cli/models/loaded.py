"""`deviceops models loaded` and `keep`: what is loaded, and how long it stays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.failure import USAGE, CliError, one_line
from server.cli.console.printing import (
    bytes_text,
    duration_s,
    emit,
    local_time,
    measured,
    print_json,
    seconds_text,
    word,
)
from server.cli.console.tables import print_reasons, print_table

if TYPE_CHECKING:
    from deviceops.model.v1.loaded_model_pb2 import LoadedModel
    from deviceops.model.v1.model_service_pb2 import LoadedModelFilter, WatchLoadedModelsResponse
    from server.cli.calls.connection import Connection

_HEADS = ("loaded model", "state", "memory", "precision", "stays", "jobs", "last used")


def loaded(
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    device: Annotated[str | None, typer.Option(help="On this device.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow every change, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="With --watch: stop after so many lines; 0: never.")] = 0,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """List the models in the devices' memory. With --watch: one line a model, then one a change."""
    from deviceops.model.v1 import model_service_pb2 as pb

    with connect(address) as connection:
        wanted = _filter(connection, model, device)
        if watch:
            return _watch(connection, wanted, limit, json)
        answer = connection.model.ListLoadedModels(pb.ListLoadedModelsRequest(filter=wanted))
    if json:
        return print_json(answer)
    print_table(_HEADS, map(_row, answer.loaded_models), "Nothing is loaded.")
    outdated = "the model's files have changed since; its next load or job replaces it"
    return print_reasons((one.id, outdated if one.outdated else "") for one in answer.loaded_models)


def keep(
    loaded_model: Annotated[str, typer.Argument(help="A loaded model, as `models loaded` lists it.")],
    pin: Annotated[bool | None, typer.Option("--pin/--no-pin", help="Whether it stays when others need room.")] = None,
    for_s: Annotated[
        float | None,
        typer.Option("--for", help="Seconds that it stays without being used; 0: until other work needs the room."),
    ] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Change how long a loaded model stays."""
    from deviceops.model.v1 import model_service_pb2 as pb

    if pin is None and for_s is None:
        raise CliError("say what to change: --pin, --no-pin or --for SECONDS", USAGE)
    request = pb.UpdateLoadedModelRequest(loaded_model_id=loaded_model, pinned=pin)
    if for_s is not None:
        request.keep_alive.FromNanoseconds(round(for_s * 1e9))
    with connect(address) as connection:
        changed = connection.model.UpdateLoadedModel(request).loaded_model
    print_json(changed) if json else emit(f"{changed.id} stays {stay_text(changed, time.time())}")


def _filter(connection: Connection, model: str | None, device: str | None) -> LoadedModelFilter:
    from deviceops.model.v1 import model_service_pb2 as pb

    return pb.LoadedModelFilter(
        model_ids=[ids.model(connection, model)] if model else [],
        device_ids=[ids.device(connection, device)] if device else [],
    )


def _watch(connection: Connection, wanted: LoadedModelFilter, limit: int, json: bool) -> None:
    from deviceops.model.v1 import model_service_pb2 as pb

    seen = 0
    for message in connection.model.WatchLoadedModels(pb.WatchLoadedModelsRequest(filter=wanted)):
        if not message.HasField("loaded_model"):
            continue
        print_json(message, one_line=True) if json else emit(_line(message))
        seen += 1
        if seen == limit:
            return


def _line(message: WatchLoadedModelsResponse) -> str:
    """A change as text: `14:05:09  m@cpu  ready  52.1 MiB  until room is needed  job-1`."""
    one = message.loaded_model
    when = local_time(message.event_time)[-8:] if message.HasField("event_time") else ""
    told = (when, one.id, _state(one), _size(one), stay_text(one, time.time()), message.cause_job_id)
    why = one_line(one.failure) if one.HasField("failure") else ""
    return "  ".join(part for part in (*told, why) if part and part != "–")


def _row(one: LoadedModel) -> tuple[str, ...]:
    from deviceops.common.v1 import image_pb2

    precision = word(image_pb2.Precision.Name(one.execution.precision), "PRECISION_")
    if one.execution.quantization not in ("", "none"):
        precision = f"{precision}, {one.execution.quantization}"
    return (
        one.id,
        _state(one),
        _size(one),
        "–" if precision == "unspecified" else precision,
        stay_text(one, time.time()),
        str(len(one.active_job_ids)),
        local_time(one.last_use_time) if one.HasField("last_use_time") else "–",
    )


def _state(one: LoadedModel) -> str:
    from deviceops.model.v1 import loaded_model_pb2

    return word(loaded_model_pb2.LoadedModelState.Name(one.state), "LOADED_MODEL_STATE_")


def _size(one: LoadedModel) -> str:
    """Bytes of the model in device memory, as text; for a CPU or the RAM tier, in host memory."""
    size, elsewhere = measured(one, "device_bytes"), one.host_bytes or one.mapped_bytes
    return bytes_text(None if size is None and not one.HasField("host_bytes") else int(size or elsewhere))


def stay_text(one: LoadedModel, now_s: float) -> str:
    """How long a loaded model stays: `pinned`, `for 4 min 10 s`, `until room is needed`."""
    from deviceops.model.v1 import loaded_model_pb2 as pb

    if one.state in (pb.LOADED_MODEL_STATE_UNLOADED, pb.LOADED_MODEL_STATE_FAILED):
        return ""
    if one.pinned:
        return "pinned"
    if one.HasField("expire_time") and not one.active_job_ids:
        return f"for {seconds_text(max(0.0, one.expire_time.ToNanoseconds() / 1e9 - now_s))}"
    if duration_s(one.keep_alive):
        return f"for {seconds_text(duration_s(one.keep_alive))} unused"
    return "until room is needed"
