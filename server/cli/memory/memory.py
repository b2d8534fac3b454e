"""`deviceops memory`: the memory pools and their owners."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.console.printing import bytes_text, duration_s, emit, measured_bytes, print_json, seconds_text, word
from server.cli.console.screen import IntervalOption, RoundsOption, WatchOption, show_rounds
from server.cli.console.tables import print_table, table
from server.cli.groups import lists_only
from server.cli.memory import care, history

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

    from deviceops.memory.v1.memory_pool_pb2 import MemoryOwner, MemoryPool
    from deviceops.memory.v1.memory_service_pb2 import WatchMemoryPoolsResponse

app = typer.Typer(help="List memory pools, or set budgets, free memory and look back.", invoke_without_command=True)
app.command("budget")(care.budget)
app.command("reclaim")(care.reclaim)
app.command("history")(history.history)

_HEADS = ("pool", "pressure", "total", "used", "held", "live", "reserved", "available", "limit")
_OWNER_HEADS = ("pool", "owner", "id", "live", "reclaimable")


@app.callback()
def memory(
    context: typer.Context,
    owners: Annotated[bool, typer.Option("--owners", help="Tell who holds the memory, too.")] = False,
    watch: WatchOption = False,
    interval: IntervalOption = 1.0,
    rounds: RoundsOption = 0,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """List the memory pools: in use by all, held by this server, and what new work can have."""
    from deviceops.memory.v1 import memory_service_pb2

    if not lists_only(context):
        return None
    with connect(address) as connection:
        if watch:
            return _watch(connection, owners, interval, rounds, json)
        request = memory_service_pb2.ListMemoryPoolsRequest(include_owners=owners)
        answer = connection.memory.ListMemoryPools(request)
        uses = last_uses(connection) if owners and not json else {}
    if json:
        return print_json(answer)
    print_table(_HEADS, map(_row, answer.memory_pools), "No pools.")
    if owners:
        emit()
        print_table(_OWNER_HEADS, owner_rows(answer.memory_pools, uses, time.time()), "Nobody holds memory.")
    return None


def _watch(connection: Connection, owners: bool, interval_s: float, rounds: int, json: bool) -> None:
    from google.protobuf.duration_pb2 import Duration

    from deviceops.memory.v1 import memory_service_pb2

    every = Duration()
    every.FromNanoseconds(round(interval_s * 1e9))
    request = memory_service_pb2.WatchMemoryPoolsRequest(interval=every, include_owners=owners)

    def draw(message: WatchMemoryPoolsResponse) -> RenderableType:
        from rich.console import Group

        pools = table(_HEADS, map(_row, message.memory_pools))
        if not owners:
            return pools
        rows = owner_rows(message.memory_pools, last_uses(connection), time.time())
        return Group(pools, "", table(_OWNER_HEADS, rows))

    show_rounds(connection.memory.WatchMemoryPools(request), draw, rounds, json=json)


def _row(pool: MemoryPool) -> tuple[str, ...]:
    from deviceops.memory.v1 import memory_pool_pb2

    pressure = word(memory_pool_pb2.MemoryPressure.Name(pool.pressure), "MEMORY_PRESSURE_")
    return (
        pool.id,
        "–" if pressure == "unspecified" else pressure,
        measured_bytes(pool, "total_bytes"),
        measured_bytes(pool, "used_bytes"),
        measured_bytes(pool, "held_bytes"),
        measured_bytes(pool, "live_bytes"),
        bytes_text(pool.reserved_bytes),
        measured_bytes(pool, "available_bytes"),
        bytes_text(pool.budget.limit_bytes) if pool.budget.HasField("limit_bytes") else "none",
    )


def last_uses(connection: Connection) -> Mapping[str, float]:
    """Unix seconds of the last use by loaded model: of its last job, or of its loading."""
    from deviceops.model.v1 import model_service_pb2

    answer = connection.model.ListLoadedModels(model_service_pb2.ListLoadedModelsRequest())
    return {
        one.id: (one.last_use_time if one.HasField("last_use_time") else one.load_time).ToNanoseconds() / 1e9
        for one in answer.loaded_models
    }


def owner_rows(pools: Iterable[MemoryPool], uses: Mapping[str, float], now_s: float) -> Iterable[tuple[str, ...]]:
    """Rows of owners with their bytes, and when `memory reclaim` may free them. `uses`: from `last_uses`."""
    return (
        (pool.id, *_owner_row(owner, duration_s(pool.budget.idle_after), uses.get(owner.id), now_s))
        for pool in pools
        for owner in pool.owners
    )


def _owner_row(owner: MemoryOwner, idle_after_s: float, used_s: float | None, now_s: float) -> tuple[str, ...]:
    from deviceops.memory.v1 import memory_pool_pb2

    kind = word(memory_pool_pb2.MemoryOwnerKind.Name(owner.kind), "MEMORY_OWNER_KIND_")
    left_s = 0.0 if used_s is None else used_s + idle_after_s - now_s
    when = "no" if not owner.reclaimable else f"in {seconds_text(left_s)}" if left_s > 0 else "yes"
    return kind, owner.id, bytes_text(owner.live_bytes), when
