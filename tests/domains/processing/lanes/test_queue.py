"""JobQueue: priority, fair turns, age, bound."""

import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from domains.errors import ErrorReason, ResourceExhausted
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.kinds import LoadWork
from domains.processing.jobs.state import JobState
from domains.processing.lanes.placement import Placement, placement_of
from domains.processing.lanes.queue import JobQueue, rank
from tests.domains.processing.dispatch_bench import DispatchBench


def job(name: str, *, session: str = "", priority: int = 2, age: int = 0, device: str = "") -> Job:
    return Job(
        id=name,
        number=1000 - age,
        request_id="",
        work=LoadWork(model_id="m"),
        options=JobOptions(session_id=session, priority=priority, device_ids=(device,) if device else ()),
        detached=True,
        state=JobState.QUEUED,
        # The clock was set back meanwhile: it decides nothing.
        create_time_s=float(age),
    )


def taken(queue: JobQueue) -> list[str]:
    order: list[str] = []
    while (one := queue.next(lambda _: True)) is not None:
        queue.take(one)
        order.append(one.id)
    return order


def filled(*jobs: Job) -> JobQueue:
    queue = JobQueue(1000)
    for one in jobs:
        queue.add(one)
    return queue


def test_a_higher_priority_goes_first_and_age_decides_within_one() -> None:
    jobs = [job("low", priority=1, age=9), job("young"), job("old", age=5), job("critical", priority=4)]
    assert taken(filled(*jobs)) == ["critical", "old", "young", "low"]


def test_sessions_take_turns_whoever_asked_first() -> None:
    many = [job(f"a{n}", session="a", age=100 - n) for n in range(4)]
    few = [job(f"b{n}", session="b", age=10 - n) for n in range(2)]
    assert taken(filled(*many, *few)) == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_one_that_was_interrupted_keeps_its_age() -> None:
    queue = filled(job("later", age=1))
    queue.add(job("interrupted", age=50))
    assert taken(queue)[0] == "interrupted"


def test_only_what_fits_is_taken_and_the_rest_keeps_waiting() -> None:
    queue = filled(job("x"), job("y", device="gpu"))

    def names_gpu(placement: Placement) -> bool:
        return "gpu" in placement.device_ids

    found = queue.next(names_gpu)
    assert found is not None
    assert found == job("y", device="gpu")
    assert (queue.count(names_gpu), [one.id for one in queue.waiting(names_gpu)]) == (1, ["y"])
    queue.take(found)
    assert queue.next(names_gpu) is None
    assert len(queue) == 1


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    queue = JobQueue(2)
    queue.check_room(1)
    queue.add(job("x"))
    queue.add(job("y"))
    with pytest.raises(ResourceExhausted) as told:
        queue.check_room(7)
    assert told.value.reason is ErrorReason.QUEUE_FULL
    assert told.value.retry_after_s == 7
    assert told.value.facts == {"waiting": "2", "capacity": "2"}
    queue.drop("x")
    queue.check_room(1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.integers(0, 9)), max_size=25))
def test_everything_is_taken_once_and_never_below_a_waiting_higher_priority(asked: list[tuple[str, int, int]]) -> None:
    jobs = [job(str(n), session=s, priority=p, age=age) for n, (s, p, age) in enumerate(asked)]
    order = taken(filled(*jobs))
    priority = {one.id: one.options.priority for one in jobs}
    assert sorted(order) == sorted(priority)
    assert [priority[name] for name in order] == sorted(priority.values(), reverse=True)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=25))
def test_no_session_is_ever_two_turns_behind_another_that_it_could_have_kept_up_with(sessions: list[str]) -> None:
    jobs = [job(str(n), session=session) for n, session in enumerate(sessions)]
    queue = filled(*jobs)
    waiting = {name: sessions.count(name) for name in set(sessions)}
    served = dict.fromkeys(waiting, 0)
    while (one := queue.next(lambda _: True)) is not None:
        queue.take(one)
        waiting[one.options.session_id] -= 1
        served[one.options.session_id] += 1
        assert all(max(served.values()) - served[name] <= 1 for name in waiting if waiting[name])


