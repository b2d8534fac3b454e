"""Pools and reservations over a real port, with the real host and disk of this machine."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.memory.v1 import memory_budget_pb2, memory_pool_pb2, memory_service_pb2, reservation_pb2
from deviceops.memory.v1 import memory_service_pb2 as messages
from deviceops.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from domains.errors import ErrorReason, NotFound
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.pools.budgets import Budgets
from domains.memory.pools.disk_pool import DiskPool
from domains.memory.pools.host_pool import HostPool
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaim import IdleModel, RunningJob
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation_queue import ReservationQueue
from domains.memory.pools.reservations import Reservations
from server.errors import AnsweringErrors
from server.memory.pools import PoolMethods
from server.memory.reservations import ReservationMethods
from server.register import register

MIB = 1024 * 1024
GIB = 1024 * MIB


class HostModels:
    """Models that really hold host memory, and give it back when they are unloaded."""

    def __init__(self) -> None:
        self.kept: dict[str, bytearray] = {}
        self.pinned: set[str] = set()

    def load(self, name: str, size: int, *, pinned: bool = False) -> None:
        self.kept[name] = bytearray(b"x") * size
        if pinned:
            self.pinned.add(name)

    def owners(self) -> list[MemoryOwner]:
        return [
            MemoryOwner(kind=OwnerKind.LOADED_MODEL, id=name, live_bytes=len(kept), session_id=f"s-{name}")
            for name, kept in self.kept.items()
        ]

    async def empty_caches(self, pool_id: str) -> None:
        """Python keeps nothing of this size."""

    async def unload(self, loaded_model_id: str) -> None:
        del self.kept[loaded_model_id]

    async def compact(self, pool_id: str) -> None:
        """There is nothing to move."""

    async def interrupt(self, job_id: str) -> None:
        raise AssertionError("there are no jobs")

    def idle_models(self, pool_id: str) -> Sequence[IdleModel]:
        return [
            IdleModel(id=name, bytes=len(kept), idle_s=1000.0 - place, pinned=name in self.pinned)
            for place, (name, kept) in enumerate(self.kept.items())
            if pool_id == "host"
        ]

    async def collect(self, pool_id: str, blob_id: str) -> None:
        raise AssertionError("there are no blobs")

    def spent_blobs(self, pool_id: str) -> Sequence[MemoryOwner]:
        return ()

    def running_jobs(self, pool_id: str) -> Sequence[RunningJob]:
        return ()


def no_session(session_id: str) -> None:
    raise NotFound(f"there is no session {session_id}", ErrorReason.SESSION_NOT_FOUND)


class Served:
    """The methods behind a port, and what is behind the methods."""

    def __init__(self, state: Path) -> None:
        self.models = HostModels()
        self.pools = Pools()
        self.pools.add(HostPool(owners=self.models.owners))
        self.on_disk: list[MemoryOwner] = []
        self.pools.add(DiskPool(state, lambda: self.on_disk))
        reclaiming = Reclaiming(self.pools, self.models)
        self.reservations = Reservations(self.pools)
        budgets = Budgets(self.pools, self.reservations, reclaiming, lambda pool_id, ceiling: ())
        queue = ReservationQueue(self.pools, self.reservations, reclaiming.evict)
        reservations = ReservationMethods(queue, self.reservations, self.pools, no_session)

        class Both(PoolMethods):
            CreateReservation = staticmethod(reservations.CreateReservation)
            ListReservations = staticmethod(reservations.ListReservations)
            RenewReservation = staticmethod(reservations.RenewReservation)
            DeleteReservation = staticmethod(reservations.DeleteReservation)

        self.servicer = Both(self.pools, budgets, reclaiming)
        self.memory: Any = None


@asynccontextmanager
async def serving(state: Path) -> AsyncGenerator[Served]:
    served = Served(state)
    server = grpc.aio.server()
    register(AnsweringErrors(server), memory_service_pb2.DESCRIPTOR.services_by_name["MemoryService"], served.servicer)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        served.memory = MemoryServiceStub(channel)
        yield served
    await server.stop(None)


async def refused(call: Awaitable[object]) -> tuple[str, dict[str, str], set[str]]:
    """Reason, facts and the fields of the violations."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)  # pyright: ignore[reportArgumentType]  # it has what a call has
    assert status is not None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return info.reason, dict(info.metadata), {violation.field for violation in bad.field_violations}


