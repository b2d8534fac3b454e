"""Which jobs use a loaded model is answered once, so that a plan to unload it and its unloading agree."""

import msgspec
import pytest

from domains.inference.generation import Generation
from domains.inference.loras import ResolvedLora
from domains.inference.resolution.resolve import resolve
from domains.model.loaded import LoadedModel, loaded_id
from domains.model.validation import Validation
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork, HostLoadWork, LoadWork, ScanWork, ValidateWork, Work
from domains.processing.jobs.state import JobState
from domains.processing.memory.model_use import jobs_that_need, loaded_models, users_of
from tests.domains.inference.on_device.requests import embedded_model


def there(model_id: str, device_id: str) -> LoadedModel:
    name = loaded_id(model_id, device_id)
    return LoadedModel(
        id=name, model_id=model_id, device_id=device_id, components=(), load_time_s=0.0, last_use_time_s=0.0
    )


LOAD = LoadWork(model_id="m")
_PLAIN = resolve(Generation(prompt="an owl"), embedded_model())
WITH_LORA = GenerateWork(
    asked=Generation(prompt="an owl"),
    resolved=msgspec.structs.replace(_PLAIN, loras=(ResolvedLora(model_id="m", model_sha256="0" * 64, weight=1.0),)),
)


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


def test_a_lora_is_needed_and_not_loaded() -> None:
    job = a_job(JobState.RUNNING, WITH_LORA)
    assert loaded_models(WITH_LORA) == ["emoji-sd"]
    assert users_of(there("m", "sim-0"), [job]) == []
    assert users_of(there("emoji-sd", "sim-0"), [job]) == [job]


@pytest.mark.parametrize(
    "work", [LOAD, HostLoadWork(model_id="m"), ValidateWork(asked=Validation(model_id="m")), WITH_LORA]
)
def test_work_that_reads_a_model_needs_it_on_a_device_or_elsewhere(work: Work) -> None:
    job = a_job(JobState.QUEUED, work)
    assert jobs_that_need("m", [job, a_job(JobState.QUEUED, ScanWork())]) == [job]
    assert jobs_that_need("other", [job]) == []
