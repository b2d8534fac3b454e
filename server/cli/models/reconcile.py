"""`deviceops models reconcile`: where a cache of model files and the server disagree."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import emit, print_json, word
from server.cli.console.tables import print_table

if TYPE_CHECKING:
    from deviceops.model.v1.model_cache_pb2 import ModelCacheMismatch
    from deviceops.model.v1.model_service_pb2 import ReconcileModelCacheRequest, ReconcileModelCacheResponse

_DISAGREES = 1
"""Exit status if there is a disagreement."""


def reconcile(
    cache: Annotated[
        str,
        typer.Argument(
            help='JSON file with the cache, as ReconcileModelCacheRequest has it: {"entries": [{"modelId": …}]}; - is stdin.'
        ),
    ],
    repair: Annotated[bool, typer.Option("--repair", help="Unload idle models that are out of date.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Compare a cache of model files with the server; status 1 if they disagree."""
    request = _read(cache)
    request.repair = request.repair or repair
    with connect(address) as connection:
        answer = connection.model.ReconcileModelCache(request)
    print_json(answer) if json else _tell(answer)
    if answer.mismatches:
        raise typer.Exit(_DISAGREES)


def _read(cache: str) -> ReconcileModelCacheRequest:
    """The request in a file. Raises `CliError` (usage) for text that is none."""
    from google.protobuf import json_format

    from deviceops.model.v1 import model_service_pb2

    text = sys.stdin.read() if cache == "-" else Path(cache).read_text("utf-8")
    try:
        return json_format.Parse(text, model_service_pb2.ReconcileModelCacheRequest())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise CliError(f"{cache} is no ReconcileModelCacheRequest in JSON: {error}", USAGE) from None


def _tell(answer: ReconcileModelCacheResponse) -> None:
    print_table(
        ("disagreement", "model", "component", "blob", "what to do"), map(_row, answer.mismatches), "All agrees."
    )
    for what, names in (("in use", answer.blob_ids_in_use), ("needed by waiting jobs", answer.prefetch_model_ids)):
        if names:
            emit(f"{what}: {', '.join(names)}")


def _row(one: ModelCacheMismatch) -> tuple[str, ...]:
    from deviceops.model.v1 import model_cache_pb2

    kind = word(model_cache_pb2.ModelCacheMismatchKind.Name(one.kind), "MODEL_CACHE_MISMATCH_KIND_")
    done = f"{one.action_taken}; {one.message}" if one.action_taken else one.message
    return kind, one.model_id, one.component_id or "–", one.blob_id or "–", done
