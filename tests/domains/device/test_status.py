"""The meter of work: what ended in the last minute, what runs, and when the device will be idle."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domains.device.workload import WINDOW_S, WorkloadMeter
from tests.domains.device.hand_clock import HandClock


def run(meter: WorkloadMeter, clock: HandClock, seconds: float, *, failed: bool = False, job: str = "j") -> None:
    """A job from begin to end."""
    meter.started("cpu", job)
    clock.at += seconds
    meter.ended("cpu", job, failed=failed)


def test_nothing_to_do_is_idle_now_and_says_nothing_of_the_rest() -> None:
    work = WorkloadMeter(HandClock().now).workload("cpu")
    assert (work.estimated_idle_s, work.jobs_per_s, work.error_ratio, work.run_time) == (0, 0, None, None)


def test_the_last_minute_counts_and_nothing_before() -> None:
    clock = HandClock()
    meter = WorkloadMeter(clock.now)
    for failed in (False, False, True):
        run(meter, clock, 2, failed=failed)
    work = meter.workload("cpu")
    assert work.jobs_per_s == 3 / 60
    assert work.error_ratio == pytest.approx(1 / 3)
    assert work.run_time is not None
    assert (work.run_time.sample_count, work.run_time.p50_s) == (3, 2)
    clock.at += WINDOW_S
    work = meter.workload("cpu")
    assert (work.jobs_per_s, work.error_ratio, work.run_time) == (0, None, None)


def test_a_device_does_not_answer_for_another() -> None:
    clock = HandClock()
    meter = WorkloadMeter(clock.now)
    run(meter, clock, 1)
    meter.started("gpu-1", "other")
    assert meter.workload("gpu-1").run_time is None
    assert meter.running("cpu") == ()


def test_idle_time_needs_three_jobs_and_survives_a_rest() -> None:
    clock = HandClock()
    meter = WorkloadMeter(clock.now)
    for _ in range(2):
        run(meter, clock, 4)
    assert meter.workload("cpu", queued=1).estimated_idle_s is None
    run(meter, clock, 4)
    clock.at += 10 * WINDOW_S
    assert meter.workload("cpu", queued=5).estimated_idle_s == 20
    meter.started("cpu", "now")
    clock.at += 1
    assert meter.workload("cpu", queued=5).estimated_idle_s == 23
    assert meter.workload("cpu", queued=5, width=2).estimated_idle_s == 11.5
    assert meter.workload("cpu", width=8).estimated_idle_s == 3


def test_a_job_that_takes_longer_than_any_before_leaves_the_end_open() -> None:
    clock = HandClock()
    meter = WorkloadMeter(clock.now)
    for _ in range(3):
        run(meter, clock, 1)
    meter.started("cpu", "long")
    clock.at += 1.5
    assert meter.workload("cpu").estimated_idle_s is None


def test_a_job_that_took_as_long_as_the_longest_before_is_about_to_end() -> None:
    clock = HandClock()
    meter = WorkloadMeter(clock.now)
    for _ in range(3):
        run(meter, clock, 1)
    meter.started("cpu", "now")
    meter.started("cpu", "now")
    clock.at += 1
    assert meter.workload("cpu").estimated_idle_s == 0
    assert meter.workload("cpu", queued=2).estimated_idle_s == 2


def test_a_preempted_job_is_no_end() -> None:
    clock = HandClock()
    meter = WorkloadMeter(clock.now)
    meter.started("cpu", "job")
    clock.at += 5
    meter.left("cpu", "job")
    work = meter.workload("cpu")
    assert (work.running_job_ids, work.jobs_per_s) == ((), 0)
    meter.ended("cpu", "job", failed=True)
    assert meter.workload("cpu").error_ratio is None


class Work(RuleBasedStateMachine):
    """Against a model that keeps everything."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.meter = WorkloadMeter(self.clock.now)
        self.begun: dict[str, float] = {}
        self.ended: list[tuple[float, float, bool]] = []
        self.number = 0

    @rule()
    def start(self) -> None:
        self.number += 1
        self.begun[str(self.number)] = self.clock.at
        self.meter.started("cpu", str(self.number))

    @precondition(lambda self: bool(self.begun))
    @rule(failed=st.booleans(), newest=st.booleans())
    def end(self, failed: bool, newest: bool) -> None:
        job = (list(self.begun)[-1]) if newest else next(iter(self.begun))
        self.ended.append((self.clock.at, self.clock.at - self.begun.pop(job), failed))
        self.meter.ended("cpu", job, failed=failed)

    @precondition(lambda self: bool(self.begun))
    @rule()
    def preempt(self) -> None:
        job = next(iter(self.begun))
        del self.begun[job]
        self.meter.left("cpu", job)

    @rule(seconds=st.sampled_from([0.25, 1.0, 7.0, 59.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.at += seconds

    @invariant()
    def tells_the_last_minute(self) -> None:
        recent = [one for one in self.ended if one[0] > self.clock.at - WINDOW_S]
        work = self.meter.workload("cpu", queued=1)
        assert work.running_job_ids == tuple(self.begun)
        assert work.jobs_per_s == len(recent) / WINDOW_S
        assert (work.error_ratio is None) == (not recent) == (work.run_time is None)
        if work.run_time is not None:
            assert work.error_ratio == sum(failed for _, _, failed in recent) / len(recent)
            assert work.run_time.longest_s == max(took for _, took, _ in recent)
        assert work.estimated_idle_s is None or work.estimated_idle_s >= 0


TestWork = Work.TestCase
