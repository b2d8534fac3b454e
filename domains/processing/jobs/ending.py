"""Decides how an attempt ends, from the job, the request to stop and the outcome. The only place that decides it.

A request to stop counts only if the work neither finished nor failed. The strongest request counts: a cancellation is
stronger than a time limit, which is stronger than a pause, which is stronger than a preemption.
"""

from domains.failure import Failure
from domains.processing.jobs.crash import after_death
from domains.processing.jobs.event import Cancelled, Failed, Interrupted, Paused, Succeeded
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job
from domains.processing.jobs.live_job import receipt_of
from domains.processing.jobs.outcome import Broken, Done, Halted, Moved, Outcome, WorkerDeath
from domains.progress import Receipt
from domains.stop import Stop, StopKind

End = Succeeded | Failed | Cancelled | Interrupted | Paused
"""The events that end an attempt."""


def end_of(job: Job, stop: Stop | None, outcome: Outcome, now: Instant) -> End:
    """The event to record. `stop`: the strongest request before the end; None: there was none."""
    match outcome:
        case Done():
            return Succeeded(result=outcome.result, receipt=receipt_of(job, now, outcome.receipt))
        case Broken():
            result = outcome.result or job.result
            receipt = receipt_of(job, now, outcome.receipt)
            return Failed(failure=outcome.failure, receipt=receipt, result=result, checkpoint=outcome.checkpoint)
        case Moved():
            return Interrupted(
                reason=outcome.failure.reason,
                message=outcome.failure.message,
                checkpoint=outcome.checkpoint,
                work=outcome.receipt,
                left_device_id=outcome.device_id,
            )
        case Halted():
            return _stopped(job, stop or _stop_of(outcome), outcome, now)
        case WorkerDeath():
            if stop is not None and stop.kind is not StopKind.PREEMPT:
                # The process is gone, so the request to stop is fulfilled.
                return _stopped(job, stop, Halted(), now)
            return after_death(job, outcome, now)


def _stop_of(halted: Halted) -> Stop:
    assert halted.proof is not None, "work that no worker has heard of is stopped by the front alone"
    return halted.proof.stop


def _stopped(job: Job, stop: Stop, halted: Halted, now: Instant) -> Failed | Cancelled | Interrupted | Paused:
    proof = halted.proof
    receipt = receipt_of(job, now, proof.receipt if proof else Receipt())
    result = halted.result or job.result
    match stop.kind:
        case StopKind.CANCEL:
            return Cancelled(
                stage=proof.stage if proof else job.stage,
                latency_s=_latency_s(stop, halted, now),
                cause=stop.cause,
                freed_bytes=proof.freed_bytes if proof else None,
                receipt=receipt,
                result=result,
            )
        case StopKind.TIME_UP:
            assert stop.reason is not None, "the end of a job's time says which time it was"
            taken = ("stopped",) if proof else ()
            failure = Failure(reason=stop.reason, message=stop.cause, facts=stop.facts, actions_taken=taken)
            return Failed(failure=failure, receipt=receipt, result=result)
        case StopKind.PREEMPT:
            assert stop.reason is not None, "a preemption says what the job gives way to"
            return Interrupted(
                reason=stop.reason,
                message=stop.cause,
                checkpoint=halted.checkpoint,
                work=proof.receipt if proof else Receipt(),
            )
        case StopKind.PAUSE:
            return paused(job, stop, halted)


def paused(job: Job, stop: Stop, halted: Halted) -> Paused:
    """The event of a pause. A checkpoint of an earlier attempt stays if this one wrote none."""
    proof, kept = halted.proof, halted.checkpoint or job.checkpoint
    return Paused(
        stage=proof.stage if proof else job.stage,
        completed=kept.step if kept else 0,
        origin=stop.origin,
        cause=stop.cause,
        checkpoint=halted.checkpoint,
        work=proof.receipt if proof else Receipt(),
    )


def _latency_s(stop: Stop, halted: Halted, now: Instant) -> float:
    """Seconds between the request and the moment when nothing of the job ran any more."""
    if stop.asked_s is not None:
        return now.monotonic_s - stop.asked_s
    return halted.proof.latency_s if halted.proof else 0.0
