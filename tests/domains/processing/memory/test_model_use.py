"""Which jobs use a loaded model is answered once, so that a plan to unload it and its unloading agree."""

import msgspec
import pytest

from domains.model.loaded import LoadedModel, loaded_id
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import LoadWork, ScanWork, Work
from domains.processing.jobs.state import JobState
from domains.processing.memory.model_use import users_of


def there(model_id: str, device_id: str) -> LoadedModel:
    name = loaded_id(model_id, device_id)
    return LoadedModel(
        id=name, model_id=model_id, device_id=device_id, components=(), load_time_s=0.0, last_use_time_s=0.0
    )


LOAD = LoadWork(model_id="m")


def a_job(state: JobState, work: Work = LOAD, device_id: str = "sim-0") -> Job:
    return msgspec.structs.replace(Jobs.draft(work, JobOptions()), state=state, device_id=device_id)


@pytest.mark.parametrize("state", list(JobState))
def test_a_job_uses_its_model_until_it_has_left_the_device(state: JobState) -> None:
    holds = state in (JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING)
    job = a_job(state)
    assert users_of(there("m", "sim-0"), [job]) == ([job] if holds else [])


def test_a_job_uses_no_other_model_and_none_of_another_device() -> None:
    job = a_job(JobState.RUNNING)
    assert users_of(there("other", "sim-0"), [job]) == []
    assert users_of(there("m", "sim-1"), [job]) == []
    assert users_of(there("m", "sim-0"), [a_job(JobState.RUNNING, ScanWork())]) == []
