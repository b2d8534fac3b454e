"""The log of changes of pressure: in order, and a wait that ends with a change or in time."""

import asyncio

from domains.memory.pools.pressure import Pressure, PressureChange
from domains.memory.pools.pressure_log import KEPT, PressureLog


def change(number: int) -> PressureChange:
    return PressureChange(pool_id="p", previous=None, current=Pressure.LOW, time_s=float(number))


def test_changes_are_numbered_and_read_after_a_sequence() -> None:
    log = PressureLog()
    assert (log.last, log.after(0)) == (0, [])
    for number in range(1, 4):
        log.add(change(number))
    assert (log.last, log.after(0), log.after(2)) == (3, [change(1), change(2), change(3)], [change(3)])
    assert log.after(3) == []


def test_only_the_newest_are_kept() -> None:
    log = PressureLog()
    for number in range(1, KEPT + 3):
        log.add(change(number))
    assert (len(log.after(0)), log.after(0)[0], log.last) == (KEPT, change(3), KEPT + 2)


async def test_a_wait_ends_at_once_with_the_next_change_or_in_time() -> None:
    log = PressureLog()
    assert not await log.more(0, 0.0)
    assert not await log.more(0, -1.0)
    waiting = [asyncio.create_task(log.more(0, 60.0)) for _ in range(2)]
    left = asyncio.create_task(log.more(0, 60.0))
    await asyncio.sleep(0)
    left.cancel()
    log.add(change(1))
    assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [True, True]
    assert await log.more(0, 0.0), "it has come already"
    assert not await log.more(1, 0.0)
    assert not log._waiting  # pyright: ignore[reportPrivateUsage]  # no waiter is kept for ever
