"""Converts memory pools, budgets, clean-ups and histories between messages and values of the domain."""

import time
from collections.abc import Iterable

from deviceops.memory.v1 import (
    memory_budget_pb2,
    memory_history_pb2,
    memory_pool_pb2,
    memory_service_pb2,
)
from domains import limits
from domains.memory.measure import MemoryOwner
from domains.memory.pools.advice import Recommendation
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.budgets import BudgetImpact
from domains.memory.pools.history import HistoryView, PoolSample
from domains.memory.pools.leaks import LeakSuspect
from domains.memory.pools.pool import PoolKind, PoolView
from domains.memory.pools.pressure import Pressure, PressureChange
from domains.memory.pools.reclaim import ReclaimAsk, ReclaimLevel, ReclaimReport, ReclaimStep
from domains.processing.jobs.event import Failure
from domains.reasons import Domain
from server import convert


def to_pool(view: PoolView, *, include_owners: bool) -> memory_pool_pb2.MemoryPool:
    """The message of a pool. Figures that were not measured are absent."""
    measure = view.measure
    span = view.time_to_critical_s
    return memory_pool_pb2.MemoryPool(
        id=view.id,
        kind=memory_pool_pb2.MemoryPoolKind.Value(f"MEMORY_POOL_KIND_{view.kind.name}"),
        device_id=view.device_id,
        total_bytes=measure.total_bytes,
        used_bytes=measure.used_bytes,
        held_bytes=measure.held_bytes,
        live_bytes=measure.live_bytes,
        cached_bytes=measure.cached_bytes,
        reserved_bytes=view.reserved_bytes,
        available_bytes=view.available_bytes,
        peak_live_bytes=view.peak_live_bytes,
        pinned_bytes=measure.pinned_bytes,
        largest_free_block_bytes=measure.largest_free_block_bytes,
        fragmentation_ratio=measure.fragmentation_ratio,
        pressure=to_pressure(view.pressure),
        time_to_critical=None if span is None else convert.to_duration(span),
        budget=to_budget(view.budget),
        owners=_largest_first(measure.owners) if include_owners else (),
        sample_time=convert.to_time(measure.time_s),
        etag=view.etag,
    )


def _largest_first(owners: tuple[MemoryOwner, ...]) -> list[memory_pool_pb2.MemoryOwner]:
    single = (owner for owner in owners if not owner.several)
    largest = sorted(single, key=lambda owner: -owner.live_bytes)[: limits.POOL_OWNERS]
    return [to_owner(owner) for owner in largest]


def to_owner(owner: MemoryOwner) -> memory_pool_pb2.MemoryOwner:
    """The message of an owner of memory."""
    return memory_pool_pb2.MemoryOwner(
        kind=memory_pool_pb2.MemoryOwnerKind.Value(f"MEMORY_OWNER_KIND_{owner.kind.name}"),
        id=owner.id,
        session_id=owner.session_id,
        live_bytes=owner.live_bytes,
        reclaimable=owner.reclaimable,
    )


def to_pressure(pressure: Pressure | None) -> memory_pool_pb2.MemoryPressure.ValueType:
    """A pressure level; UNSPECIFIED if the use cannot be measured."""
    return memory_pool_pb2.MemoryPressure.Value(f"MEMORY_PRESSURE_{pressure.name if pressure else 'UNSPECIFIED'}")


def to_change(change: PressureChange) -> memory_pool_pb2.MemoryPressureChange:
    """The message of a change of pressure."""
    return memory_pool_pb2.MemoryPressureChange(
        memory_pool_id=change.pool_id,
        previous=to_pressure(change.previous),
        current=to_pressure(change.current),
        change_time=convert.to_time(change.time_s),
    )


def from_kinds(kinds: Iterable[memory_pool_pb2.MemoryPoolKind.ValueType]) -> list[PoolKind]:
    """The kinds of a filter. Empty: all."""
    kinds = tuple(kinds)
    names = {memory_pool_pb2.MemoryPoolKind.Value(f"MEMORY_POOL_KIND_{kind.name}"): kind for kind in PoolKind}
    every = memory_pool_pb2.MEMORY_POOL_KIND_UNSPECIFIED in kinds
    return [] if every else [names[kind] for kind in kinds]


def to_budget(budget: MemoryBudget) -> memory_budget_pb2.MemoryBudget:
    """The message of a budget, every default filled in."""
    return memory_budget_pb2.MemoryBudget(
        limit_bytes=budget.limit_bytes,
        headroom_bytes=budget.headroom_bytes,
        warning_ratio=budget.warning_ratio,
        critical_ratio=budget.critical_ratio,
        emergency_ratio=budget.emergency_ratio,
        automatic_reclaim=budget.automatic_reclaim,
        idle_after=convert.to_duration(budget.idle_after_s),
    )


