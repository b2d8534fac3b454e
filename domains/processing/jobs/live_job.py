"""A job in memory: its value, its journal, and how an event changes it."""

import msgspec

from domains.journal import Entry, Journal
from domains.processing.jobs.event import (
    END_STATE,
    Cancelling,
    Failed,
    GeneratedImage,
    GenerationResult,
    Interrupted,
    JobEvent,
    JobProgress,
    JobReceipt,
    OutputReady,
    Paused,
    Pausing,
    Resumed,
    Started,
    Succeeded,
)
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import ON_A_LANE, JobState
from domains.progress import PreviewReady, Receipt, StageStarted, added
from domains.stop import Origin, Stop

_NO_WORK = Receipt()


class LiveJob:
    """A job in memory, with its journal."""

    __slots__ = ("ceiling", "created_s", "job", "journal", "started_s", "stop")

    def __init__(self, job: Job, journal: Journal[JobEvent], ceiling: int) -> None:
        self.job = job
        self.journal = journal
        self.ceiling = ceiling
        self.stop: Stop | None = None
        """The strongest request to stop the present attempt. None: there is none."""
        self.created_s: float | None = None
        """Time of the job's creation on the monotonic clock. None: an earlier process created it."""
        self.started_s: float | None = None
        """Time of its first start, as above."""

    def starts(self, job: Job, now: Instant) -> Job:
        """The job that starts now, with the time that it has waited; its first start counts."""
        if self.job.start_time_s is not None:
            return job
        self.started_s = now.monotonic_s
        return (
            job if self.created_s is None else msgspec.structs.replace(job, waited_s=now.monotonic_s - self.created_s)
        )

    def at(self, now: Instant) -> Instant:
        """The moment, so that the time since the job's start, or since its creation, ignores steps of the wall clock."""
        monotonic_s, unix_s = self.started_s, self.job.start_time_s
        if unix_s is None:
            monotonic_s, unix_s = self.created_s, self.job.create_time_s
        if monotonic_s is None:
            return now
        return Instant(unix_s + now.monotonic_s - monotonic_s, now.monotonic_s)

    @property
    def cancel_cause(self) -> str:
        """The caller's reason for the cancellation. Empty: no reason, or no cancellation."""
        causes = (entry.value.cause for entry in self.journal.after(0) if isinstance(entry.value, Cancelling))
        return next(causes, "")

    @property
    def pause_cause(self) -> str:
        """The caller's reason for the newest pause. Empty: no reason, or no pause."""
        newest = self._newest_pause
        return newest.cause if newest else ""

    @property
    def pause_origin(self) -> Origin:
        """The origin of the newest pause."""
        newest = self._newest_pause
        return newest.origin if newest else Origin.CALLER

    @property
    def _newest_pause(self) -> Pausing | Paused | None:
        pauses = (entry.value for entry in reversed(self.journal.after(0)))
        return next((event for event in pauses if isinstance(event, Pausing | Paused)), None)


def after(job: Job, event: JobEvent, entry: Entry[JobEvent], state: JobState) -> Job:
    """The job after an event."""
    changes: dict[str, object] = {"last_sequence": entry.sequence, "state": state}
    match event:
        case Started():
            changes |= {"device_id": event.device_id, "attempt": event.attempt, "attempt_time_s": entry.time_s}
            changes |= {} if job.start_time_s else {"start_time_s": entry.time_s}
        case StageStarted():
            changes |= {"stage": event.stage}
        case JobProgress():
            changes |= {"progress": event, "stage": event.at.stage}
        case Interrupted():
            changes |= {"progress": None}
            changes |= _kept(job, event, entry.time_s)
            changes |= {"suspect": True, "crashes": job.crashes + event.alone} if event.crashed else {}
            changes |= {"left_device_ids": (*job.left_device_ids, event.left_device_id)} if event.left_device_id else {}
        case Paused():
            changes |= {"progress": None, "pause_time_s": entry.time_s}
            changes |= _kept(job, event, entry.time_s)
        case Resumed():
            paused_s = max(0.0, entry.time_s - (job.pause_time_s or entry.time_s))
            changes |= {"pause_time_s": None}
            changes |= {} if job.attempt else {"waiting_paused_s": job.waiting_paused_s + paused_s}
        case PreviewReady():
            pass
        case OutputReady():
            changes |= {"result": _with(job, event.image)}
        case _ if type(event) in END_STATE:
            changes |= {"end_time_s": entry.time_s}
            changes |= {name: getattr(event, name, None) for name in ("failure", "receipt")}
            changes |= {"result": getattr(event, "result", None) or job.result}
            changes |= {"checkpoint": None} if isinstance(event, Succeeded) else {}
            changes |= {"checkpoint": event.checkpoint or job.checkpoint} if isinstance(event, Failed) else {}
        case _:
            pass
    return msgspec.structs.replace(job, **changes)


def _kept(job: Job, event: Paused | Interrupted, now_s: float) -> dict[str, object]:
    """The fields that hold what an attempt leaves to the next one."""
    keeps = job.state in ON_A_LANE and (event.checkpoint or isinstance(event, Paused))
    return {
        "checkpoint": event.checkpoint or job.checkpoint,
        "spent": added(job.spent, event.work),
        "ran_s": job.ran_s + (now_s - job.attempt_time_s if keeps and job.attempt_time_s is not None else 0.0),
    }


def _with(job: Job, image: GeneratedImage) -> GenerationResult:
    """The result of a running generation, with one more picture."""
    assert isinstance(job.work, GenerateWork), "only generations have pictures"
    images = job.result.images if isinstance(job.result, GenerationResult) else ()
    made = tuple(sorted((*images, image), key=lambda one: one.index))
    return GenerationResult(images=made, resolved=job.work.resolved)


def stored(job: Job) -> Job:
    """The part of a job that is stored: progress is not."""
    return job if job.progress is None else msgspec.structs.replace(job, progress=None)


def receipt_of(job: Job, now: Instant, work: Receipt = _NO_WORK) -> JobReceipt:
    """The receipt of a job that ends now. `work`: the worker's receipt; empty if no worker sent one."""
    start = job.start_time_s or now.unix_s
    return JobReceipt(
        work=added(job.spent, work),
        queue_s=max(0.0, start - job.create_time_s) if job.waited_s is None else job.waited_s,
        run_s=max(0.0, now.unix_s - start),
        attempts=job.attempt,
        device_id=job.device_id,
    )
