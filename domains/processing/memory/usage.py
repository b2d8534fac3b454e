"""Notes how models are used: loads, jobs and how long both took, since the server started."""

import time
from collections import defaultdict, deque

import msgspec

from domains.measurement import LatencySummary
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import LoadWork
from domains.processing.jobs.state import JobState
from domains.progress import ONCE

_REMEMBERED = 100
"""Durations per model: as many as the rarest percentile needs."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """How one model was used."""

    load_count: int
    job_count: int
    last_use_time_s: float
    """Unix time. 0: it was not used."""
    load: LatencySummary | None
    """Of the last loads. None: there was none whose time is known."""
    job: LatencySummary | None
    """Of the last jobs, without their loads."""


UNUSED = Usage(load_count=0, job_count=0, last_use_time_s=0.0, load=None, job=None)


class _Noted:
    def __init__(self) -> None:
        self.loads = self.jobs = 0
        self.last_s = 0.0
        self.load_s: deque[float] = deque(maxlen=_REMEMBERED)
        self.job_s: deque[float] = deque(maxlen=_REMEMBERED)


class ModelUsages:
    """Listens to jobs and loaded models. One event loop."""

    def __init__(self, jobs: Jobs, loaded: LoadedModels) -> None:
        self._noted: defaultdict[str, _Noted] = defaultdict(_Noted)
        jobs.listeners.append(self._job)
        loaded.listeners.append(self._loaded)

    def of(self, model_id: str) -> Usage:
        """The usage of a model."""
        if model_id not in self._noted:
            return UNUSED
        noted = self._noted[model_id]
        return Usage(
            load_count=noted.loads,
            job_count=noted.jobs,
            last_use_time_s=noted.last_s,
            load=LatencySummary.of(noted.load_s),
            job=LatencySummary.of(noted.job_s),
        )

    def _loaded(self, one: LoadedModel, there: bool) -> None:
        if there:
            noted = self._noted[one.model_id]
            noted.loads += 1
            if one.load_s is not None:
                noted.load_s.append(one.load_s)

    def _job(self, job: Job) -> None:
        if isinstance(job.work, LoadWork):
            return
        ended = job.state.ended and job.start_time_s is not None
        for model_id in dict.fromkeys(asset.model_id for asset in job.work.assets):
            if ended or job.state is JobState.RUNNING:
                self._noted[model_id].last_s = time.time()
            if ended:
                self._noted[model_id].jobs += 1
                if job.receipt is not None:
                    self._noted[model_id].job_s.append(_without_load(job))


def _without_load(job: Job) -> float:
    """Seconds in the stages of the job's work, without its load and its compilation."""
    assert job.receipt is not None
    return sum(one.wall_s for one in job.receipt.work.timings if one.stage not in ONCE)