class Model(RuleBasedStateMachine):
    """The queue beside a list that is searched: the same next job for every lane, whatever came, went and came back."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.queue = JobQueue(1000, self)
        self.waiting: dict[str, Job] = {}
        self.served: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.level = 0
        self.started: list[Job] = []
        self.paused: set[str] = set()
        self.made = 0

    def weight(self, session_id: str) -> float:
        return 1.0

    def holds_back(self, session_id: str, running: int) -> bool:
        assert running == self.running[session_id]
        return session_id in self.paused

    def held_because(self, session_id: str) -> str:
        return "it is paused"

    def least(self, device: str | None) -> Job | None:
        fitting = [job for job in self.waiting.values() if device in (None, *job.options.device_ids)]
        fitting = [job for job in fitting if job.options.session_id not in self.paused]
        return min(fitting, key=lambda job: rank(job, self.served), default=None)

    @rule(
        target=jobs, session=st.sampled_from("abc"), priority=st.integers(1, 3), device=st.sampled_from(["", "x", "y"])
    )
    def submit(self, session: str, priority: int, device: str) -> Job:
        self.made += 1
        made = job(str(self.made), session=session, priority=priority, age=-self.made, device=device)
        self.add(made)
        return made

    @rule(job=jobs)
    def add(self, job: Job) -> None:
        """Interrupted, and back in the queue."""
        self.waiting.pop(job.id, None)
        session = job.options.session_id
        if not self.running[session] and all(one.options.session_id != session for one in self.waiting.values()):
            self.served[session] = max(self.served[session], self.level)
        self.waiting[job.id] = job
        self.queue.add(job)

    @rule(job=jobs)
    def cancel(self, job: Job) -> None:
        self.waiting.pop(job.id, None)
        self.queue.drop(job.id)

    @rule(device=st.sampled_from([None, "x", "y"]))
    def start(self, device: str | None) -> None:
        found = self.queue.next(lambda placement: device is None or device in placement.device_ids)
        assert found == self.least(device)
        if found is None:
            return
        self.queue.take(found)
        del self.waiting[found.id]
        session = found.options.session_id
        self.started.append(found)
        self.running[session] += 1
        self.level = max(self.level, self.served[session])
        self.served[session] += 1
        if not self.waiting:
            self.served.clear()
            self.level = 0

    @precondition(lambda self: self.started)
    @rule()
    def leave(self) -> None:
        """As long as the mean attempt, so that the share stays what it was at the start."""
        job = self.started.pop(0)
        self.running[job.options.session_id] -= 1
        self.queue.left(job.id, 1.0)

    @rule(session=st.sampled_from("abc"))
    def hold(self, session: str) -> None:
        self.paused ^= {session}
        self.queue.wake(session)

    @invariant()
    def the_same_jobs_wait_in_the_same_order(self) -> None:
        assert self.queue.waiting() == sorted(self.waiting.values(), key=lambda job: rank(job, self.served))
        assert self.queue.count(lambda placement: True) == len(self.queue) == len(self.waiting)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_a_lane_is_asked_once_for_all_jobs_of_one_placement() -> None:
    queue, asked = filled(*(job(str(n), session=str(n % 10), age=-n) for n in range(1000))), list[Placement]()

    def fits(placement: Placement) -> bool:
        asked.append(placement)
        return True

    found = queue.next(fits)
    assert found is not None
    assert asked == [placement_of(found)]


def test_a_waiting_job_that_gets_another_priority_takes_its_place() -> None:
    queue = filled(job("first", age=9), job("second", age=5), job("third"))
    queue.add(job("third", priority=3))
    queue.add(job("first", age=9, priority=1))
    assert len(queue) == 3
    assert taken(queue) == ["third", "second", "first"]
    # And down again, past the entry of the higher priority.
    queue = filled(job("first", age=9), job("up", priority=3))
    queue.add(job("up"))
    assert taken(queue) == ["first", "up"]


class Shares:
    """Sessions with the weights that are their names, some of which are held back."""

    def __init__(self, *held: str, at_most: int = 100) -> None:
        self.held = set(held)
        self.at_most = at_most

    def weight(self, session_id: str) -> float:
        return float(session_id)

    def holds_back(self, session_id: str, running: int) -> bool:
        return session_id in self.held or running >= self.at_most

    def held_because(self, session_id: str) -> str:
        return "it is held back"


def one_after_the_other(queue: JobQueue, took_s: dict[str, float], turns: int) -> Counter[str]:
    """The device time of each session after so many attempts, of which one runs at a time."""
    used: Counter[str] = Counter()
    for _ in range(turns):
        found = queue.next(lambda _: True)
        assert found is not None
        session = found.options.session_id
        queue.take(found)
        queue.left(found.id, took_s[session])
        used[session] += took_s[session]  # pyright: ignore[reportArgumentType]  # a Counter adds floats as well
    return used


@pytest.mark.parametrize("took_s", [{"1": 2.0, "2": 2.0}, {"1": 9.0, "2": 0.5}, {"1": 0.1, "2": 7.0}])
def test_a_session_of_twice_the_weight_gets_twice_the_device_time_however_long_its_jobs_are(
    took_s: dict[str, float],
) -> None:
    queue = JobQueue(10_000, Shares())
    for n in range(2000):
        queue.add(job(f"one{n}", session="1", age=-n))
        queue.add(job(f"two{n}", session="2", age=-n))
    used = one_after_the_other(queue, took_s, 1000)
    assert used["2"] / used["1"] == pytest.approx(2.0, rel=0.1)


def test_a_session_that_had_nothing_to_do_is_owed_nothing_for_it() -> None:
    queue = JobQueue(10_000, Shares())
    for n in range(300):
        queue.add(job(f"one{n}", session="1", age=-n))
    one_after_the_other(queue, {"1": 5.0}, 100)
    for n in range(100):
        queue.add(job(f"late{n}", session="1.0", age=-n))
    used = one_after_the_other(queue, {"1": 5.0, "1.0": 5.0}, 20)
    assert used["1.0"] == pytest.approx(used["1"], abs=10.0)


def test_a_session_that_is_held_back_starts_nothing_until_it_is_looked_at_again() -> None:
    terms = Shares("1")
    queue = JobQueue(100, terms)
    queue.add(job("held", session="1", priority=4))
    assert queue.next(lambda _: True) is None
    queue.add(job("free", session="2"))
    assert taken(queue) == ["free"]
    terms.held.clear()
    queue.wake("1")
    assert taken(queue) == ["held"]


def test_a_session_at_its_limit_goes_on_when_one_of_its_jobs_has_left() -> None:
    queue = JobQueue(100, Shares(at_most=1))
    for n in range(3):
        queue.add(job(f"one{n}", session="1", age=-n))
    assert taken(queue) == ["one0"]
    queue.left("one0", 1.0)
    assert taken(queue) == ["one1"]


async def test_an_attempt_is_charged_for_as_long_as_it_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, begin_s, charged = DispatchBench(tmp_path), time.monotonic(), list[tuple[str, float]]()
    monkeypatch.setattr(bench.board.queue, "left", lambda job_id, ran_s: charged.append((job_id, ran_s)))  # pyright: ignore[reportUnknownLambdaType]
    job_id = bench.submit()
    await bench.finish(job_id)
    await bench.dispatcher.idle()
    ((charged_id, ran_s),) = charged
    assert charged_id == job_id
    assert 0.0 <= ran_s <= time.monotonic() - begin_s
    await bench.close()


def shares(queue: JobQueue) -> dict[str, float]:
    return dict(queue._served)  # pyright: ignore[reportPrivateUsage]


def test_an_attempt_counts_as_the_mean_until_it_has_ended_and_then_as_it_was() -> None:
    queue = filled(*(job(f"{name}{at}", session=name) for name in "ab" for at in range(4)))
    first = queue.next(lambda _: True)
    assert first is not None
    queue.take(first)
    session = first.options.session_id
    assert shares(queue)[session] == 1.0, "a second, before anything has ended"
    queue.left(first.id, 6.0)
    assert shares(queue)[session] == 6.0
    second = queue.next(lambda _: True)
    assert second is not None
    queue.take(second)
    assert second.options.session_id != session
    assert shares(queue)[second.options.session_id] == pytest.approx(1.0 + 0.2 * (6.0 - 1.0)), "a fifth of the newest"
    with pytest.raises((KeyError, IndexError)):
        queue.left(first.id, 1.0)


def test_a_session_that_was_idle_begins_with_the_share_of_the_others() -> None:
    queue = filled(*(job(f"a{at}", session="a") for at in range(4)), job("b0", session="b"))
    for _ in range(3):
        one = queue.next(lambda _: True)
        assert one is not None
        queue.take(one)
    assert shares(queue) == {"a": 2.0, "b": 1.0}
    queue.add(job("c0", session="c"))
    assert shares(queue)["c"] == 1.0, "as much as the one that started last"
    queue.add(job("b1", session="b"))
    assert shares(queue)["b"] == 1.0, "it runs, so it was not idle"


def test_shares_begin_again_when_the_queue_is_empty() -> None:
    queue = filled(job("a0", session="a"))
    one = queue.next(lambda _: True)
    assert one is not None
    queue.take(one)
    assert shares(queue) == {}
    queue.left("a0", 100.0)
    assert shares(queue) == {}, "an attempt of before counts no more"
    queue.add(job("b0", session="b"))
    assert shares(queue) == {"b": 0.0}


def test_entries_that_are_stale_do_not_pile_up() -> None:
    queue = filled(job("first", session="s", age=10**6))
    for at in range(500):
        queue.add(job("moves", session="s", priority=1 + at % 4))
        queue.add(job(f"j{at}", session=f"s{at}"))
        queue.drop(f"j{at}")
        queue.wake("s")
    (lines,) = queue._lines.values()  # pyright: ignore[reportPrivateUsage]
    assert len(lines._heap) <= 2 * len(lines.of) + 17  # pyright: ignore[reportPrivateUsage]
    assert len(lines.of["s"]._heap) <= 2 * len(lines.of["s"].jobs) + 17  # pyright: ignore[reportPrivateUsage]
    assert (len(queue), lines.count) == (2, 2)
