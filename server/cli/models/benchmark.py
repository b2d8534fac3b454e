"""`deviceops models benchmark`: how fast a model loads and runs on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.calls.job_call import last_of
from server.cli.console.failure import USAGE, CliError, one_line
from server.cli.console.printing import duration_s, emit, measured_bytes, notice, seconds_text
from server.cli.console.tables import print_reasons, print_table
from server.cli.models.load import (
    AttentionOption,
    AttentionSlicingOption,
    CompileOption,
    Precision,
    Quantization,
    VaeSlicingOption,
    VaeTileOption,
    VaeTilingOption,
    put_precisions,
    put_ways,
)

if TYPE_CHECKING:
    from deviceops.common.v1.measurement_pb2 import LatencySummary
    from deviceops.model.v1.model_work_pb2 import ModelBenchmark, ModelBenchmarkCase, ModelBenchmarkReport

_HEADS = ("size", "pictures", "steps", "run", "step", "pictures/s", "peak", "runs")


def benchmark(
    model: Annotated[str, typer.Argument(help="The model's id, or its beginning.")],
    device: Annotated[str, typer.Option(help="On this device. [default: the server chooses]")] = "",
    size: Annotated[
        list[str] | None, typer.Option(help="WIDTHxHEIGHT; may be repeated. [default: the model's own]")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Pictures at once; may be repeated. [default: 1]")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. [default: the sampler's own]")] = None,
    sampler: Annotated[str, typer.Option(help="[default: the model's own]")] = "",
    precision: Annotated[Precision | None, typer.Option(help="Of the denoiser. [default: the device's best]")] = None,
    quantization: Annotated[
        Quantization | None, typer.Option(help="Store the denoiser's weights in fewer bits. [default: none]")
    ] = None,
    attention: AttentionOption = None,
    attention_slicing: AttentionSlicingOption = None,
    vae_slicing: VaeSlicingOption = None,
    vae_tiling: VaeTilingOption = None,
    vae_tile_px: VaeTileOption = 0,
    compiled: CompileOption = None,
    runs: Annotated[int, typer.Option(help="Runs that are counted.")] = 5,
    warmup: Annotated[int, typer.Option(help="Runs before them that are not.")] = 1,
    loads: Annotated[int, typer.Option(help="How often to load it anew, to measure that too.")] = 0,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model on a device. It runs alone there, in its turn; Ctrl-C cancels it. With --json: one event a line."""
    from deviceops.model.v1 import model_service_pb2, model_work_pb2

    work = model_work_pb2.ModelBenchmark(
        batch_sizes=batch or [], steps=steps, sampler=sampler, runs=runs, warmup_runs=warmup, load_runs=loads
    )
    _put_sizes(work, size or ())
    put_precisions(work, precision, None, None)
    if quantization:
        work.execution.quantization = quantization
    put_ways(work, attention, attention_slicing, vae_slicing, vae_tiling, vae_tile_px, compiled)
    with connect(address) as connection:
        work.model_id = ids.model(connection, model)
        request = model_service_pb2.BenchmarkModelRequest(model_benchmark=work)
        if device:
            request.options.devices.device_ids.append(ids.device(connection, device))
        call = connection.model.BenchmarkModel(request)
        report = last_of(connection, call, f"benchmark {work.model_id}", json=json).report
    if not json:
        _tell(report)


def _put_sizes(work: ModelBenchmark, sizes: list[str] | tuple[str, ...]) -> None:
    for text in sizes:
        width, _, height = text.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise CliError(f"{text!r} is no size; write WIDTHxHEIGHT, 512x512 for example", USAGE)
        work.sizes.add(width_px=int(width), height_px=int(height))


def _tell(report: ModelBenchmarkReport) -> None:
    about = report.environment
    emit(
        f"{report.model_id} on {report.device_id}, {about.device_name}: {', '.join(about.libraries)}; {report.sampler}"
    )
    if report.HasField("load_latency"):
        emit(f"load: {_latency(report.load_latency)}, {report.load_latency.sample_count} loads")
    print_table(_HEADS, map(_row, report.cases), "Nothing was measured.")
    print_reasons((_size(case), one_line(case.failure) if case.HasField("failure") else "") for case in report.cases)
    for warning in report.warnings:
        notice(f"Warning: {warning}")


def _size(case: ModelBenchmarkCase) -> str:
    return f"{case.size.width_px}×{case.size.height_px}"


def _latency(summary: LatencySummary) -> str:
    return f"{seconds_text(duration_s(summary.p50))} (median)"


def _row(case: ModelBenchmarkCase) -> tuple[str, ...]:
    measured = case.HasField("run_latency")
    return (
        _size(case),
        str(case.batch_size),
        str(case.steps),
        seconds_text(duration_s(case.run_latency.p50)) if measured else "–",
        seconds_text(duration_s(case.step_latency.p50)) if case.HasField("step_latency") else "–",
        f"{case.images_per_second:.3g}" if case.HasField("images_per_second") else "–",
        measured_bytes(case, "peak_device_bytes"),
        str(case.run_latency.sample_count),
    )
