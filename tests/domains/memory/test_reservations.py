"""No more is reserved than there is, in any order of requests; waits end in order, reservations by themselves."""

import asyncio
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.clock import ClockStep
from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, ResourceExhausted
from domains.memory.pools import reservation_table
from domains.memory.pools.admission import Admission
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.budgets import Budgets
from domains.memory.pools.claims import Claims
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation import (
    MAX_BYTES,
    MAX_LIVE_S,
    MAX_PURPOSE,
    MAX_WAIT_S,
    Priority,
    Reservation,
    ReservationAsk,
    ReservationState,
    ReservationWanted,
)
from domains.memory.pools.reservation_queue import Granted, ReservationQueue
from domains.memory.pools.reservation_table import ReservationTable
from domains.memory.pools.reservations import loop_timer
from tests.domains.memory.scripted_pool import Bench, ScriptedReclaimer

REFUSALS = (
    ErrorReason.DEVICE_OUT_OF_MEMORY,
    ErrorReason.BUDGET_EXCEEDED,
    ErrorReason.RESERVATION_EXPIRED,
    ErrorReason.RESERVATION_NOT_FOUND,
)
EVERY = ReservationWanted(states=tuple(ReservationState))


def ask(size: int, priority: Priority = Priority.NORMAL, **fields: Any) -> ReservationAsk:
    return ReservationAsk(pool_id="sim-0", size_bytes=size, priority=priority, **fields)


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def held(bench: Bench, size: int, priority: Priority = Priority.NORMAL, **fields: Any) -> Reservation:
    return (await bench.queue.create(ask(size, priority, **fields))).reservation


def waiting(bench: Bench, size: int, priority: Priority = Priority.NORMAL, wait_s: float = 60) -> asyncio.Task[Granted]:
    return asyncio.create_task(bench.queue.create(ask(size, priority, wait_s=wait_s)))


def states(bench: Bench) -> dict[int, ReservationState]:
    return {each.size_bytes: each.state for each in bench.reservations.list(EVERY)}


Actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["create", "wait", "delete", "run", "run", "admit", "renew", "settle", "turn", "measure", "budget"]
        ),
        st.integers(1, 700),
        st.sampled_from(list(Priority)),
    ),
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(Actions, Actions)
def test_two_clients_are_never_promised_more_than_there_is(
    one: list[tuple[str, int, Priority]], two: list[tuple[str, int, Priority]]
) -> None:
    asyncio.run(race(one, two))


async def race(*clients: list[tuple[str, int, Priority]]) -> None:
    bench = Racing()
    walkers = [asyncio.create_task(walk(bench, name, actions)) for name, actions in zip("ab", clients, strict=True)]
    await asyncio.gather(*walkers)


