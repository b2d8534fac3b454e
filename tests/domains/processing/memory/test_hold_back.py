"""A job that was interrupted to free memory goes on when that has helped, or when it has waited long enough."""

from domains.memory.pools.budget import MemoryBudget
from domains.processing.memory.hold_back import HOLD_S, HoldBack
from tests.domains.memory.scripted_pool import Bench


class Held(Bench):
    """A pool of 100 bytes and what is held back in it."""

    def __init__(self) -> None:
        super().__init__(100)
        self.rooms = 0
        self.hold_back = HoldBack(self.pools, self.note, self.clock)

    def note(self) -> None:
        self.rooms += 1

    async def use(self, used: int) -> None:
        self.source.others = used
        await self.pools.measure("sim-0")

    def starts(self, *, occupied: bool = False) -> bool:
        return not self.hold_back("sim-0", occupied=occupied)


async def test_a_full_pool_lets_an_idle_device_start_and_a_busy_one_not() -> None:
    held = Held()
    await held.use(97)
    assert (held.starts(), held.starts(occupied=True)) == (True, False)
    await held.use(50)
    assert held.starts(occupied=True)
    assert not held.hold_back("elsewhere", occupied=True)


async def test_after_an_interruption_nothing_starts_before_the_pressure_has_fallen() -> None:
    held = Held()
    await held.use(97)
    held.hold_back.interrupted("sim-0")
    await held.use(96)
    assert (held.starts(), held.rooms) == (False, 0)
    async with held.pools.get("sim-0").changing:
        # The clean-up is still at work.
        await held.use(50)
        assert not held.starts()
    await held.use(50)
    assert (held.starts(), held.rooms) == (True, 1)


async def test_memory_that_others_fill_keeps_a_device_idle_for_a_while_only() -> None:
    held = Held()
    held.pools.set_budget("sim-0", MemoryBudget(automatic_reclaim=False))
    await held.use(99)
    held.hold_back.interrupted("sim-0")
    held.clock.turn(HOLD_S - 1)
    await held.use(99)
    assert not held.starts()
    held.clock.turn(1)
    await held.use(99)
    assert (held.starts(), held.rooms) == (True, 1)
