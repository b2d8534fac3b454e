"""The feed: one sampling for all watchers, without drift, the newest only, and none when nobody watches."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domains.device.device import DeviceState
from domains.device.feed import LoopClock, Round, StatusFeed
from domains.device.sample import DeviceSample
from domains.device.status import DeviceStatus
from tests.domains.device.hand_clock import HandClock, settle


class Measured:
    """Devices whose every measurement is noted."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.ids = ["gpu-1", "cpu"]
        self.taken: list[tuple[str, float]] = []
        self.feed = StatusFeed(lambda: self.ids, self.status, self.clock)

    async def status(self, device_id: str) -> DeviceStatus:
        self.taken.append((device_id, self.clock.at))
        return DeviceStatus(device_id=device_id, state=DeviceState.AVAILABLE, sample=DeviceSample(time_s=self.clock.at))

    def times(self, device_id: str = "cpu") -> list[float]:
        return [round(at, 6) for name, at in self.taken if name == device_id]


class Watcher:
    """Reads rounds and notes when each came. While `slow` is set it does not read on."""

    def __init__(self, measured: Measured, interval_s: float, ids: Sequence[str] = ("cpu",)) -> None:
        self.read = asyncio.Event()
        self.read.set()
        self.rounds: list[tuple[float, Round]] = []
        self._measured = measured
        self._rounds = measured.feed.watch(ids, interval_s)
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for each in self._rounds:
            self.rounds.append((round(self._measured.clock.at, 6), each))
            await self.read.wait()

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.rounds]

    @property
    def skipped(self) -> list[int]:
        return [each.skipped_count for _, each in self.rounds]

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._rounds.aclose()


@asynccontextmanager
async def watching(measured: Measured, interval_s: float, ids: Sequence[str] = ("cpu",)) -> AsyncGenerator[Watcher]:
    """A watcher that leaves at the end, its first round read."""
    watcher = Watcher(measured, interval_s, ids)
    await settle()
    yield watcher
    await watcher.leave()


async def test_the_first_round_comes_at_once_and_the_others_without_drift() -> None:
    measured = Measured()
    async with watching(measured, 0.1) as watcher:
        assert watcher.times == [0]
        await measured.clock.advance(100)
        assert watcher.times == pytest.approx([turn / 10 for turn in range(1001)])
        assert set(watcher.skipped) == {0}


async def test_nobody_watching_means_no_sampling() -> None:
    measured = Measured()
    await measured.clock.advance(10)
    async with watching(measured, 1) as watcher:
        await measured.clock.advance(12.5)
        assert watcher.times == [10, 11, 12]
    await measured.clock.advance(100)
    assert measured.times() == [10, 11, 12]


async def test_watchers_share_samples_and_a_device_nobody_asked_about_is_left_alone() -> None:
    measured = Measured()
    async with watching(measured, 1) as first:
        await measured.clock.advance(0.3)
        async with watching(measured, 1) as second:
            await measured.clock.advance(10)
            assert (first.times, second.times) == ([*range(11)], [0.3, *range(1, 11)])
    assert measured.times() == [*range(11)]
    assert measured.times("gpu-1") == []


async def test_a_faster_watcher_sets_the_pace_of_sampling_but_not_of_others() -> None:
    measured = Measured()
    async with watching(measured, 1) as slow:
        await measured.clock.advance(2)
        async with watching(measured, 0.25) as fast:
            await measured.clock.advance(4)
            assert slow.times == [0, 1, 2, 3, 4]
            assert fast.times == [2 + quarter / 4 for quarter in range(9)]
        await measured.clock.advance(6)
        assert slow.times == [0, 1, 2, 3, 4, 5, 6]
    assert measured.times() == [0, 1, *(2 + quarter / 4 for quarter in range(9)), 5, 6]


async def test_a_watcher_that_left_leaves_neither_its_pace_nor_its_start_behind() -> None:
    measured = Measured()
    async with watching(measured, 1) as first:
        await measured.clock.advance(0.3)
        async with watching(measured, 1) as second:
            async with watching(measured, 0.25):
                await measured.clock.advance(1)
            await measured.clock.advance(6)
            assert first.times[-3:] == second.times[-3:] == [4, 5, 6]
    await measured.clock.advance(6.6)
    async with watching(measured, 1) as later:
        await measured.clock.advance(9)
        assert later.times == [6.6, 7.6, 8.6]


async def test_a_slow_reader_gets_the_newest_round_and_hears_how_many_it_missed() -> None:
    measured = Measured()
    async with watching(measured, 1) as watcher:
        watcher.read.clear()
        await measured.clock.advance(1)
        await measured.clock.advance(7.5)
        watcher.read.set()
        await settle()
        assert (watcher.times[-1], watcher.skipped[-1]) == (7.5, 5)
        assert watcher.rounds[-1][1].statuses[0].sample.time_s == 7.5
        await measured.clock.advance(9)
        assert watcher.times[-2:] == [8, 9]
        assert watcher.skipped[-2:] == [0, 0]


