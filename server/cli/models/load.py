"""`deviceops models load` and `unload`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.calls.job_call import last_of
from server.cli.console.amounts import byte_count
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import emit, measured_bytes, notice, print_json
from server.cli.generation.component_flags import components_of

Precision = Literal["float32", "float16", "bfloat16"]
Offload = Literal["none", "component", "layer"]
Quantization = Literal["none", "fp8_e4m3", "int8"]
Attention = Literal["flash", "memory_efficient", "cudnn", "math"]
AttentionOption = Annotated[
    Attention | None, typer.Option(help="The attention kernel. [default: the best for each call]")
]
AttentionSlicingOption = Annotated[
    bool | None, typer.Option(help="Compute attention in slices: less memory with math, slower. [default: not]")
]
VaeSlicingOption = Annotated[
    bool | None, typer.Option(help="Decode the pictures of a job one after the other, or all at once. [default: so]")
]
VaeTilingOption = Annotated[
    bool | None, typer.Option(help="Decode in tiles, or never. [default: only where memory is short]")
]
VaeTileOption = Annotated[
    int, typer.Option("--vae-tile", metavar="PX", help="With --vae-tiling: edge of the tiles. [default: 512]")
]
CompileOption = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Compile the denoiser: slow first picture of a shape. [default: not]"),
]

if TYPE_CHECKING:
    from deviceops.model.v1.loaded_model_pb2 import LoadedModel
    from deviceops.model.v1.model_service_pb2 import (
        LoadModelRequest,
        PrefetchHint,
        UnloadModelRequest,
        UnloadModelResponse,
    )
    from deviceops.model.v1.model_work_pb2 import ModelBenchmark, ModelLoad


def load(
    model: Annotated[str, typer.Argument(help="The model's id, or its beginning.")],
    device: Annotated[str, typer.Option(help="On this device. [default: the server chooses]")] = "",
    host: Annotated[
        bool, typer.Option("--host", help="Into host memory only, from which each device then loads faster.")
    ] = False,
    pin: Annotated[bool, typer.Option("--pin", help="Keep it when others need room.")] = False,
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
    without: Annotated[
        list[str] | None, typer.Option(help="Leave this component out, text_encoder_3; may be repeated.")
    ] = None,
    offload: Annotated[
        Offload | None,
        typer.Option(
            help="Which parts wait in host memory while they do not compute. [default: none, if all have room]"
        ),
    ] = None,
    offload_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="With --offload layer: device memory for what computes, 6GiB. [default: the least]"
        ),
    ] = None,
    attention: AttentionOption = None,
    attention_slicing: AttentionSlicingOption = None,
    vae_slicing: VaeSlicingOption = None,
    vae_tiling: VaeTilingOption = None,
    vae_tile_px: VaeTileOption = 0,
    compiled: CompileOption = None,
    keep_s: Annotated[
        float | None, typer.Option("--keep", help="Seconds that it stays without being used. [default: the server's]")
    ] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a model into a device's memory before a job needs it. Ctrl-C cancels. With --json: one event a line."""
    from deviceops.model.v1 import execution_pb2, loaded_model_pb2

    with connect(address) as connection:
        request = _load_request(connection, model, device, pin, keep_s)
        put_precisions(request.model_load, precision, text_precision, vae_precision)
        put_components(connection, request.model_load, component, without)
        if quantization:
            request.model_load.execution.quantization = quantization
        if offload:
            request.model_load.execution.offload = execution_pb2.OffloadMode.Value(f"OFFLOAD_MODE_{offload.upper()}")
        if offload_budget:
            request.model_load.execution.offload_budget_bytes = byte_count(offload_budget, "--offload-budget")
        put_ways(request.model_load, attention, attention_slicing, vae_slicing, vae_tiling, vae_tile_px, compiled)
        if host:
            request.model_load.tier = loaded_model_pb2.MODEL_TIER_HOST
        call = connection.model.LoadModel(request)
        loaded = last_of(connection, call, f"load {request.model_load.model_id}", json=json).loaded_model
    if not json:
        there = " already" if loaded.reused else ""
        emit(f"{loaded.id} is loaded{there}; {_where(loaded)}")


def put_components(
    connection: Connection, work: ModelLoad | PrefetchHint, given: list[str] | None, without: list[str] | None
) -> None:
    """Set the components that replace the model's own, or are left out."""
    for one in components_of(given or (), without or ()):
        work.components.add(
            component_id=one.component,
            model_id=ids.model(connection, one.model) if one.model else "",
            omitted=not one.model,
        )