async def create(served: Served, size: int = MIB, **fields: Any) -> reservation_pb2.Reservation:
    request = messages.CreateReservationRequest(memory_pool_id="host", size_bytes=size, **fields)
    return (await served.memory.CreateReservation(request)).reservation


async def test_pools_tell_what_this_machine_has(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        listed = await served.memory.ListMemoryPools(messages.ListMemoryPoolsRequest(include_owners=True))
        host, disk = listed.memory_pools
        assert (host.id, disk.id) == ("host", "disk")
        for pool in (host, disk):
            assert 0 < pool.used_bytes <= pool.total_bytes
            assert pool.available_bytes <= pool.total_bytes - pool.used_bytes
            assert sum(owner.live_bytes for owner in pool.owners) == pool.live_bytes
            assert pool.budget.critical_ratio == 0.90
            assert not pool.budget.HasField("limit_bytes")
        assert not host.HasField("fragmentation_ratio")
        assert not host.HasField("pinned_bytes")
        only = await served.memory.ListMemoryPools(
            messages.ListMemoryPoolsRequest(kinds=[memory_pool_pb2.MEMORY_POOL_KIND_DISK])
        )
        assert [pool.id for pool in only.memory_pools] == ["disk"]


async def test_sessions_show_what_each_of_them_holds(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.models.load("a", 3 * MIB)
        served.models.load("b", 5 * MIB)
        got = await served.memory.GetMemoryPool(
            messages.GetMemoryPoolRequest(memory_pool_id="cpu", include_owners=True)
        )
        by_session = {owner.session_id: owner.live_bytes for owner in got.memory_pool.owners if owner.session_id}
        assert by_session == {"s-a": 3 * MIB, "s-b": 5 * MIB}


async def test_unknown_pools_are_named_with_those_there_are(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        calls: list[tuple[Callable[[Any], Awaitable[object]], type[Any]]] = [
            (served.memory.GetMemoryPool, messages.GetMemoryPoolRequest),
            (served.memory.SetMemoryBudget, messages.SetMemoryBudgetRequest),
            (served.memory.ReclaimMemory, messages.ReclaimMemoryRequest),
            (served.memory.QueryMemoryHistory, messages.QueryMemoryHistoryRequest),
        ]
        for call, request in calls:
            for name in ("gpu-00000000", "", "../host", "HOST"):
                reason, facts, _ = await refused(call(request(memory_pool_id=name)))
                assert (reason, facts["known"]) == ("MEMORY_POOL_NOT_FOUND", "host, disk")
        watch = served.memory.WatchMemoryPools(messages.WatchMemoryPoolsRequest(memory_pool_ids=["host", "nope"]))
        assert (await refused(watch.read()))[0] == "MEMORY_POOL_NOT_FOUND"


async def test_a_reservation_lives_from_creation_to_release(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        held = await create(served, 3 * MIB, purpose="later", labels=[label_pb2.Label(key="k", value="v")])
        assert held.state == reservation_pb2.RESERVATION_STATE_HELD
        assert (held.priority, held.purpose) == (job_event_pb2.PRIORITY_NORMAL, "later")
        assert 59 <= held.expire_time.ToNanoseconds() / 1e9 - held.create_time.ToNanoseconds() / 1e9 <= 61
        pool = (await served.memory.GetMemoryPool(messages.GetMemoryPoolRequest(memory_pool_id="host"))).memory_pool
        assert pool.reserved_bytes == 3 * MIB
        renewed = await served.memory.RenewReservation(
            messages.RenewReservationRequest(reservation_id=held.id, size_bytes=4 * MIB, etag=held.etag)
        )
        assert renewed.reservation.size_bytes == 4 * MIB
        stale = messages.DeleteReservationRequest(reservation_id=held.id, etag=held.etag)
        assert (await refused(served.memory.DeleteReservation(stale)))[0] == "ETAG_MISMATCH"
        delete = messages.DeleteReservationRequest(reservation_id=held.id)
        assert (await served.memory.DeleteReservation(delete)).released_bytes == 4 * MIB
        assert (await refused(served.memory.DeleteReservation(delete)))[0] == "RESERVATION_NOT_FOUND"


async def test_reservations_are_paged_newest_first_and_filtered(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        made = [(await create(served, MIB + place)).id for place in range(5)]
        await create(served, 7, labels=[label_pb2.Label(key="k", value="v")])
        got: list[str] = []
        token = ""
        for _ in range(3):
            page = await served.memory.ListReservations(messages.ListReservationsRequest(page_size=2, page_token=token))
            got += [each.id for each in page.reservations]
            token = page.next_page_token
        assert token == ""
        assert got[1:] == made[::-1]
        for wanted, count in (
            (reservation_pb2.ReservationFilter(labels=[label_pb2.Label(key="k", value="v")]), 1),
            (reservation_pb2.ReservationFilter(memory_pool_ids=["cpu"]), 6),
            (reservation_pb2.ReservationFilter(memory_pool_ids=["disk", "gone"]), 0),
            (reservation_pb2.ReservationFilter(states=[reservation_pb2.RESERVATION_STATE_UNSPECIFIED]), 6),
            (reservation_pb2.ReservationFilter(states=[reservation_pb2.RESERVATION_STATE_EXPIRED]), 0),
        ):
            page = await served.memory.ListReservations(messages.ListReservationsRequest(filter=wanted))
            assert len(page.reservations) == count
        for bad, field in (
            (messages.ListReservationsRequest(page_size=-1), "page_size"),
            (messages.ListReservationsRequest(page_size=1001), "page_size"),
            (messages.ListReservationsRequest(page_token="x"), "page_token"),
            (messages.ListReservationsRequest(page_token="////////////"), "page_token"),
        ):
            reason, _, fields = await refused(served.memory.ListReservations(bad))
            assert (reason, fields) == ("INVALID_FIELD", {field})


@pytest.mark.parametrize("size", [0, -1, -(2**63)])
async def test_impossible_reservations_are_refused_all_at_once(tmp_path: Path, size: int) -> None:
    async with serving(tmp_path) as served:
        request = messages.CreateReservationRequest(
            memory_pool_id="host",
            size_bytes=size,
            time_to_live=Duration(seconds=-1),
            wait_timeout=Duration(seconds=601),
            request_id="r",
        )
        reason, _, fields = await refused(served.memory.CreateReservation(request))
        assert reason == "INVALID_FIELD"
        assert fields == {"size_bytes", "time_to_live", "wait_timeout"}


async def test_more_than_there_is_is_refused_with_need_and_room(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for pool, expected in (("host", "HOST_OUT_OF_MEMORY"), ("disk", "STORAGE_FULL")):
            request = messages.CreateReservationRequest(memory_pool_id=pool, size_bytes=2**63 - 1)
            reason, facts, _ = await refused(served.memory.CreateReservation(request))
            assert (reason, facts["needed_bytes"]) == (expected, str(2**63 - 1))
            assert int(facts["available_bytes"]) > 0
        request = messages.CreateReservationRequest(memory_pool_id="host", size_bytes=1, session_id="s-1")
        assert (await refused(served.memory.CreateReservation(request)))[0] == "SESSION_NOT_FOUND"


async def test_the_same_request_id_is_the_same_reservation(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        first, again = await create(served, request_id="r-1"), await create(served, request_id="r-1")
        assert first == again
        other = messages.CreateReservationRequest(memory_pool_id="host", size_bytes=5, request_id="r-1")
        assert (await refused(served.memory.CreateReservation(other)))[0] == "REQUEST_ID_REUSED"
        long = messages.CreateReservationRequest(memory_pool_id="host", size_bytes=5, request_id="x" * 65)
        assert (await refused(served.memory.CreateReservation(long)))[2] == {"request_id"}


async def test_leaving_the_call_ends_the_wait(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        # So large that what the process itself takes and gives back meanwhile makes no room.
        pool = (await served.memory.GetMemoryPool(messages.GetMemoryPoolRequest(memory_pool_id="host"))).memory_pool
        limit = memory_budget_pb2.MemoryBudget(limit_bytes=pool.held_bytes + 640 * MIB)
        await served.memory.SetMemoryBudget(messages.SetMemoryBudgetRequest(memory_pool_id="host", memory_budget=limit))
        most = await create(served, 560 * MIB)
        request = messages.CreateReservationRequest(
            memory_pool_id="host", size_bytes=400 * MIB, wait_timeout=Duration(seconds=60)
        )
        call = served.memory.CreateReservation(request)
        # Until it stands in line: then one who is no more urgent is refused.
        while await _has_room(served, MIB):
            continue
        call.cancel()
        await served.memory.DeleteReservation(messages.DeleteReservationRequest(reservation_id=most.id))
        # Had the wait gone on, the bytes would be its for a minute.
        assert (await create(served, 500 * MIB, wait_timeout=Duration(seconds=20))).size_bytes == 500 * MIB


async def _has_room(served: Served, size: int) -> bool:
    try:
        held = await create(served, size)
    except grpc.aio.AioRpcError:
        return False
    await served.memory.DeleteReservation(messages.DeleteReservationRequest(reservation_id=held.id))
    return True


async def _answer(call: Any) -> object:
    try:
        return await call
    except asyncio.CancelledError:
        return None


async def test_a_budget_is_told_obeyed_and_given_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.models.load("old", 64 * MIB)
        served.models.load("pinned", 8 * MIB, pinned=True)
        pool = (await served.memory.GetMemoryPool(messages.GetMemoryPoolRequest(memory_pool_id="host"))).memory_pool
        tight = memory_budget_pb2.MemoryBudget(limit_bytes=pool.held_bytes - 40 * MIB)
        request = messages.SetMemoryBudgetRequest(memory_pool_id="host", memory_budget=tight, validate_only=True)
        told = await served.memory.SetMemoryBudget(request)
        assert list(told.impact.evicted_loaded_model_ids) == ["old"]
        assert told.impact.excess_bytes == pytest.approx(40 * MIB, abs=8 * MIB)
        assert not told.memory_pool.budget.HasField("limit_bytes")
        assert set(served.models.kept) == {"old", "pinned"}
        request.validate_only, request.request_id = False, "b-1"
        done = await served.memory.SetMemoryBudget(request)
        assert done.memory_pool.budget.limit_bytes == tight.limit_bytes
        assert done.memory_pool.held_bytes <= tight.limit_bytes
        assert set(served.models.kept) == {"pinned"}
        assert await served.memory.SetMemoryBudget(request) == done
        reason, _, _ = await refused(
            served.memory.CreateReservation(
                messages.CreateReservationRequest(memory_pool_id="host", size_bytes=60 * MIB)
            )
        )
        assert reason == "BUDGET_EXCEEDED"
        back = await served.memory.SetMemoryBudget(messages.SetMemoryBudgetRequest(memory_pool_id="host"))
        assert not back.memory_pool.budget.HasField("limit_bytes")


async def test_bad_budgets_change_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        budget = memory_budget_pb2.MemoryBudget(
            limit_bytes=-1, headroom_bytes=-(2**63), warning_ratio=math.nan, idle_after=Duration(nanos=1)
        )
        request = messages.SetMemoryBudgetRequest(memory_pool_id="host", memory_budget=budget)
        reason, _, fields = await refused(served.memory.SetMemoryBudget(request))
        assert reason == "INVALID_FIELD"
        assert fields == {
            f"memory_budget.{name}" for name in ("limit_bytes", "headroom_bytes", "warning_ratio", "idle_after")
        }
        flat = memory_budget_pb2.MemoryBudget(warning_ratio=0.95)
        request = messages.SetMemoryBudgetRequest(memory_pool_id="host", memory_budget=flat)
        assert (await refused(served.memory.SetMemoryBudget(request)))[2] == {"memory_budget.warning_ratio"}
        below = messages.SetMemoryBudgetRequest(
            memory_pool_id="host", memory_budget=memory_budget_pb2.MemoryBudget(limit_bytes=0)
        )
        assert (await refused(served.memory.SetMemoryBudget(below)))[0] == "BUDGET_EXCEEDED"
        below.etag = "another"
        assert (await refused(served.memory.SetMemoryBudget(below)))[0] == "ETAG_MISMATCH"


async def test_a_clean_up_frees_what_it_says(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.models.load("old", 64 * MIB)
        served.models.load("young", 32 * MIB)
        request = messages.ReclaimMemoryRequest(memory_pool_id="cpu", keep_ids=["young"], validate_only=True)
        plan = (await served.memory.ReclaimMemory(request)).report
        assert [step.owner.id for step in plan.steps if step.action == "unload"] == ["old"]
        assert not plan.HasField("after")
        request.validate_only = False
        report = (await served.memory.ReclaimMemory(request)).report
        freed = report.before.held_bytes - report.after.held_bytes
        assert freed == pytest.approx(64 * MIB, abs=8 * MIB)
        assert set(served.models.kept) == {"young"}
        for bad, field in (
            ({"free_bytes": -1}, "free_bytes"),
            ({"used_ratio": math.nan}, "used_ratio"),
            ({"max_duration": Duration(seconds=601)}, "max_duration"),
            ({"max_level": 9}, "max_level"),
        ):
            wrong = messages.ReclaimMemoryRequest(memory_pool_id="host", **bad)  # pyright: ignore[reportArgumentType]
            assert (await refused(served.memory.ReclaimMemory(wrong)))[2] == {field}


async def test_a_watch_sends_at_once_then_at_its_interval_and_pressure_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        request = messages.WatchMemoryPoolsRequest(memory_pool_ids=["cpu"], interval=Duration(seconds=60))
        call = served.memory.WatchMemoryPools(request)
        first = await asyncio.wait_for(call.read(), 5)
        assert [pool.id for pool in first.memory_pools] == ["host"]
        used = first.memory_pools[0].held_bytes
        tight = memory_budget_pb2.MemoryBudget(limit_bytes=int(used / 0.97), automatic_reclaim=False)
        await served.memory.SetMemoryBudget(messages.SetMemoryBudgetRequest(memory_pool_id="host", memory_budget=tight))
        second = await asyncio.wait_for(call.read(), 5)
        (change,) = second.pressure_changes
        assert (change.memory_pool_id, change.current) == ("host", memory_pool_pb2.MEMORY_PRESSURE_EMERGENCY)
        assert not second.memory_pools
        call.cancel()


async def test_what_does_not_move_is_left_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        request = messages.WatchMemoryPoolsRequest(interval=Duration(nanos=100_000_000), min_change_bytes=32 * GIB)
        call = served.memory.WatchMemoryPools(request)
        assert len((await call.read()).memory_pools) == 2
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(_answer(call.read())), 0.35)
        call.cancel()
        for bad, field in (
            ({"interval": Duration(nanos=99_000_000)}, "interval"),
            ({"interval": Duration(seconds=61)}, "interval"),
            ({"min_change_bytes": -1}, "min_change_bytes"),
        ):
            wrong = served.memory.WatchMemoryPools(messages.WatchMemoryPoolsRequest(**bad))  # pyright: ignore[reportArgumentType]
            assert (await refused(wrong.read()))[2] == {field}


async def test_history_tells_what_was_sampled(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for _ in range(3):
            await served.memory.GetMemoryPool(messages.GetMemoryPoolRequest(memory_pool_id="host"))
        request = messages.QueryMemoryHistoryRequest(memory_pool_id="cpu")
        history = (await served.memory.QueryMemoryHistory(request)).history
        assert history.memory_pool_id == "host"
        assert 1 <= len(history.samples) <= 3
        assert history.samples[-1].held_bytes > 0
        assert history.step.seconds == 1
        assert not history.HasField("allocation_count")
        wrong = messages.QueryMemoryHistoryRequest(
            memory_pool_id="host",
            start_time=Timestamp(seconds=2000),
            end_time=Timestamp(seconds=1000),
            step=Duration(nanos=5),
        )
        assert (await refused(served.memory.QueryMemoryHistory(wrong)))[2] == {"end_time", "step"}


async def test_blobs_that_are_not_named_are_no_owner_in_an_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.on_disk += [
            MemoryOwner(kind=OwnerKind.BLOB, id="b-1", live_bytes=GIB),
            MemoryOwner(kind=OwnerKind.BLOB, live_bytes=2 * GIB),
        ]
        request = messages.GetMemoryPoolRequest(memory_pool_id="disk", include_owners=True)
        pool = (await served.memory.GetMemoryPool(request)).memory_pool
        blob = memory_pool_pb2.MEMORY_OWNER_KIND_BLOB
        blobs = [(owner.id, owner.live_bytes) for owner in pool.owners if owner.kind == blob]
        assert blobs == [("b-1", GIB)]
        assert pool.live_bytes >= 3 * GIB