async def test_a_reader_that_comes_back_when_a_round_is_due_gets_it_at_once() -> None:
    measured = Measured()
    async with watching(measured, 1) as watcher:
        watcher.read.clear()
        await measured.clock.advance(1)
        await measured.clock.advance(7)
        watcher.read.set()
        await settle()
        assert (watcher.times[-1], watcher.skipped[-1]) == (7, 5)


async def test_a_round_that_came_late_is_not_followed_by_another_one_at_once() -> None:
    measured = Measured()
    async with watching(measured, 1):
        await measured.clock.advance(0.2)
        async with watching(measured, 1) as late:
            late.read.clear()
            await measured.clock.advance(1)
            await measured.clock.advance(7)
            late.read.set()
            await settle()
            assert late.times == [0.2, 1, 7]
            await measured.clock.advance(9)
            assert late.times == [0.2, 1, 7, 8, 9]


async def test_all_means_those_that_come_later_too() -> None:
    measured = Measured()
    async with watching(measured, 1, ids=()) as watcher:
        measured.ids.append("sim-0")
        await measured.clock.advance(1)
        devices = [[status.device_id for status in each.statuses] for _, each in watcher.rounds]
        assert devices == [["gpu-1", "cpu"], ["gpu-1", "cpu", "sim-0"]]


async def test_leaving_during_a_shared_sample_leaves_it_to_the_others() -> None:
    measured = Measured()
    answer = asyncio.Event()
    plain = measured.status

    async def slow(device_id: str) -> DeviceStatus:
        await answer.wait()
        return await plain(device_id)

    measured.feed = StatusFeed(lambda: measured.ids, slow, measured.clock)
    async with watching(measured, 1) as second:
        async with watching(measured, 1):
            pass
        answer.set()
        await settle()
        assert len(second.rounds) == 1


async def test_a_driver_slower_than_the_interval_is_not_asked_twice_at_once() -> None:
    measured = Measured()
    plain, under_way, most = measured.status, 0, 0

    async def slow(device_id: str) -> DeviceStatus:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await measured.clock.until(measured.clock.at + 2)
        under_way -= 1
        return await plain(device_id)

    measured.feed = StatusFeed(lambda: measured.ids, slow, measured.clock)
    async with watching(measured, 0.5) as watcher, watching(measured, 0.1):
        await measured.clock.advance(20)
        assert most == 1
        assert len(watcher.rounds) >= 8
        assert sum(watcher.skipped) > 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 80), st.integers(10, 200)), min_size=1, max_size=5))
@example([(1, 23, 10), (1, 33, 10)])
def test_however_many_watch_samples_are_no_more_than_the_fastest_asked_for(plans: list[tuple[int, int, int]]) -> None:
    """Of each: interval, when it comes and how long it stays, in tenths of a second."""

    async def run() -> None:
        measured = Measured()
        watchers: dict[int, Watcher] = {}
        for tenth in range(300):
            for number, (interval, come, stay) in enumerate(plans):
                if tenth == come:
                    watchers[number] = Watcher(measured, interval / 10)
                elif tenth == come + stay:
                    await watchers.pop(number).leave()
                if number in watchers:
                    _check(watchers[number], interval / 10, come / 10, measured.clock.at)
            await measured.clock.advance((tenth + 1) / 10)
        for watcher in watchers.values():
            await watcher.leave()
        fastest = min(interval for interval, _, _ in plans) / 10
        times = measured.times()
        for changes in range(len(times) - 1):
            assert times[changes + 1] > times[changes], "two samples at one time"
        assert len(times) <= 30 / fastest + 2 * len(plans) + 2

    asyncio.run(run())


def _check(watcher: Watcher, interval_s: float, came_s: float, now: float) -> None:
    """Rounds come about as often as asked, and each sample is new enough."""
    turns = (now - came_s) / interval_s
    assert turns - 2 <= len(watcher.rounds) <= turns + 3
    assert all(skipped == 0 for skipped in watcher.skipped)
    for at, each in watcher.rounds:
        assert at - each.statuses[0].sample.time_s <= interval_s + 1e-6


async def test_the_real_clock_waits_for_its_time_and_no_longer() -> None:
    clock = LoopClock()
    when = clock.now() + 0.01
    await asyncio.wait_for(clock.until(when), 60)
    assert clock.now() >= when
    async with asyncio.timeout(0.5):
        await clock.until(clock.now() - 5)
