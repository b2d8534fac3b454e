"""Holding jobs back from devices whose memory is nearly full or is being freed."""

import time
from collections.abc import Callable

from domains.memory.pools.pools import Pools
from domains.memory.pools.pressure import Pressure
from domains.processing.memory.care import pool_of

HOLD_S = 60.0
"""The longest time that a device starts nothing after an interruption. Another process may fill its pool for longer."""


class HoldBack:
    """Decides which devices start no job now."""

    def __init__(self, pools: Pools, on_room: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`on_room`: called when a device that was held back may start jobs again."""
        self._pools = pools
        self._on_room = on_room
        self._clock = clock
        self._emptied: dict[str, float] = {}
        """By pool in which a job was interrupted: the time at which the device may start jobs at the latest."""
        pools.on_measured.append(self._look)

    def __call__(self, device_id: str, *, occupied: bool) -> bool:
        """Whether the device starts no job now. `occupied`: a job runs there, whose end may free memory."""
        pool_id = pool_of(device_id)
        emptied = self._clock() < self._emptied.get(pool_id, 0.0)
        return emptied or (occupied and self._is_nearly_full(pool_id))

    def interrupted(self, pool_id: str) -> None:
        """Hold jobs back from a pool in which a job is interrupted, until the clean-up has ended and the pressure fell."""
        self._emptied[pool_id] = self._clock() + HOLD_S

    def _look(self, pool_id: str) -> None:
        until = self._emptied.get(pool_id)
        if until is None:
            return
        cleaning = self._pools.get(pool_id).changing.locked()
        if self._clock() >= until or not (cleaning or self._is_nearly_full(pool_id)):
            del self._emptied[pool_id]
            self._on_room()

    def _is_nearly_full(self, pool_id: str) -> bool:
        return pool_id in self._pools.ids() and self._pools.get(pool_id).pressure is Pressure.EMERGENCY
