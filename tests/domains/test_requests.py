"""The same request counts once: what was answered, what is being answered, and what failed."""

import asyncio

import pytest

from domains.errors import AlreadyExists, ErrorReason, Unavailable
from domains.requests import KEEP_S, MAX_REMEMBERED, NEW, Asked, Remembered, Requests, in_memory

FIRST = Asked(scope="Set", request_id="r", digest="1")
OTHER = Asked(scope="Set", request_id="r", digest="2")


class Work:
    """Counts how often it was done; each time waits to be let go on."""

    def __init__(self, *, wait: bool = False) -> None:
        self.done = 0
        self.go_on = asyncio.Event()
        if not wait:
            self.go_on.set()
        self.problem: Exception | None = None

    async def __call__(self) -> int:
        self.done += 1
        await self.go_on.wait()
        if self.problem:
            raise self.problem
        return self.done


def requests(clock: "Clock | None" = None) -> Requests[int]:
    return in_memory(Remembered(clock or Clock()))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_same_request_is_answered_once() -> None:
    known, work = requests(), Work()
    assert [await known.once(FIRST, work) for _ in range(3)] == [1, 1, 1]
    assert known.known(FIRST) == 1


async def test_a_request_without_an_id_counts_each_time() -> None:
    known, work = requests(), Work()
    assert [await known.once(NEW, work) for _ in range(2)] == [1, 2]


async def test_each_method_has_its_own_ids() -> None:
    known, work = requests(), Work()
    await known.once(FIRST, work)
    assert await known.once(Asked(scope="Other", request_id="r", digest="2"), work) == 2


async def test_other_content_is_refused_while_the_first_is_at_work_and_afterwards() -> None:
    known, work = requests(), Work(wait=True)
    first = asyncio.create_task(known.once(FIRST, work))
    await asyncio.sleep(0)
    with pytest.raises(AlreadyExists) as told:
        await known.once(OTHER, work)
    assert told.value.reason is ErrorReason.REQUEST_ID_REUSED
    work.go_on.set()
    await first
    with pytest.raises(AlreadyExists):
        await known.once(OTHER, work)
    with pytest.raises(AlreadyExists):
        known.known(OTHER)


async def test_a_repetition_waits_for_the_first() -> None:
    known, work = requests(), Work(wait=True)
    calls = [asyncio.create_task(known.once(FIRST, work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.go_on.set()
    assert await asyncio.gather(*calls) == [1, 1, 1]


async def test_a_failure_is_no_answer() -> None:
    known, work = requests(), Work(wait=True)
    work.problem = Unavailable("later")
    calls = [asyncio.create_task(known.once(FIRST, work)) for _ in range(2)]
    await asyncio.sleep(0)
    work.go_on.set()
    assert all(isinstance(one, Unavailable) for one in await asyncio.gather(*calls, return_exceptions=True))
    work.problem = None
    assert await known.once(OTHER, work) == 3


async def test_a_first_that_was_left_lets_the_next_one_do_it() -> None:
    known, work = requests(), Work(wait=True)
    left, stays = (asyncio.create_task(known.once(FIRST, work)) for _ in range(2))
    await asyncio.sleep(0)
    left.cancel()
    work.go_on.set()
    assert await stays == 2


async def test_answers_are_kept_for_a_day_and_the_newest_only() -> None:
    clock = Clock()
    known, work = requests(clock), Work()
    await known.once(FIRST, work)
    clock.now = KEEP_S + 1
    assert known.known(FIRST) is None
    for number in range(MAX_REMEMBERED + 1):
        await known.once(Asked(scope="Set", request_id=str(number)), work)
    assert known.known(Asked(scope="Set", request_id="0")) is None
    assert known.known(Asked(scope="Set", request_id="1")) is not None