class Racing(Bench):
    """A pool that two clients use to the full, as jobs and blobs do, while somebody changes its budget."""

    def __init__(self) -> None:
        super().__init__(headroom_bytes=50, limit_bytes=900)
        self.admission = Admission(self.pools, self.reservations)
        reclaiming = Reclaiming(self.pools, ScriptedReclaimer(self.source))
        self.budgets = Budgets(self.pools, self.reservations, reclaiming, lambda pool_id, ceiling: ())
        self.coming: Counter[str] = Counter()
        """What consumers that were let in have still to allocate."""

    async def run(self, need: int, reservation_id: str, consumer: str) -> None:
        """A consumer that allocates in two pieces all that it may, with everybody else let in between."""
        kept = reservation_id and self.reservations.find_held(reservation_id).size_bytes
        with await self.admission.admit("sim-0", need, reservation_id, consumer, keep_all=True):
            self.coming[consumer] = max(need, kept or 0)
            for piece in (self.coming[consumer] // 2, self.coming[consumer] - self.coming[consumer] // 2):
                await asyncio.sleep(0)
                self.source.jobs[consumer] = self.source.jobs.get(consumer, 0) + piece
                self.coming[consumer] -= piece
            await asyncio.sleep(0)

    async def limit(self, limit_bytes: int) -> None:
        """Another limit, if what must stay allows it."""
        await self.budgets.set("sim-0", MemoryBudget(headroom_bytes=50, limit_bytes=limit_bytes))


@contextmanager
def allowed_refusals() -> Generator[None]:
    try:
        yield
    except DeviceOpsError as error:
        if error.reason not in REFUSALS:
            raise


async def walk(bench: Racing, name: str, actions: list[tuple[str, int, Priority]]) -> None:
    mine: list[Reservation] = []
    waits: list[asyncio.Task[Granted]] = []
    try:
        for action, size, priority in actions:
            with allowed_refusals():
                await step(bench, name, mine, waits, action, size, priority)
            not_oversold(bench)
            await asyncio.sleep(0)
            not_oversold(bench)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        not_oversold(bench)


async def step(
    bench: Racing,
    name: str,
    mine: list[Reservation],
    waits: list[asyncio.Task[Granted]],
    action: str,
    size: int,
    priority: Priority,
) -> None:
    match action:
        case "create":
            mine.append(await held(bench, size, priority))
        case "wait":
            waits.append(waiting(bench, size, priority))
        case "delete" if mine:
            bench.reservations.delete(mine.pop().id)
        case "run" if mine:
            reservation = mine.pop()
            await bench.run(size // 2, reservation.id, f"job-{name}{reservation.sequence}-1")
        case "admit":
            await bench.run(size, "", f"job-{name}a{len(bench.coming)}-1")
        case "budget":
            await bench.limit(500 + size)
        case "renew" if mine:
            mine[-1] = await bench.reservations.renew(mine[-1].id, size_bytes=size)
        case "settle":
            for job in [job for job in bench.source.jobs if job.startswith(f"job-{name}")]:
                del bench.source.jobs[job]
        case "turn":
            bench.clock.turn(size / 10)
        case _:
            await bench.pools.measure("sim-0")


def not_oversold(bench: Racing) -> None:
    kept = sum(each.size_bytes for each in bench.reservations.list(ReservationWanted()))
    taken = kept + bench.source.live + bench.coming.total()
    assert taken <= 1000 - 50
    state = bench.pools.get("sim-0")
    # While a budget changes, those who give way to it may not have done so yet.
    assert state.changing.locked() or taken <= (state.budget.limit_bytes or 0)


async def test_the_refusal_names_who_lacks_what() -> None:
    bench = Bench(1000, limit_bytes=800)
    bench.source.others = 100
    with pytest.raises(DeviceOpsError) as caught:
        await held(bench, 850)
    assert caught.value.reason is ErrorReason.BUDGET_EXCEEDED
    await held(bench, 500)
    with pytest.raises(DeviceOpsError) as caught:
        await held(bench, 500)
    assert caught.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert caught.value.facts == {
        "memory_pool_id": "sim-0",
        "needed_bytes": "500",
        "available_bytes": "300",
        "ceiling_bytes": "800",
    }
    assert caught.value.retry_after_s == 60


async def test_waiters_are_served_by_priority_then_in_their_order() -> None:
    bench = Bench(100)
    everything = await held(bench, 100)
    order = [
        waiting(bench, 60, Priority.NORMAL),
        waiting(bench, 50, Priority.NORMAL),
        waiting(bench, 70, Priority.HIGH),
    ]
    await settle()
    bench.reservations.delete(everything.id)
    await settle()
    assert [wait.done() for wait in order] == [False, False, True]
    bench.reservations.delete((await order[2]).reservation.id)
    await settle()
    assert [wait.done() for wait in order] == [True, False, True]
    order[1].cancel()
    await asyncio.gather(order[1], return_exceptions=True)


async def test_nobody_overtakes_those_who_wait_as_urgently() -> None:
    bench = Bench(100)
    await held(bench, 60)
    wait = waiting(bench, 90)
    await settle()
    with pytest.raises(DeviceOpsError):
        await held(bench, 10)
    assert (await held(bench, 10, Priority.HIGH)).state is ReservationState.HELD
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)
    await held(bench, 30)


async def test_a_wait_ends_in_time_with_the_refusal() -> None:
    bench = Bench(100)
    await held(bench, 100, live_s=600)
    wait = waiting(bench, 50, wait_s=30)
    await settle()
    bench.clock.turn(29)
    await settle()
    assert not wait.done()
    bench.clock.turn(1)
    with pytest.raises(DeviceOpsError) as caught:
        await wait
    assert caught.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY


async def test_an_expiry_ends_it_and_wakes_who_waits() -> None:
    bench = Bench(100)
    await held(bench, 80, live_s=10)
    wait = waiting(bench, 50)
    await settle()
    bench.clock.turn(9.9)
    await settle()
    assert not wait.done()
    bench.clock.turn(0.1)
    assert (await wait).reservation.state is ReservationState.HELD
    assert states(bench)[80] is ReservationState.EXPIRED


async def test_memory_that_others_give_back_wakes_who_waits() -> None:
    bench = Bench(100)
    bench.source.others = 80
    wait = waiting(bench, 50)
    await settle()
    bench.source.others = 10
    await bench.pools.measure("sim-0")
    assert (await wait).reservation.size_bytes == 50


async def test_what_can_never_fit_is_not_waited_for() -> None:
    bench = Bench(100)
    with pytest.raises(DeviceOpsError):
        await bench.queue.create(ask(101, wait_s=600))
    await held(bench, 100)
    wait = waiting(bench, 90)
    await settle()
    bench.pools.set_budget("sim-0", MemoryBudget(limit_bytes=80))
    with pytest.raises(DeviceOpsError):
        await wait


async def test_a_caller_that_leaves_while_it_is_granted_keeps_nothing() -> None:
    bench = Bench(100)
    first = await held(bench, 100)
    wait = waiting(bench, 100)
    await settle()
    bench.reservations.delete(first.id)
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)
    assert bench.pools.claims.outstanding_bytes("sim-0") == 0
    assert bench.reservations.list(EVERY) == []


