"""JobQueue: priority, fair turns, age, bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.errors import ErrorReason, ResourceExhausted
from domains.processing.job import Job, JobOptions, LoadWork
from domains.processing.job_queue import JobQueue
from domains.processing.job_state import JobState


def job(name: str, *, session: str = "", priority: int = 2, age: float = 0.0) -> Job:
    return Job(
        id=name,
        request_id="",
        work=LoadWork(model_id="m"),
        options=JobOptions(session_id=session, priority=priority),
        detached=True,
        state=JobState.QUEUED,
        create_time_s=1000.0 - age,
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
    queue = filled(job("x"), job("y"))
    found = queue.next(lambda one: one.id == "y")
    assert found is not None
    assert found == job("y")
    queue.take(found)
    assert queue.next(lambda one: one.id == "y") is None
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
    jobs = [job(str(n), session=s, priority=p, age=float(age)) for n, (s, p, age) in enumerate(asked)]
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