def _where(loaded: LoadedModel) -> str:
    """Where the bytes of the loaded model are, as text."""
    from deviceops.model.v1 import execution_pb2

    if loaded.execution.offload in (execution_pb2.OFFLOAD_MODE_COMPONENT, execution_pb2.OFFLOAD_MODE_LAYER):
        layers = ", some layer by layer" if loaded.execution.offload == execution_pb2.OFFLOAD_MODE_LAYER else ""
        waiting = measured_bytes(loaded, "mapped_bytes")
        return f"its parts wait in their files ({waiting}), and take turns in device memory{layers}"
    if loaded.device_id:
        return f"device memory {measured_bytes(loaded, 'device_bytes')}"
    if loaded.HasField("mapped_bytes"):
        return f"{measured_bytes(loaded, 'mapped_bytes')} in the file cache, which the system may drop"
    return f"host memory {measured_bytes(loaded, 'host_bytes')}"


def put_precisions(work: ModelLoad | ModelBenchmark, denoiser: str | None, text: str | None, vae: str | None) -> None:
    """Set the given precisions in a load or a benchmark."""
    from deviceops.common.v1 import image_pb2

    pairs = ("precision", denoiser), ("text_encoder_precision", text), ("vae_precision", vae)
    for field, name in pairs:
        if name:
            setattr(work.execution, field, image_pb2.Precision.Value(f"PRECISION_{name.upper()}"))


def put_ways(
    work: ModelLoad | ModelBenchmark,
    attention: str | None,
    attention_slicing: bool | None,
    vae_slicing: bool | None,
    vae_tiling: bool | None,
    vae_tile_px: int,
    compiled: bool | None,
) -> None:
    """Set the given ways to compute in a load or a benchmark."""
    given = {
        "attention_kernel": attention,
        "attention_slicing": attention_slicing,
        "vae_slicing": vae_slicing,
        "vae_tiling": vae_tiling,
        "vae_tile_px": vae_tile_px or None,
        "compile": compiled,
    }
    for name, way in given.items():
        if way is not None:
            setattr(work.execution, name, way)


def _load_request(connection: Connection, model: str, device: str, pin: bool, keep_s: float | None) -> LoadModelRequest:
    from deviceops.common.v1 import job_event_pb2
    from deviceops.model.v1 import model_service_pb2, model_work_pb2

    options = job_event_pb2.JobOptions()
    if device:
        options.devices.device_ids.append(ids.device(connection, device))
    work = model_work_pb2.ModelLoad(model_id=ids.model(connection, model), pinned=pin)
    if keep_s is not None:
        work.keep_alive.FromNanoseconds(round(keep_s * 1e9))
    return model_service_pb2.LoadModelRequest(model_load=work, options=options)


def unload(
    model: Annotated[
        str | None, typer.Argument(help="A model (all its loads), or one load as `models` lists it; or its beginning.")
    ] = None,
    device: Annotated[str, typer.Option(help="All that is loaded on this device.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All on all devices.")] = False,
    drain_s: Annotated[
        float | None, typer.Option(min=0, max=3600, help="Seconds that running jobs may take to end. Default: 30.")
    ] = None,
    keep_on_host: Annotated[
        bool, typer.Option("--keep-on-host", help="Keep the weights in host memory, for a faster return.")
    ] = False,
    force: Annotated[bool, typer.Option(help="End the jobs that still run then.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Take models out of memory once no job uses them."""
    if sum((model is not None, bool(device), everything)) != 1:
        raise CliError("name what to unload: a model, --device ID or --all", USAGE)
    with connect(address) as connection:
        request = _unload_request(connection, model, device)
        request.force, request.keep_on_host = force, keep_on_host
        if drain_s is not None:
            request.drain_timeout.FromNanoseconds(round(drain_s * 1e9))
        answer = connection.model.UnloadModel(request)
    return print_json(answer) if json else _tell(answer)


def _unload_request(connection: Connection, model: str | None, device: str) -> UnloadModelRequest:
    from deviceops.model.v1 import model_service_pb2 as pb

    if device:
        return pb.UnloadModelRequest(device_id=ids.device(connection, device))
    if model is None:
        return pb.UnloadModelRequest(all=pb.EveryLoadedModel())
    loaded = connection.model.ListLoadedModels(pb.ListLoadedModelsRequest()).loaded_models
    if any(one.id == model for one in loaded):
        return pb.UnloadModelRequest(loaded_model_id=model)
    return pb.UnloadModelRequest(model_id=ids.model(connection, model))


def _tell(answer: UnloadModelResponse) -> None:
    if not answer.loaded_model_ids:
        return notice("Nothing of that was loaded.")
    device, host = measured_bytes(answer, "freed_device_bytes"), measured_bytes(answer, "freed_host_bytes")
    ended = f"; ended {', '.join(answer.ended_job_ids)}" if answer.ended_job_ids else ""
    return emit(
        f"unloaded {', '.join(answer.loaded_model_ids)}{ended}; gave back {device} of device memory, {host} of the host's"
    )