async def test_critical_ends_low_ones_but_only_if_that_is_enough() -> None:
    bench = Bench(100)
    await held(bench, 30, Priority.LOW)
    await held(bench, 31, Priority.LOW)
    await held(bench, 32, Priority.NORMAL)
    with pytest.raises(DeviceOpsError):
        await held(bench, 69, Priority.CRITICAL)
    with pytest.raises(DeviceOpsError):
        await held(bench, 20, Priority.HIGH)
    assert set(states(bench).values()) == {ReservationState.HELD}
    await held(bench, 33, Priority.CRITICAL)
    # The newest of the LOW ones, and no more than needed.
    assert states(bench) == {
        30: ReservationState.HELD,
        31: ReservationState.PREEMPTED,
        32: ReservationState.HELD,
        33: ReservationState.HELD,
    }


@pytest.mark.parametrize(("need", "ended"), [(7, 0), (8, 1), (38, 1), (39, 2), (68, 2)])
async def test_critical_ends_as_many_low_ones_as_it_needs(need: int, ended: int) -> None:
    bench = Bench(100)
    for size, priority in ((30, Priority.LOW), (31, Priority.LOW), (32, Priority.NORMAL)):
        await held(bench, size, priority)
    await held(bench, need, Priority.CRITICAL)
    assert list(states(bench).values()).count(ReservationState.PREEMPTED) == ended


async def test_memory_that_comes_after_a_caller_has_left_goes_to_the_next_one() -> None:
    bench = Bench(100)
    first = await held(bench, 100)
    leaves, stays = waiting(bench, 60), waiting(bench, 70)
    await settle()
    leaves.cancel()
    bench.reservations.delete(first.id)
    assert (await stays).reservation.size_bytes == 70
    await asyncio.gather(leaves, return_exceptions=True)
    assert (leaves.cancelled(), bench.pools.claims.outstanding_bytes("sim-0")) == (True, 70)


async def test_what_critical_frees_goes_to_nobody_else() -> None:
    bench = Bench(100)
    await held(bench, 100, Priority.LOW)
    wait = waiting(bench, 60, Priority.HIGH)
    await settle()
    await held(bench, 70, Priority.CRITICAL)
    await settle()
    assert not wait.done()
    assert bench.pools.claims.outstanding_bytes("sim-0") == 70
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)


