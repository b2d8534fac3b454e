"""Streams samples of memory pools, and every change of pressure at once."""

import time
from collections.abc import AsyncIterator

from deviceops.memory.v1 import memory_service_pb2 as messages
from domains.errors import InvalidRequest, Violation
from domains.memory.pools.pool import PoolView
from domains.memory.pools.pools import Pools
from domains.memory.pools.pressure import PressureChange
from server import convert
from server.memory.messages import to_change, to_pool

DEFAULT_INTERVAL_S = 5.0
MAX_CHANGES = 100


async def watch_pools(
    pools: Pools, request: messages.WatchMemoryPoolsRequest
) -> AsyncIterator[messages.WatchMemoryPoolsResponse]:
    """Rounds of samples at the requested interval. For a slow reader, missed rounds are skipped without a measurement."""
    interval_s = _interval(request)
    chosen = [pools.get(name).source.pool_id for name in request.memory_pool_ids]
    watch = _Watch(pools, chosen, request)
    due = time.monotonic()
    while True:
        response = await watch.round()
        due += interval_s
        if response is not None:
            yield response
        # The rounds that passed while the reader took the last message.
        missed = max(0, int((time.monotonic() - due) / interval_s))
        watch.skipped += missed
        due += missed * interval_s
        while (left_s := due - time.monotonic()) > 0:
            if await pools.changes.more(watch.position, left_s) and (response := watch.changes_only()):
                yield response


class _Watch:
    """One reader."""

    def __init__(self, pools: Pools, chosen: list[str], request: messages.WatchMemoryPoolsRequest) -> None:
        self._pools = pools
        self._chosen = chosen
        self._min_change = request.min_change_bytes
        self._include_owners = request.include_owners
        self._sent: dict[str, PoolView] = {}
        self.position = pools.changes.last
        self.skipped = 0

    async def round(self) -> messages.WatchMemoryPoolsResponse | None:
        """A sample of each pool whose use changed, and the new changes of pressure. None: there are neither."""
        views = await self._measured()
        moved = [view for view in views if self._moved(view)]
        self._sent.update((view.id, view) for view in moved)
        changes = self._new_changes()
        return self._response(moved, changes) if moved or changes else None

    def changes_only(self) -> messages.WatchMemoryPoolsResponse | None:
        """The changes of pressure since the last round. None: they belong to other pools."""
        changes = self._new_changes()
        return self._response([], changes) if changes else None

    async def _measured(self) -> list[PoolView]:
        if not self._chosen:
            return await self._pools.list()
        return [await self._pools.view(pool_id) for pool_id in self._chosen]

    def _moved(self, view: PoolView) -> bool:
        sent = self._sent.get(view.id)
        if sent is None or not self._min_change:
            return True
        pairs = (
            (sent.measure.used_bytes, view.measure.used_bytes),
            (sent.measure.held_bytes, view.measure.held_bytes),
        )
        return any(
            (before is None) != (now is None) or abs((now or 0) - (before or 0)) >= self._min_change
            for before, now in pairs
        )

    def _new_changes(self) -> list[PressureChange]:
        changes = self._pools.changes.after(self.position)
        self.position = self._pools.changes.last
        return [change for change in changes if not self._chosen or change.pool_id in self._chosen][-MAX_CHANGES:]

    def _response(self, views: list[PoolView], changes: list[PressureChange]) -> messages.WatchMemoryPoolsResponse:
        skipped, self.skipped = self.skipped, 0
        return messages.WatchMemoryPoolsResponse(
            memory_pools=[to_pool(view, include_owners=self._include_owners) for view in views],
            pressure_changes=[to_change(change) for change in changes],
            skipped_count=skipped,
        )


def _interval(request: messages.WatchMemoryPoolsRequest) -> float:
    """The interval. INVALID_FIELD with all violations of the request."""
    interval_s = convert.from_duration(request.interval) if request.HasField("interval") else DEFAULT_INTERVAL_S
    wrong: list[Violation] = []
    if not 0.1 <= interval_s <= 60:
        wrong.append(
            Violation(field="interval", message=f"{interval_s} s is not within 0.1..60 s", allowed="0.1..60 s")
        )
    if request.min_change_bytes < 0:
        text = f"{request.min_change_bytes} is negative"
        wrong.append(Violation(field="min_change_bytes", message=text, allowed="0.."))
    if wrong:
        raise InvalidRequest(wrong)
    return interval_s
