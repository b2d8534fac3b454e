"""Which options a stored job still takes, and what a load into the RAM tier refuses."""

from typing import Any, cast

import msgspec
import pytest

from domains.device.benchmark import Suite
from domains.errors import Aborted, DeviceOpsError, FailedPrecondition, InternalError, InvalidRequest
from domains.memory.pools.pool import HOST
from domains.model.benchmark import ModelBenchmark
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.kinds import BenchmarkWork, ModelBenchmarkWork
from domains.processing.jobs.kinds.entry import Reported
from domains.processing.jobs.options_update import CHANGEABLE, updated
from domains.processing.jobs.state import JobState
from domains.processing.places import Places

OTHER = JobOptions(priority=4, queue_timeout_s=1.0, run_timeout_s=2.0, labels=(("a", "1"),), keep_for_s=3.0)


def a_job(state: JobState = JobState.QUEUED) -> Job:
    work = BenchmarkWork(device_id="sim-0", suites=tuple(Suite)[:1])
    options = JobOptions(device_ids=("sim-0",))
    return Job(
        id="j",
        request_id="",
        request_digest="",
        options=options,
        detached=True,
        state=state,
        create_time_s=1.0,
        work=work,
    )


def test_what_the_mask_names_is_taken_and_nothing_else() -> None:
    job = a_job()
    for path, field in CHANGEABLE.items():
        now = updated(job, OTHER, [path], job.etag)
        assert now == msgspec.structs.replace(job.options, **{field: getattr(OTHER, field)})
    assert updated(job, OTHER, list(CHANGEABLE)) == msgspec.structs.replace(OTHER, device_ids=("sim-0",))


@pytest.mark.parametrize(
    ("mask", "said"), [([], "names nothing to change"), (["labels", "devices"], "'devices' cannot be changed")]
)
def test_a_mask_with_something_else_is_refused(mask: list[str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        updated(a_job(), OTHER, mask)
    assert refused.value.violations[0].field == "update_mask"


def test_an_old_etag_changes_nothing() -> None:
    with pytest.raises(Aborted):
        updated(a_job(), OTHER, ["labels"], "old")


def test_an_ended_job_takes_labels_and_how_long_it_is_kept() -> None:
    job = a_job(JobState.SUCCEEDED)
    assert updated(job, OTHER, ["labels", "keep_for"]).keep_for_s == 3.0
    with pytest.raises(FailedPrecondition, match="priority cannot be changed any more"):
        updated(job, OTHER, ["labels", "priority"])


class Held:
    """Reservations of two pools, by their names."""

    def find_held(self, name: str) -> "Held":
        self.pool_id = name
        return self


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (JobOptions(), []),
        (JobOptions(reservation_id=HOST), []),
        (JobOptions(reservation_id="sim-0"), ["options.reservation_id"]),
        (JobOptions(device_ids=("sim-0",)), ["options.devices"]),
        (JobOptions(device_ids=("sim-0",), reservation_id="sim-0"), ["options.devices", "options.reservation_id"]),
    ],
)
def test_a_load_into_the_ram_tier_names_no_device_and_no_other_pool(options: JobOptions, fields: list[str]) -> None:
    places, told = Places(cast(Any, None), cast(Any, Held())), list[str]()
    try:
        places.check_to_host(options)
    except DeviceOpsError as error:
        told = [violation.field for violation in error.violations]
    assert told == fields


def test_a_benchmark_of_a_model_that_ends_without_its_report_is_an_error() -> None:
    with pytest.raises(InternalError, match="without its report"):
        ModelBenchmarkWork(asked=ModelBenchmark(model_id="m")).result(Reported())