async def test_a_lost_device_ends_reservations_and_waits() -> None:
    bench = Bench(100)
    await held(bench, 80)
    wait = waiting(bench, 50)
    await settle()
    bench.reservations.lose("sim-0")
    with pytest.raises(DeviceOpsError) as caught:
        await wait
    assert caught.value.reason is ErrorReason.DEVICE_LOST
    assert states(bench) == {80: ReservationState.LOST}
    assert bench.pools.claims.outstanding_bytes("sim-0") == 0


async def test_renewing_puts_off_the_end_and_changes_size_all_or_nothing() -> None:
    bench = Bench(100)
    first = await held(bench, 40, live_s=10)
    await held(bench, 30, live_s=600)
    bench.clock.turn(9)
    longer = await bench.reservations.renew(first.id, 10, 60)
    assert (longer.expire_time_s, longer.size_bytes) == (19, 60)
    assert longer.etag != first.etag
    bench.clock.turn(5)
    assert bench.reservations.is_held(first.id), "the first end does not count any more"
    with pytest.raises(DeviceOpsError) as caught:
        await bench.reservations.renew(first.id, 100, 71)
    assert caught.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert longer in bench.reservations.list(ReservationWanted())
    with pytest.raises(DeviceOpsError) as caught:
        await bench.reservations.renew(first.id, etag=first.etag)
    assert caught.value.reason is ErrorReason.ETAG_MISMATCH
    bench.clock.turn(5)
    with pytest.raises(DeviceOpsError) as caught:
        await bench.reservations.renew(first.id)
    assert caught.value.reason is ErrorReason.RESERVATION_EXPIRED


async def test_a_renewal_counts_what_others_gave_back_meanwhile() -> None:
    bench = Bench(100)
    bench.source.others = 50
    first = await held(bench, 40)
    bench.source.others = 0
    assert (await bench.reservations.renew(first.id, size_bytes=100)).size_bytes == 100


async def test_whoever_listens_hears_each_end_before_its_bytes_are_free() -> None:
    bench, told = Bench(100), list[tuple[int, ReservationState, int]]()

    def ended(reservation: Reservation) -> None:
        told.append((reservation.size_bytes, reservation.state, bench.pools.claims.outstanding_bytes("sim-0")))

    bench.reservations.on_ended.append(ended)
    await held(bench, 10, live_s=1)
    preempted = await held(bench, 20)
    used_up, given_back = await held(bench, 30), await held(bench, 5)
    await held(bench, 35)
    bench.clock.turn(1)
    bench.reservations.preempt(preempted.id)
    bench.reservations.preempt(preempted.id)
    bench.reservations.commit(used_up.id, "job-1")
    bench.reservations.delete(given_back.id)
    bench.reservations.lose("sim-0")
    assert told == [
        (10, ReservationState.EXPIRED, 100),
        (20, ReservationState.PREEMPTED, 90),
        (35, ReservationState.LOST, 65),
    ]


async def test_a_second_release_finds_nothing() -> None:
    bench = Bench(100)
    first = await held(bench, 40)
    assert bench.reservations.delete(first.id) == 40
    with pytest.raises(DeviceOpsError) as caught:
        bench.reservations.delete(first.id)
    assert caught.value.reason is ErrorReason.RESERVATION_NOT_FOUND


async def test_an_ended_one_is_listed_for_an_hour_and_releases_nothing() -> None:
    bench = Bench(100)
    first, second = await held(bench, 40, live_s=1), await held(bench, 50, live_s=1)
    bench.clock.turn(1)
    assert bench.reservations.delete(first.id) == 0
    bench.clock.turn(3599)
    assert [each.id for each in bench.reservations.list(EVERY)] == [second.id]
    bench.clock.turn(1)
    assert bench.reservations.list(EVERY) == []


