"""The limits and defaults that the contract tells callers: another value would be another contract."""

from domains.processing.jobs import crash, label_deletion, unread
from domains.processing.jobs.job import JobOptions
from domains.processing.memory import device_pool, drained_unload, estimates


def test_jobs() -> None:
    assert (crash.MAX_CRASHES, label_deletion.MAX_IDS, unread.LONGEST_WAIT_S) == (3, 1000, 600.0)
    assert (JobOptions().priority, JobOptions().allow_cpu, estimates.MAX_BATCH) == (2, False, 64)


def test_memory() -> None:
    assert (device_pool.ANSWER_S, drained_unload.LONGEST_DRAIN_S) == (2.0, 3600.0)
    assert drained_unload.Drain() == drained_unload.Drain(timeout_s=30.0, force=False)
