"""`deviceops models`: the models that the server knows, and the devices that they are loaded on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.calls.job_call import last_of
from server.cli.calls.pages import LARGEST_PAGE, pages
from server.cli.console.failure import one_line
from server.cli.console.printing import bytes_text, notice, print_json, word
from server.cli.console.tables import print_reasons, print_table
from server.cli.groups import lists_only
from server.cli.models import benchmark as model_benchmark
from server.cli.models import convert as model_convert
from server.cli.models import estimate as model_estimate
from server.cli.models import inspect as model_inspect
from server.cli.models import load as model_load
from server.cli.models import loaded
from server.cli.models import prefetch as model_prefetch
from server.cli.models import reconcile as model_reconcile
from server.cli.models import register as model_register
from server.cli.models import validate as model_validate

if TYPE_CHECKING:
    from deviceops.model.v1.loaded_model_pb2 import LoadedModel
    from deviceops.model.v1.model_pb2 import Model
    from deviceops.model.v1.model_service_pb2 import ListModelsResponse
    from deviceops.model.v1.model_work_pb2 import ModelScanReport


app = typer.Typer(help="List the models that the server knows, load them or unload them.", invoke_without_command=True)
app.command("inspect")(model_inspect.inspect)
app.command("convert")(model_convert.convert)
app.command("register")(model_register.register)
app.command("forget")(model_register.forget)
app.command("load")(model_load.load)
app.command("unload")(model_load.unload)
app.command("prefetch")(model_prefetch.prefetch)
app.command("loaded")(loaded.loaded)
app.command("estimate")(model_estimate.estimate)
app.command("keep")(loaded.keep)
app.command("validate")(model_validate.validate)
app.command("benchmark")(model_benchmark.benchmark)
app.command("reconcile")(model_reconcile.reconcile)
app.command("hashes")(model_validate.hashes)


@app.callback()
def models(
    context: typer.Context,
    scan: Annotated[bool, typer.Option("--scan", help="Look through the model folders first.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """List the models that the server knows; below them what is wrong with some."""
    if not lists_only(context):
        return None
    with connect(address) as connection:
        if scan:
            _tell_scan(_scan(connection))
        answer = _list(connection)
        outdated = [] if json else _outdated(connection)
    if json:
        return print_json(answer)
    heads = ("model", "family", "kind", "state", "size", "native size", "loaded")
    print_table(heads, map(_row, answer.models), "No models.")
    problems = ((one.id, one_line(one.problem)) for one in answer.models if one.HasField("problem"))
    not_taken = ((failure.path, one_line(failure.failure)) for failure in answer.failures)
    return print_reasons((*problems, *not_taken, *((one.id, _outdated_text(one)) for one in outdated)))


def _outdated(connection: Connection) -> list[LoadedModel]:
    from deviceops.model.v1 import model_service_pb2

    answer = connection.model.ListLoadedModels(model_service_pb2.ListLoadedModelsRequest())
    return [one for one in answer.loaded_models if one.outdated]


def _outdated_text(one: LoadedModel) -> str:
    where = f"--device {one.device_id}" if one.device_id else "--host"
    load = f"deviceops models load {one.model_id} {where}"
    return f"outdated: the model's files have changed since; `{load}`, or its next job, replaces it"


def _scan(connection: Connection) -> ModelScanReport:
    from deviceops.model.v1 import model_service_pb2

    call = connection.model.ScanModels(model_service_pb2.ScanModelsRequest())
    return last_of(connection, call, "scan", json=False).report


def _tell_scan(report: ModelScanReport) -> None:
    counts = (
        (len(report.added_model_ids), "new"),
        (len(report.changed_model_ids), "changed"),
        (len(report.missing_model_ids), "missing"),
        (report.unchanged_count, "unchanged"),
    )
    notice("Scan: " + ", ".join(f"{count} {what}" for count, what in counts) + ".")


def _list(connection: Connection) -> ListModelsResponse:
    from deviceops.model.v1 import model_service_pb2

    def page(token: str) -> ListModelsResponse:
        request = model_service_pb2.ListModelsRequest(page_size=LARGEST_PAGE, page_token=token)
        return connection.model.ListModels(request)

    answer = model_service_pb2.ListModelsResponse()
    for each in pages(page):
        answer.models.extend(each.models)
        answer.failures.extend(each.failures)
        answer.total_count = each.total_count
    return answer


def _row(model: Model) -> tuple[str, ...]:
    from deviceops.model.v1 import model_pb2

    size = model.native_size
    state = word(model_pb2.ModelState.Name(model.state), "MODEL_STATE_")
    return (
        model.id,
        model.family or "–",
        word(model_pb2.ModelKind.Name(model.kind), "MODEL_KIND_"),
        state,
        bytes_text(model.size_bytes),
        f"{size.width_px} × {size.height_px} px" if model.HasField("native_size") else "–",
        ", ".join(model.loaded_model_ids),
    )
