"""`deviceops models register` and `forget`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.console.printing import emit, notice, print_json
from server.cli.models.inspect import severity

if TYPE_CHECKING:
    from deviceops.model.v1.model_service_pb2 import RegisterModelRequest


def register(
    base: Annotated[str, typer.Argument(help="A path of the server's disk, or the model that gives the family.")],
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", help="A component from another model: `vae=other-model`. May be given several times."),
    ] = None,
    model_id: Annotated[str, typer.Option("--id", help="Id of the new model. Default: made from its name.")] = "",
    name: Annotated[str, typer.Option("--name", help="Its name for people.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Only say what would be; register nothing.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Make a model known: files in a model root, or components of models that are known. Copies nothing."""
    with connect(address) as connection:
        request = _request(connection, base, parts or [])
        request.model_id, request.display_name, request.validate_only = model_id, name, check
        answer = connection.model.RegisterModel(request)
    if json:
        return print_json(answer)
    what = "would be registered as" if check else "was known already as" if answer.already_known else "is registered as"
    emit(f"The model {what} {answer.model.id}.")
    for finding in answer.findings:
        notice(f"{severity(finding.severity)}: {finding.message}")
    return None


def forget(
    model: Annotated[str, typer.Argument(help="The model's id or its beginning.")], address: AddressOption = None
) -> None:
    """Forget a model. Its files stay; a model whose files lie in a root is found again by the next scan."""
    from deviceops.model.v1 import model_service_pb2

    with connect(address) as connection:
        model_id = ids.model(connection, model)
        connection.model.ForgetModel(model_service_pb2.ForgetModelRequest(model_id=model_id))
    emit(f"{model_id} is forgotten; its files are where they were.")


def _request(connection: Connection, base: str, parts: list[str]) -> RegisterModelRequest:
    """With parts: a model assembled from other models. A path without parts: the files at the path."""
    from deviceops.model.v1 import execution_pb2, model_service_pb2

    if not parts and ("/" in base or "\\" in base or Path(base).exists()):
        source = model_service_pb2.ModelPathSource(path=str(Path(base).absolute()))
        return model_service_pb2.RegisterModelRequest(path_source=source)
    named = [_part(text) for text in parts]
    components = [
        execution_pb2.ComponentSource(component_id=component, model_id=ids.model(connection, model))
        for component, model in named
    ]
    base_id = ids.model(connection, base)
    made = model_service_pb2.ModelPartsSource(base_model_id=base_id, components=components)
    return model_service_pb2.RegisterModelRequest(parts_source=made)


def _part(text: str) -> tuple[str, str]:
    component, sign, model = text.partition("=")
    if not (component and sign and model):
        raise typer.BadParameter(f"{text!r} is no part; write COMPONENT=MODEL, for example vae=other-model")
    return component, model
