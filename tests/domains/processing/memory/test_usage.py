"""How models are used: counted when a job with them ends, and without the time of their loads."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from domains.inference.generation import Generation
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.event import JobReceipt
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork, LoadWork, Work
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.processing.memory.usage import UNUSED, ModelUsages
from domains.progress import Receipt, Stage, StageTiming
from domains.storage import open_database
from tests.domains.inference.on_device.requests import embedded_model, request

MODEL = embedded_model().id
WORK = GenerateWork(asked=Generation(prompt="owl"), resolved=request(embedded_model()))


class Used:
    """Jobs and loaded models that the test tells of."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(folder)
        self.jobs, self.loaded = Jobs(JobStore(self.database, folder), 3600), LoadedModels()
        self.usages = ModelUsages(self.jobs, self.loaded)

    def tell(self, state: JobState, work: Work = WORK, run_s: float | None = None) -> None:
        timings = (StageTiming(stage=Stage.LOADING, wall_s=9.0), StageTiming(stage=Stage.DENOISING, wall_s=run_s or 0))
        receipt = JobReceipt(work=Receipt(timings=timings), queue_s=0.0, run_s=0.0, attempts=1)
        job: Job = replace(Jobs.draft(work, JobOptions()), state=state, start_time_s=1.0)
        for listener in self.jobs.listeners:
            listener(job if run_s is None else replace(job, receipt=receipt))


@pytest.fixture
def used(tmp_path: Path) -> Used:
    return Used(tmp_path)


def test_a_job_counts_when_it_has_ended_without_its_load_and_uses_its_model_while_it_runs(used: Used) -> None:
    used.tell(JobState.QUEUED)
    used.tell(JobState.SUCCEEDED, LoadWork(model_id=MODEL), run_s=1.0)
    before = used.usages.of(MODEL)
    assert (before.job_count, before.last_use_time_s) == (0, 0.0)
    used.tell(JobState.RUNNING)
    running = used.usages.of(MODEL)
    assert (running.job_count, running.last_use_time_s > 1e9, running.job) == (0, True, None)
    used.tell(JobState.SUCCEEDED, run_s=2.0)
    used.tell(JobState.FAILED)
    ended = used.usages.of(MODEL)
    assert ended.job is not None
    assert (ended.job_count, ended.job.sample_count, ended.job.mean_s) == (2, 1, 2.0)
    assert used.usages.of("other") == UNUSED
    assert (UNUSED.load_count, UNUSED.job_count, UNUSED.last_use_time_s) == (0, 0, 0.0)


def test_the_newest_hundred_loads_and_jobs_are_summarised(used: Used) -> None:
    for seconds in range(101):
        used.tell(JobState.SUCCEEDED, run_s=float(seconds + 1))
        loaded = LoadedModel(
            id=f"{MODEL}@{seconds}",
            model_id=MODEL,
            device_id=str(seconds),
            components=(),
            load_time_s=1.0,
            last_use_time_s=1.0,
            load_s=float(seconds + 1),
        )
        used.loaded.put(loaded)
    found = used.usages.of(MODEL)
    assert (found.load_count, found.job_count) == (101, 101)
    for summary in (found.load, found.job):
        assert summary is not None
        assert (summary.sample_count, summary.shortest_s, summary.longest_s) == (100, 2.0, 101.0)