def from_budget(message: memory_budget_pb2.MemoryBudget, configured: MemoryBudget) -> MemoryBudget:
    """The budget of a message. Absent fields have their defaults; the headroom's default is the server's setting."""
    usual = MemoryBudget()
    return MemoryBudget(
        limit_bytes=message.limit_bytes if message.HasField("limit_bytes") else None,
        headroom_bytes=message.headroom_bytes if message.HasField("headroom_bytes") else configured.headroom_bytes,
        warning_ratio=message.warning_ratio if message.HasField("warning_ratio") else usual.warning_ratio,
        critical_ratio=message.critical_ratio if message.HasField("critical_ratio") else usual.critical_ratio,
        emergency_ratio=message.emergency_ratio if message.HasField("emergency_ratio") else usual.emergency_ratio,
        automatic_reclaim=message.automatic_reclaim if message.HasField("automatic_reclaim") else True,
        idle_after_s=convert.from_duration(message.idle_after)
        if message.HasField("idle_after")
        else usual.idle_after_s,
    )


def to_impact(impact: BudgetImpact) -> memory_budget_pb2.MemoryBudgetImpact:
    """The message of a budget's impact."""
    return memory_budget_pb2.MemoryBudgetImpact(
        excess_bytes=impact.excess_bytes,
        evicted_loaded_model_ids=impact.evicted_ids[: limits.NAMED_IDS],
        preempted_reservation_ids=impact.preempted_ids[: limits.NAMED_IDS],
        stranded_job_ids=impact.stranded_ids[: limits.NAMED_IDS],
        reclaimable_bytes=impact.reclaimable_bytes,
    )


def from_reclaim(request: memory_service_pb2.ReclaimMemoryRequest) -> ReclaimAsk:
    """A request for a clean-up. INVALID_FIELD with all violations."""
    target = request.WhichOneof("target")
    span = convert.from_duration(request.max_duration) if request.HasField("max_duration") else 30.0
    return ReclaimAsk(
        free_bytes=request.free_bytes if target == "free_bytes" else None,
        used_ratio=request.used_ratio if target == "used_ratio" else None,
        max_level=ReclaimLevel(request.max_level) if request.max_level else ReclaimLevel.IDLE,
        keep_ids=tuple(request.keep_ids),
        max_s=span,
    )


def to_report(report: ReclaimReport) -> memory_pool_pb2.MemoryReclaimReport:
    """The message of a clean-up's report."""
    return memory_pool_pb2.MemoryReclaimReport(
        before=to_pool(report.before, include_owners=False),
        after=to_pool(report.after, include_owners=False) if report.after else None,
        steps=[_to_step(step) for step in report.steps[: limits.RECLAIM_STEPS]],
        target_met=report.target_met,
        duration=convert.to_duration(report.duration_s),
    )


def _to_step(step: ReclaimStep) -> memory_pool_pb2.MemoryReclaimStep:
    failure = None if step.failure is None else convert.to_failure(Failure.of(step.failure), time.time(), Domain.MEMORY)
    return memory_pool_pb2.MemoryReclaimStep(
        level=memory_pool_pb2.MemoryReclaimLevel.Value(f"MEMORY_RECLAIM_LEVEL_{step.level.name}"),
        action=step.action,
        owner=to_owner(step.owner),
        freed_bytes=step.freed_bytes,
        duration=convert.to_duration(step.duration_s),
        failure=failure,
    )


def to_history(
    pool_id: str, history: HistoryView, suspects: list[LeakSuspect], recommendations: list[Recommendation]
) -> memory_history_pb2.MemoryHistory:
    """The message of a pool's history."""
    return memory_history_pb2.MemoryHistory(
        memory_pool_id=pool_id,
        samples=[_to_sample(sample) for sample in history.samples],
        step=convert.to_duration(history.step_s),
        allocation_count=history.allocation_count,
        allocation_failure_count=history.allocation_failure_count,
        mean_allocation_bytes=history.mean_allocation_bytes,
        allocation_latency=convert.to_latency(history.allocation_latency) if history.allocation_latency else None,
        leak_suspects=[_to_suspect(suspect) for suspect in suspects],
        recommendations=[
            memory_history_pb2.MemoryRecommendation(
                action=each.action, reason=each.reason, expected_freed_bytes=each.expected_freed_bytes
            )
            for each in recommendations
        ],
    )


def _to_sample(sample: PoolSample) -> memory_history_pb2.MemorySample:
    return memory_history_pb2.MemorySample(
        sample_time=convert.to_time(sample.time_s),
        used_bytes=sample.used_bytes,
        held_bytes=sample.held_bytes,
        live_bytes=sample.live_bytes,
        reserved_bytes=sample.reserved_bytes,
        pressure=to_pressure(sample.pressure),
    )


def _to_suspect(suspect: LeakSuspect) -> memory_history_pb2.MemoryLeakSuspect:
    return memory_history_pb2.MemoryLeakSuspect(
        owner=to_owner(suspect.owner),
        growth_bytes_per_second=suspect.growth_bytes_per_s,
        growing_for=convert.to_duration(suspect.growing_s),
        window_count=suspect.windows,
    )
