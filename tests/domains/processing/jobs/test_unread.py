"""What a shutdown waits for: last events on their way, reads, and pictures of which followers were told lately."""

import asyncio
from collections.abc import Awaitable

from domains.processing.jobs.unread import LONGEST_WAIT_S, Unread
from tests.domains.device.hand_clock import settle

SOON_S = 0.02
NEVER_S = 300.0
"""A wait that lasts this long fails the test by its own limit."""


def ended(job_id: str) -> bool:
    """Jobs of these tests have ended unless they are named otherwise."""
    return job_id != "runs"


async def within(work: Awaitable[None]) -> None:
    async with asyncio.timeout(10):
        await work


async def open_wait(unread: Unread) -> asyncio.Task[None]:
    """A wait that has something to wait for."""
    waiting = asyncio.create_task(unread.settle(ended, NEVER_S))
    await settle()
    assert not waiting.done()
    return waiting


async def test_nothing_open_is_nothing_to_wait_for() -> None:
    await within(Unread().settle(ended, NEVER_S))


async def test_a_picture_of_which_a_follower_was_told_is_waited_for_until_it_is_read() -> None:
    unread = Unread()
    unread.told("picture")
    waiting = await open_wait(unread)
    unread.read("another")
    await settle()
    assert not waiting.done()
    unread.read("picture")
    await within(waiting)


async def test_each_of_two_followers_reads_the_picture() -> None:
    unread = Unread()
    unread.told("picture")
    unread.told("picture")
    unread.read("picture")
    waiting = await open_wait(unread)
    unread.read("picture")
    await within(waiting)


async def test_a_picture_that_nobody_reads_is_waited_for_no_longer_than_the_limit() -> None:
    unread = Unread()
    unread.told("picture")
    await within(unread.settle(ended, SOON_S))


async def test_what_was_told_longer_ago_than_the_limit_is_not_waited_for() -> None:
    now = 0.0
    unread = Unread(clock=lambda: now)
    unread.told("picture")
    now = NEVER_S
    await within(unread.settle(ended, NEVER_S))


async def test_the_last_event_of_an_ended_job_is_waited_for_and_that_of_another_is_not() -> None:
    unread = Unread()
    with unread.following("runs"):
        await within(unread.settle(ended, NEVER_S))
        with unread.following("ended"):
            waiting = await open_wait(unread)
        await within(waiting)


async def test_a_read_on_its_way_is_waited_for_and_bounded() -> None:
    unread = Unread()
    with unread.reading():
        waiting = await open_wait(unread)
    await within(waiting)
    with unread.reading():
        await within(unread.settle(ended, SOON_S))


async def test_what_is_never_read_is_forgotten() -> None:
    now = 0.0
    unread = Unread(clock=lambda: now)
    unread.told("old")
    now = LONGEST_WAIT_S + 1
    unread.told("new")
    unread.read("new")
    await within(unread.settle(ended, LONGEST_WAIT_S * 10))
