"""The defaults of the records of jobs, sessions and orders.

`python -m tests.domains.processing.test_record_defaults` writes `record_defaults.txt` anew.
"""

from pathlib import Path

from domains.processing import reproduction
from domains.processing.devices import control, inventory_watch
from domains.processing.front import execute
from domains.processing.inputs import input_pictures
from domains.processing.jobs import event, job, label_deletion, outcome
from domains.processing.jobs import filter as job_filter
from domains.processing.jobs.kinds import (
    benchmark_device,
    benchmark_model,
    entry,
    load_model,
    load_to_host,
    reproduce,
    reset_device,
    scan_models,
    unreadable,
)
from domains.processing.lanes import placement, waits
from domains.processing.memory import drained_unload, estimates, generation_plan, host_loads, prefetch
from domains.processing.sessions import session
from domains.processing.workers import unload, worker
from tests.domains.record_defaults import defaults_of

FILE = Path(__file__).with_name("record_defaults.txt")
RECORDS = (
    reproduction,
    control,
    inventory_watch,
    execute,
    input_pictures,
    event,
    job_filter,
    job,
    label_deletion,
    outcome,
    benchmark_device,
    benchmark_model,
    entry,
    load_model,
    load_to_host,
    reproduce,
    reset_device,
    scan_models,
    unreadable,
    placement,
    waits,
    drained_unload,
    estimates,
    generation_plan,
    host_loads,
    prefetch,
    session,
    unload,
    worker,
)


def test_a_record_that_does_not_say_a_field_means_what_it_always_meant() -> None:
    meant = "meant? then run python -m tests.domains.processing.test_record_defaults"
    assert defaults_of(RECORDS) == FILE.read_text("utf-8"), meant


if __name__ == "__main__":
    FILE.write_text(defaults_of(RECORDS), encoding="utf-8")
