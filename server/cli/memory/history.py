"""`deviceops memory history`: the use of a pool over time, leak suspects, and recommendations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.methods import in_commands
from server.cli.console.printing import (
    bytes_text,
    duration_s,
    emit,
    local_time,
    measured,
    minutes_ago,
    notice,
    print_json,
    seconds_text,
    word,
)
from server.cli.console.sparkline import Curve, print_curves
from server.cli.console.tables import print_table

if TYPE_CHECKING:
    from deviceops.memory.v1.memory_history_pb2 import MemoryHistory, MemoryLeakSuspect


def history(
    pool: Annotated[str, typer.Argument(help="`host`, `disk`, or the id or alias of a device.")],
    minutes: Annotated[float, typer.Option(min=0.1, max=24 * 60, help="How far to look back.")] = 60,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Tell the use of a pool over time, owners that seem to leak, and what would help."""
    from deviceops.memory.v1 import memory_service_pb2

    request = memory_service_pb2.QueryMemoryHistoryRequest(start_time=minutes_ago(minutes))
    with connect(address) as connection:
        request.memory_pool_id = ids.pool(connection, pool)
        answer = connection.memory.QueryMemoryHistory(request)
    return print_json(answer) if json else _tell(answer.history)


def _tell(told: MemoryHistory) -> None:
    if not told.samples:
        return notice(f"{told.memory_pool_id}: no samples yet.")
    first, last = told.samples[0].sample_time, told.samples[-1].sample_time
    emit(
        f"{told.memory_pool_id}, {local_time(first)} to {local_time(last)}, a sample each {duration_s(told.step):g} s\n"
    )
    print_curves([_curve(told, field) for field in _FIELDS])
    counted = f"{told.allocation_count} allocations, " if told.HasField("allocation_count") else ""
    emit(f"\n{counted}{told.allocation_failure_count} allocations failed")
    if told.leak_suspects:
        heads = ("grows without more work", "holds", "grows by", "for", "windows in a row")
        print_table(heads, map(_suspect_row, told.leak_suspects), "")
    for one in told.recommendations:
        freed = f" (frees {bytes_text(one.expected_freed_bytes)})" if one.HasField("expected_freed_bytes") else ""
        emit(f"→ {in_commands(one.action)}{freed}: {one.reason}")
    return None


_FIELDS = ("used_bytes", "held_bytes", "live_bytes")


def _curve(told: MemoryHistory, field: str) -> Curve:
    values = [measured(sample, field) for sample in told.samples]
    known = [value for value in values if value is not None]
    lowest, highest, now = (
        bytes_text(None if edge is None else int(edge))
        for edge in ((min(known), max(known), values[-1]) if known else (None, None, None))
    )
    return Curve(field.removesuffix("_bytes"), values, (lowest, highest, now))


def _suspect_row(suspect: MemoryLeakSuspect) -> tuple[str, ...]:
    from deviceops.memory.v1 import memory_pool_pb2

    kind = word(memory_pool_pb2.MemoryOwnerKind.Name(suspect.owner.kind), "MEMORY_OWNER_KIND_")
    return (
        f"{kind} {suspect.owner.id}".strip(),
        bytes_text(suspect.owner.live_bytes),
        f"{bytes_text(round(suspect.growth_bytes_per_second))}/s",
        seconds_text(duration_s(suspect.growing_for)),
        str(suspect.window_count),
    )