async def test_a_used_up_one_is_its_consumers() -> None:
    bench = Bench(100)
    first = await held(bench, 40)
    bench.reservations.commit(first.id, "job-1")
    (used,) = bench.reservations.list(EVERY)
    assert (used.state, used.consumer_id) == (ReservationState.COMMITTED, "job-1")
    for call in (lambda: bench.reservations.delete(first.id), lambda: bench.reservations.commit(first.id, "job-2")):
        with pytest.raises(DeviceOpsError) as caught:
            call()
        assert caught.value.reason is ErrorReason.ILLEGAL_STATE


async def test_what_was_used_up_or_given_back_does_not_expire() -> None:
    bench = Bench(100)
    used, given_back = await held(bench, 40, live_s=10), await held(bench, 30, live_s=10)
    admission = Admission(bench.pools, bench.reservations)
    assert (admission.is_held(used.id), admission.is_held("r-none")) == (True, False)
    bench.reservations.commit(used.id, "job-1")
    bench.reservations.delete(given_back.id)
    assert not admission.is_held(used.id)
    bench.clock.turn(20)
    assert states(bench) == {40: ReservationState.COMMITTED}


@pytest.mark.parametrize(("live_s", "again_s"), [(0.25, 1.0), (1.0, 1.0), (1.5, 1.5), (60.0, 60.0)])
async def test_a_refusal_says_to_come_again_when_the_next_reservation_ends(live_s: float, again_s: float) -> None:
    bench = Bench(100)
    await held(bench, 50, live_s=600)
    await held(bench, 50, live_s=2)
    bench.clock.turn(2)
    # The shortest time that a caller may ask for is longer than the shortest that can be left.
    last = await held(bench, 50, live_s=max(1.0, live_s))
    bench.clock.turn(max(1.0, live_s) - live_s)
    with pytest.raises(ResourceExhausted) as refused:
        await held(bench, 10)
    assert refused.value.retry_after_s == again_s
    assert bench.reservations.is_held(last.id)


async def test_between_claim_and_measurement_the_bytes_are_nobody_elses() -> None:
    bench = Bench(100)
    claim = bench.reservations.commit((await held(bench, 60)).id, "job-1")
    bench.source.jobs["job-1"] = 25
    view = await bench.pools.view("sim-0")
    assert (view.reserved_bytes, view.available_bytes) == (35, 40)
    bench.source.jobs["job-1"] = 60
    claim.close()
    # Until it is measured, the claim counts.
    assert bench.pools.claims.outstanding_bytes("sim-0") == 35
    view = await bench.pools.view("sim-0")
    assert (view.reserved_bytes, view.available_bytes) == (0, 40)


async def test_a_limit_holds_while_a_busy_worker_does_not_tell_what_it_holds() -> None:
    bench = Bench(1000, limit_bytes=100)
    bench.source.models["m"] = 40
    await bench.pools.measure("sim-0")
    bench.source.silent = True
    with bench.reservations.commit((await held(bench, 50)).id, "job-1"):
        bench.source.jobs["job-1"] = 50
    await bench.pools.measure("sim-0")
    with pytest.raises(DeviceOpsError) as caught:
        await held(bench, 20)
    assert caught.value.reason is ErrorReason.BUDGET_EXCEEDED
    assert (await held(bench, 10)).size_bytes == 10


async def test_where_nobody_can_tell_what_is_held_claims_end_all_the_same() -> None:
    bench = Bench(1000, limit_bytes=100)
    bench.source.silent = True
    bench.reservations.commit((await held(bench, 100)).id, "job-1").close()
    assert (await held(bench, 100)).size_bytes == 100


async def test_admission_obeys_budget_and_reservations() -> None:
    bench = Bench(1000, limit_bytes=100)
    admission = Admission(bench.pools, bench.reservations)
    first = await held(bench, 60)
    with pytest.raises(DeviceOpsError) as caught:
        await admission.admit("sim:0", 41)
    assert caught.value.reason is ErrorReason.BUDGET_EXCEEDED
    with pytest.raises(DeviceOpsError):
        await admission.admit("sim-0", 101, first.id)
    (still,) = bench.reservations.list(ReservationWanted())
    assert still == first
    with await admission.admit("sim-0", 90, first.id, "job-1"):
        assert bench.pools.claims.outstanding_bytes("sim-0") == 90
    with pytest.raises(DeviceOpsError) as caught:
        await admission.admit("sim-0", 1, first.id)
    assert caught.value.reason is ErrorReason.ILLEGAL_STATE


