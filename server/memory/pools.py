"""MemoryService: pools, budgets, clean-ups and histories."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from deviceops.memory.v1 import memory_service_pb2 as messages
from domains.device.device import OWN_NODE
from domains.memory.pools.advice import advice
from domains.memory.pools.budgets import Budgets
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from server.memory.messages import from_budget, from_kinds, from_reclaim, to_history, to_impact, to_pool, to_report
from server.memory.watch import watch_pools
from server.time_span import time_span

Context = grpc.aio.ServicerContext[Any, Any]


class PoolMethods:
    """The methods for pools, budgets, clean-ups and histories."""

    def __init__(self, pools: Pools, budgets: Budgets, reclaiming: Reclaiming) -> None:
        self._pools = pools
        self._budgets = budgets
        self._reclaiming = reclaiming

    async def ListMemoryPools(
        self, request: messages.ListMemoryPoolsRequest, context: Context
    ) -> messages.ListMemoryPoolsResponse:
        """List the pools of the requested kinds, measured now."""
        if request.node_ids and OWN_NODE not in request.node_ids:
            # All pools belong to this machine.
            return messages.ListMemoryPoolsResponse()
        views = await self._pools.list(from_kinds(request.kinds))
        pools = [to_pool(view, include_owners=request.include_owners) for view in views]
        return messages.ListMemoryPoolsResponse(memory_pools=pools)

    async def GetMemoryPool(
        self, request: messages.GetMemoryPoolRequest, context: Context
    ) -> messages.GetMemoryPoolResponse:
        """Return one pool, measured now."""
        view = await self._pools.view(request.memory_pool_id)
        return messages.GetMemoryPoolResponse(memory_pool=to_pool(view, include_owners=request.include_owners))

    def WatchMemoryPools(
        self, request: messages.WatchMemoryPoolsRequest, context: Context
    ) -> AsyncIterator[messages.WatchMemoryPoolsResponse]:
        """Stream samples, and each change of pressure, until the caller leaves."""
        return watch_pools(self._pools, request)

    async def SetMemoryBudget(
        self, request: messages.SetMemoryBudgetRequest, context: Context
    ) -> messages.SetMemoryBudgetResponse:
        """Set a budget, or with `validate_only` return its impact."""
        configured = self._pools.get(request.memory_pool_id).configured
        budget = from_budget(request.memory_budget, configured) if request.HasField("memory_budget") else None
        change = await self._budgets.set(
            request.memory_pool_id, budget, etag=request.etag, validate_only=request.validate_only
        )
        return messages.SetMemoryBudgetResponse(
            memory_pool=to_pool(change.view, include_owners=False), impact=to_impact(change.impact)
        )

    async def ReclaimMemory(
        self, request: messages.ReclaimMemoryRequest, context: Context
    ) -> messages.ReclaimMemoryResponse:
        """Free memory, or with `validate_only` plan it."""
        ask = from_reclaim(request)
        report = await self._reclaiming.reclaim(request.memory_pool_id, ask, validate_only=request.validate_only)
        return messages.ReclaimMemoryResponse(report=to_report(report))

    async def QueryMemoryHistory(
        self, request: messages.QueryMemoryHistoryRequest, context: Context
    ) -> messages.QueryMemoryHistoryResponse:
        """Return the history of a pool, with leak suspects and recommendations."""
        state = self._pools.get(request.memory_pool_id)
        start_s, end_s, step_s = time_span(request, finest_s=1)
        view = await self._pools.view(request.memory_pool_id)
        history = state.history.query(start_s, end_s, step_s)
        suspects = state.history.leaks.suspects()
        told = to_history(view.id, history, suspects, advice(view, history, suspects))
        return messages.QueryMemoryHistoryResponse(history=told)
