"""Which devices start nothing for now: their memory is nearly full, or is being freed."""

import time
from collections.abc import Callable

from domains.memory.pools.pools import Pools
from domains.memory.pools.pressure import Pressure
from domains.processing.memory_care import pool_of

PATIENCE_S = 60.0
"""A device whose job was interrupted to free memory waits no longer than this: what fills the pool may be another's."""


class HoldBack:
    """Asked by whoever starts jobs."""

    def __init__(self, pools: Pools, on_room: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`on_room` hears when a device that was held back may start again."""
        self._pools = pools
        self._on_room = on_room
        self._clock = clock
        self._emptied: dict[str, float] = {}
        """Pools for whose sake a job was interrupted, with the time until which that is respected."""
        pools.on_measured.append(self._look)

    def __call__(self, device_id: str, *, occupied: bool) -> bool:
        """Whether to start no more there. `occupied`: something runs, which may end and leave room."""
        pool_id = pool_of(device_id)
        emptied = self._clock() < self._emptied.get(pool_id, 0.0)
        return emptied or (occupied and self._is_nearly_full(pool_id))

    def interrupted(self, pool_id: str) -> None:
        """A job there gives its memory back; it must not take it again before the clean-up is over and has helped."""
        self._emptied[pool_id] = self._clock() + PATIENCE_S

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