async def test_what_a_blob_does_not_need_of_its_reservation_is_free_at_once() -> None:
    bench = Bench(100)
    admission = Admission(bench.pools, bench.reservations)
    first = await held(bench, 100)
    await admission.admit("sim-0", 30, first.id)
    assert (await held(bench, 70)).state is ReservationState.HELD


async def test_a_claim_that_keeps_all_is_shared_out_to_the_byte() -> None:
    bench = Bench(100)
    admission = Admission(bench.pools, bench.reservations)
    first = await held(bench, 90)
    rest = await admission.admit("sim-0", 30, first.id, "job-1", keep_all=True)
    weights = rest.split(30, "m")
    assert bench.pools.claims.outstanding_bytes("sim-0") == 90
    bench.source.models["m"] = 30
    bench.source.jobs["job-1"] = 20
    weights.close()
    await bench.pools.measure("sim-0")
    assert bench.pools.claims.outstanding_bytes("sim-0") == 40
    rest.close()
    await bench.pools.measure("sim-0")
    assert bench.pools.claims.outstanding_bytes("sim-0") == 0


async def test_a_pool_that_cannot_be_measured_promises_nothing_and_forbids_nothing() -> None:
    bench = Bench(None)
    with pytest.raises(DeviceOpsError) as caught:
        await held(bench, 1)
    assert caught.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    await Admission(bench.pools, bench.reservations).admit("sim-0", 2**60)


async def test_a_model_that_turns_idle_makes_room_for_who_waits() -> None:
    bench = Bench(100)
    reclaimer = ScriptedReclaimer(bench.source)
    evict = Reclaiming(bench.pools, reclaimer).evict
    queue = ReservationQueue(bench.pools, bench.reservations, evict, call_later=bench.clock.call_later)
    reclaimer.load("m", 80, in_use=True)
    wait = asyncio.create_task(queue.create(ask(60, allow_eviction=True, wait_s=60)))
    await settle()
    await bench.pools.measure("sim-0")
    await settle()
    assert (wait.done(), list(bench.source.models)) == (False, ["m"])
    reclaimer.load("m", 80)
    await bench.pools.measure("sim-0")
    granted = await wait
    assert (granted.reservation.state, granted.evicted_ids) == (ReservationState.HELD, ("m",))


async def test_for_who_waits_as_much_is_evicted_as_lacks() -> None:
    bench = Bench(100)
    asked: list[tuple[str, int]] = []

    async def evict(pool_id: str, need_bytes: int) -> Sequence[str]:
        asked.append((pool_id, need_bytes))
        return ()

    queue = ReservationQueue(bench.pools, bench.reservations, evict, call_later=bench.clock.call_later)
    bench.source.others = 80
    wait = asyncio.create_task(queue.create(ask(60, allow_eviction=True, wait_s=60)))
    await settle()
    bench.source.others = 70
    await bench.pools.measure("sim-0")
    await settle()
    assert asked == [("sim-0", 40), ("sim-0", 30)]
    wait.cancel()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"size_bytes": 0}, {"size_bytes"}),
        ({"size_bytes": -5}, {"size_bytes"}),
        ({"size_bytes": 2**63}, {"size_bytes"}),
        ({"live_s": 0.9, "wait_s": -1.0}, {"time_to_live", "wait_timeout"}),
        ({"live_s": 3601.0, "wait_s": 601.0, "purpose": "x" * 256}, {"time_to_live", "wait_timeout", "purpose"}),
        ({"labels": (("a", ""), ("a", ""))}, {"labels"}),
        ({"labels": (("", ""),)}, {"labels"}),
    ],
)
def test_impossible_requests_are_refused_all_at_once(fields: dict[str, Any], named: set[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ReservationAsk(pool_id="sim-0", size_bytes=fields.pop("size_bytes", 1), **fields)
    assert {violation.field for violation in caught.value.violations} == named


@pytest.mark.parametrize(
    "fields",
    [
        {"size_bytes": 1},
        {"size_bytes": MAX_BYTES},
        {"live_s": 1.0},
        {"live_s": MAX_LIVE_S},
        {"wait_s": MAX_WAIT_S},
        {"purpose": "x" * MAX_PURPOSE},
    ],
)
def test_what_is_just_within_the_limits_is_taken(fields: dict[str, Any]) -> None:
    assert msgspec.structs.replace(ask(10), **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"size_bytes": 0},
        {"size_bytes": MAX_BYTES + 1},
        {"live_s": 0.99},
        {"live_s": MAX_LIVE_S + 0.1},
        {"wait_s": -0.1},
        {"wait_s": MAX_WAIT_S + 0.1},
        {"purpose": "x" * (MAX_PURPOSE + 1)},
        {"labels": (("", "x"),)},
    ],
)
def test_what_is_just_beyond_the_limits_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        msgspec.structs.replace(ask(10), **fields)


