"""`deviceops memory budget` and `reclaim`: set how much memory the server may use, and free some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.console.amounts import byte_count
from server.cli.console.failure import USAGE, CliError, explain_failure
from server.cli.console.printing import (
    bytes_text,
    duration_s,
    emit,
    measured_bytes,
    notice,
    print_json,
    seconds_text,
    word,
)
from server.cli.console.tables import print_table

if TYPE_CHECKING:
    from deviceops.memory.v1.memory_pool_pb2 import MemoryReclaimReport, MemoryReclaimStep
    from deviceops.memory.v1.memory_service_pb2 import SetMemoryBudgetRequest, SetMemoryBudgetResponse

PoolArgument = Annotated[str, typer.Argument(help="`host`, `disk`, or the id or alias of a device.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]


def budget(
    pool: PoolArgument,
    limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The most the server may hold, as 4GiB; `none`; `default`.")
    ] = None,
    headroom: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What to leave free for other processes.")
    ] = None,
    dry_run: DryRunOption = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Set how much of a pool the server may use, until it stops; `--limit default` brings back what it began with."""
    if limit is None and headroom is None:
        raise CliError("say what to set: --limit or --headroom", USAGE)
    if limit == "default" and headroom is not None:
        raise CliError("--limit default brings the whole budget back; leave --headroom out", USAGE)
    sizes = tuple(
        byte_count(text, flag) if text and text not in ("none", "default") else None
        for flag, text in (("--limit", limit), ("--headroom", headroom))
    )
    with connect(address) as connection:
        request = _budget_request(connection, pool, limit, sizes[0], sizes[1])
        request.validate_only = dry_run
        answer = connection.memory.SetMemoryBudget(request)
    return print_json(answer) if json else _tell_budget(answer, request if dry_run else None)


def _budget_request(
    connection: Connection, pool_id: str, limit: str | None, limit_bytes: int | None, headroom_bytes: int | None
) -> SetMemoryBudgetRequest:
    """The present budget with these changes, and its etag, so that another client's change is not overwritten."""
    from deviceops.memory.v1 import memory_service_pb2

    wanted = memory_service_pb2.GetMemoryPoolRequest(memory_pool_id=ids.pool(connection, pool_id))
    pool = connection.memory.GetMemoryPool(wanted).memory_pool
    request = memory_service_pb2.SetMemoryBudgetRequest(memory_pool_id=pool.id, etag=pool.etag)
    if limit == "default":
        return request
    request.memory_budget.CopyFrom(pool.budget)
    if limit == "none":
        request.memory_budget.ClearField("limit_bytes")
    if limit_bytes is not None:
        request.memory_budget.limit_bytes = limit_bytes
    if headroom_bytes is not None:
        request.memory_budget.headroom_bytes = headroom_bytes
    return request


def _tell_budget(answer: SetMemoryBudgetResponse, tried: SetMemoryBudgetRequest | None) -> None:
    """Print the answer. `tried`: the request of a dry run."""
    pool, impact = answer.memory_pool, answer.impact
    if tried is None:
        limit = bytes_text(pool.budget.limit_bytes) if pool.budget.HasField("limit_bytes") else "none"
        available = measured_bytes(pool, "available_bytes")
        emit(f"{pool.id}: limit {limit}, headroom {bytes_text(pool.budget.headroom_bytes)}, available {available}")
    would = "would " if tried else ""
    if impact.excess_bytes:
        fits = "" if impact.reclaimable_bytes >= impact.excess_bytes else "; that is too little, and it is refused"
        emit(
            f"Use {would or 'was '}{'be ' if would else ''}{bytes_text(impact.excess_bytes)} above it; "
            f"{bytes_text(impact.reclaimable_bytes)} can be given back{fits}"
        )
    elif tried:
        emit(f"{pool.id}: would set {_budget_text(tried)}; nothing would be unloaded")
    for what, named in (
        ("Loaded models unloaded", impact.evicted_loaded_model_ids),
        ("Reservations ended", impact.preempted_reservation_ids),
        ("Waiting jobs that no longer fit", impact.stranded_job_ids),
    ):
        if named:
            notice(f"{what}: {', '.join(named)}")


def _budget_text(tried: SetMemoryBudgetRequest) -> str:
    if not tried.HasField("memory_budget"):
        return "the budget that the server began with"
    wanted = tried.memory_budget
    limit = f"the limit to {bytes_text(wanted.limit_bytes)}" if wanted.HasField("limit_bytes") else "no limit"
    return limit + (f", headroom {bytes_text(wanted.headroom_bytes)}" if wanted.headroom_bytes else "")


def reclaim(
    pool: PoolArgument,
    level: Annotated[
        Literal["caches", "idle", "compact", "emergency"],
        typer.Option(help="How far to go; each level includes those before. emergency interrupts jobs."),
    ] = "idle",
    free: Annotated[str | None, typer.Option(metavar="SIZE", help="Stop once so much is freed, as 1GiB.")] = None,
    keep: Annotated[list[str] | None, typer.Option(metavar="ID", help="Not to be touched; may be repeated.")] = None,
    dry_run: DryRunOption = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Free memory of a pool. Ends with 1 if it did not come to what --free asked for."""
    from deviceops.memory.v1 import memory_pool_pb2, memory_service_pb2

    request = memory_service_pb2.ReclaimMemoryRequest(
        memory_pool_id=pool,
        max_level=memory_pool_pb2.MemoryReclaimLevel.Value(f"MEMORY_RECLAIM_LEVEL_{level.upper()}"),
        keep_ids=keep or (),
        validate_only=dry_run,
    )
    if free is not None:
        request.free_bytes = byte_count(free, "--free")
    with connect(address) as connection:
        request.memory_pool_id = ids.pool(connection, pool)
        answer = connection.memory.ReclaimMemory(request)
    print_json(answer) if json else _tell_reclaim(answer.report, dry_run, takes_models=level != "caches")
    if free is not None and not answer.report.target_met:
        raise typer.Exit(1)


def _tell_reclaim(report: MemoryReclaimReport, dry_run: bool, *, takes_models: bool) -> None:
    print_table(
        ("level", "action", "whose", "freed", "took", "failure"), map(_step_row, report.steps), "Nothing to free."
    )
    unloads = any(step.action == "unload" for step in report.steps)
    if takes_models and not unloads and report.before.budget.idle_after.ToNanoseconds():
        after = seconds_text(duration_s(report.before.budget.idle_after))
        notice(
            f"Models count as idle {after} after their last use; `deviceops memory --owners` tells when each may go."
        )
    if dry_run:
        return
    uses = (measured_bytes(pool, "used_bytes") for pool in (report.before, report.after))
    held = (measured_bytes(pool, "held_bytes") for pool in (report.before, report.after))
    took = seconds_text(duration_s(report.duration))
    emit(f"{report.before.id}: used {' → '.join(uses)}, held {' → '.join(held)}, in {took}")


def _step_row(step: MemoryReclaimStep) -> tuple[str, ...]:
    from deviceops.memory.v1 import memory_pool_pb2

    kind = word(memory_pool_pb2.MemoryOwnerKind.Name(step.owner.kind), "MEMORY_OWNER_KIND_")
    return (
        word(memory_pool_pb2.MemoryReclaimLevel.Name(step.level), "MEMORY_RECLAIM_LEVEL_"),
        step.action,
        f"{kind} {step.owner.id}".strip(),
        measured_bytes(step, "freed_bytes"),
        seconds_text(duration_s(step.duration)) if step.HasField("duration") else "–",
        explain_failure(step.failure) if step.HasField("failure") else "",
    )