async def test_a_list_has_what_fits_every_field_of_the_filter() -> None:
    bench = Bench()
    labels = (("a", "1"),)
    one = await held(bench, 1, session_id="s", labels=labels)
    two = await held(bench, 1)
    assert [each.id for each in bench.reservations.list(ReservationWanted())] == [two.id, one.id]
    for wanted, found in (
        (ReservationWanted(), {one.id, two.id}),
        (ReservationWanted(session_id="s"), {one.id}),
        (ReservationWanted(session_id="t"), set[str]()),
        (ReservationWanted(labels=labels), {one.id}),
        (ReservationWanted(pool_ids=frozenset(("sim-0",))), {one.id, two.id}),
        (ReservationWanted(pool_ids=frozenset(("host",))), set[str]()),
        (ReservationWanted(states=(ReservationState.EXPIRED,)), set[str]()),
    ):
        assert {each.id for each in bench.reservations.list(wanted)} == found


async def test_a_critical_request_ends_low_ones_that_just_suffice() -> None:
    bench = Bench(100)
    low = await held(bench, 60, Priority.LOW)
    await held(bench, 40)
    await held(bench, 60, Priority.CRITICAL)
    assert bench.reservations.get(low.id).state is ReservationState.PREEMPTED


async def test_a_step_of_the_clock_moves_the_dates_and_no_timer() -> None:
    bench = Bench()
    kept, gone = await held(bench, 1, live_s=60), await held(bench, 2)
    bench.reservations.preempt(gone.id)
    for listener in bench.expiry.on_step:
        listener(ClockStep(delta_s=1000.0, from_s=0.0))
    assert bench.reservations.get(kept.id).expire_time_s == pytest.approx(kept.expire_time_s + 1000.0)
    assert bench.reservations.get(gone.id).end_time_s == 1000.0
    bench.clock.turn(59)
    assert bench.reservations.get(kept.id).state is ReservationState.HELD
    bench.clock.turn(2)
    assert bench.reservations.get(kept.id).state is ReservationState.EXPIRED


def test_of_many_ended_ones_the_oldest_are_forgotten_as_soon_as_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservation_table, "MAX_ENDED", 2)
    table, ended = ReservationTable(), list[Reservation]()
    for now_s in (1.0, 2.0, 3.0):
        reservation = table.draft(ask(1), now_s)
        table.put(reservation, Claims().keep("sim-0", 1))
        ended.append(table.end(table.held(reservation.id), ReservationState.EXPIRED, now_s))
    assert [table.find(each.id) is None for each in ended] == [True, False, False]


async def test_the_timer_of_the_event_loop_calls_in_time_unless_it_is_cancelled() -> None:
    called: list[str] = []
    done = asyncio.Event()
    loop_timer(0.0, lambda: called.append("cancelled")).cancel()
    loop_timer(0.001, done.set)
    await asyncio.wait_for(done.wait(), 10)
    assert called == []
