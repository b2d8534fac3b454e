"""What was reserved for a job is the job's until it ends, and no later attempt asks for it again."""

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from domains.errors import DeviceOpsError, ErrorReason
from domains.inference.fallback import Fallback
from domains.inference.generation import Generation
from domains.inference.hires import HiresPass
from domains.inference.resolution.resolve import resolve
from domains.memory.pools.admission import Admission
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation import ReservationAsk, ReservationState, ReservationWanted
from domains.model.execution import Execution
from domains.model.loaded import LoadedComponent, LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.model.ways import Ways
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork, LoadWork
from domains.processing.memory.job_admission import JobAdmission
from tests.domains.inference.on_device.requests import embedded_model
from tests.domains.memory.scripted_pool import Bench, ScriptedReclaimer

WEIGHTS = 40
ALL = ReservationWanted(states=tuple(ReservationState))


class Weighed(msgspec.Struct, frozen=True):
    """What admission asks of a model."""

    size_bytes: int
    sha256: str = "new"


class Shelf:
    """A catalogue in which every model weighs the same."""

    def get(self, model_id: str) -> Weighed:
        return Weighed(WEIGHTS)

    def find(self, model_id: str) -> Weighed:
        return self.get(model_id)


class Desk(Bench):
    """A pool of 100 bytes in which jobs load a model."""

    def __init__(self, need: Callable[[Weighed, Execution], int] = lambda model, _: model.size_bytes) -> None:
        """`need`: bytes of a load."""
        super().__init__(100)
        self.reclaimer = ScriptedReclaimer(self.source)
        self.loaded = LoadedModels()
        self.inherited: set[str] = set()
        """Ids of jobs that an earlier process stored."""
        self.door = JobAdmission(
            Admission(self.pools, self.reservations),
            Reclaiming(self.pools, self.reclaimer),
            Shelf(),  # pyright: ignore[reportArgumentType]  # all that is asked of a catalogue
            self.loaded,
            lambda job: job.id in self.inherited,
            lambda model, device_id, execution: need(model, execution),  # pyright: ignore[reportArgumentType]  # of the shelf
            self._read,
        )
        self.read: list[str] = []
        """Models whose headers were read."""

    async def _read(self, model_ids: Iterable[str]) -> None:
        self.read += model_ids

    async def job(self, reserved: int, **fields: int) -> Job:
        """A job for which so many bytes are kept."""
        kept = (await self.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=reserved))).reservation
        job = Jobs.draft(LoadWork(model_id="m"), JobOptions(reservation_id=kept.id))
        return msgspec.structs.replace(job, **fields)

    @property
    def promised(self) -> int:
        return self.pools.claims.outstanding_bytes("sim-0")

    @property
    def states(self) -> list[ReservationState]:
        return [each.state for each in self.reservations.list(ALL)]


async def test_what_was_reserved_is_the_jobs_until_its_attempt_ends() -> None:
    desk = Desk()
    job = await desk.job(90)
    async with desk.door.claimed(job, "sim-0"):
        assert (desk.promised, desk.states) == (90, [ReservationState.COMMITTED])
        desk.source.models["m@sim-0"] = WEIGHTS
        desk.source.jobs[job.id] = 20
        await desk.pools.measure("sim-0")
        assert desk.promised == 30
        with pytest.raises(DeviceOpsError) as caught:
            await desk.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=11))
        assert caught.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    desk.source.jobs.clear()
    await desk.pools.measure("sim-0")
    assert desk.promised == 0


async def test_an_upscaler_is_claimed_in_the_precision_in_which_it_computes() -> None:
    desk = Desk(lambda _, execution: 40 if execution.precision == "float32" else 20)
    plain = resolve(Generation(prompt="an owl", hires_pass=HiresPass(scale=1.5)), embedded_model())
    assert plain.hires_pass is not None
    enlarged = replace(plain, hires_pass=replace(plain.hires_pass, upscaler_model_id="u"))
    for resolved, claimed in ((plain, 20), (enlarged, 20 + 40)):
        job = Jobs.draft(GenerateWork(asked=Generation(prompt="an owl"), resolved=resolved), JobOptions())
        async with desk.door.claimed(job, "sim-0"):
            assert desk.promised == claimed


async def test_who_waits_for_the_same_weights_takes_over_their_claim_and_nothing_else() -> None:
    desk = Desk()
    first, second = await desk.job(60), Jobs.draft(LoadWork(model_id="m"), JobOptions())
    async with AsyncExitStack() as loading:
        await loading.enter_async_context(desk.door.claimed(first, "sim-0"))
        async with desk.door.claimed(second, "sim-0"):
            await loading.aclose()
            await desk.pools.measure("sim-0")
            assert desk.promised == WEIGHTS
    await desk.pools.measure("sim-0")
    assert desk.promised == 0


async def test_a_second_attempt_takes_what_is_free() -> None:
    desk = Desk()
    job = await desk.job(90)
    for attempt in range(3):
        async with desk.door.claimed(msgspec.structs.replace(job, attempt=attempt), "sim-0"):
            assert desk.states == [ReservationState.COMMITTED]
        await desk.pools.measure("sim-0")


async def test_a_reservation_that_ended_with_its_server_keeps_no_job_from_running() -> None:
    desk = Desk()
    job = Jobs.draft(LoadWork(model_id="m"), JobOptions(reservation_id="r-of-another-server"))
    desk.inherited.add(job.id)
    async with desk.door.claimed(job, "sim-0"):
        assert desk.promised == WEIGHTS
    desk.inherited.clear()
    with pytest.raises(DeviceOpsError) as caught:
        async with desk.door.claimed(job, "sim-0"):
            raise AssertionError("it was let in")
    assert caught.value.reason is ErrorReason.RESERVATION_NOT_FOUND


async def test_no_more_is_evicted_than_the_reservation_lacks() -> None:
    desk = Desk()
    desk.reclaimer.load("old", 15, idle_s=3000)
    desk.reclaimer.load("new", 25, idle_s=2000)
    job = await desk.job(30)
    desk.source.others = 25
    # 40 are needed, 30 kept, 5 free: 5 are lacking, which the longest unused model has.
    async with desk.door.claimed(job, "sim-0"):
        assert [call for call in desk.reclaimer.calls if call.startswith("unload")] == ["unload old"]


@pytest.mark.parametrize(("sha256", "more"), [("new", 0), ("old", WEIGHTS - 15)])
async def test_a_job_asks_for_what_replacing_an_outdated_model_takes_beyond_it(sha256: str, more: int) -> None:
    desk = Desk()
    held = LoadedComponent(id="unet", bytes=15, precision="float16")
    there = LoadedModel(
        id="m@sim-0", model_id="m", device_id="sim-0", components=(held,), load_time_s=0.0, last_use_time_s=0.0
    )
    desk.loaded.put(msgspec.structs.replace(there, model_sha256=sha256))
    async with desk.door.claimed(Jobs.draft(LoadWork(model_id="m"), JobOptions()), "sim-0"):
        assert desk.promised == more


async def test_no_more_is_evicted_than_a_job_without_a_reservation_lacks() -> None:
    desk = Desk()
    desk.reclaimer.load("old", 35, idle_s=3000)
    desk.reclaimer.load("older", 40, idle_s=4000)
    await desk.pools.measure("sim-0")
    async with desk.door.claimed(Jobs.draft(LoadWork(model_id="m"), JobOptions()), "sim-0"):
        assert set(desk.source.models) == {"old"}
    desk.reclaimer.load("pinned", 90, pinned=True)
    with pytest.raises(DeviceOpsError) as caught:
        async with desk.door.claimed(Jobs.draft(LoadWork(model_id="n"), JobOptions()), "sim-0"):
            raise AssertionError("it was let in")
    assert caught.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY


def by_way(model: Weighed, execution: Execution) -> int:
    """Bytes of a load: half of the weights where components take turns, a quarter where layers are streamed."""
    return {"component": WEIGHTS // 2, "layer": WEIGHTS // 4}.get(execution.offload, WEIGHTS)


def load_of(**fallback: Any) -> Job:
    return Jobs.draft(LoadWork(model_id="m"), JobOptions(fallback=Fallback(**fallback)))


@pytest.mark.parametrize(
    ("room", "offload", "claimed"),
    [
        (WEIGHTS, "", WEIGHTS),
        (WEIGHTS - 1, "component", WEIGHTS // 2),
        (WEIGHTS // 2, "component", WEIGHTS // 2),
        (WEIGHTS // 2 - 1, "layer", WEIGHTS // 4),
        (WEIGHTS // 4, "layer", WEIGHTS // 4),
    ],
)
async def test_a_model_without_room_as_a_whole_takes_the_least_offload_that_has(
    room: int, offload: str, claimed: int
) -> None:
    desk = Desk(by_way)
    desk.source.others = 100 - room
    async with desk.door.claimed(load_of(), "sim-0") as less:
        assert desk.promised == claimed
        assert (less.execution.offload if less else "") == offload
        assert less is None or less.why.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
        # The plan of its layers needs its header, and is made on the event loop.
        assert ("m" in desk.read) == (offload == "layer")


@pytest.mark.parametrize(
    ("room", "offload", "claimed"), [(WEIGHTS, "", WEIGHTS // 2), (WEIGHTS // 4, "layer", WEIGHTS // 4)]
)
async def test_a_model_that_comes_back_from_the_host_has_the_room_of_its_offload_or_takes_less(
    room: int, offload: str, claimed: int
) -> None:
    desk = Desk(by_way)
    tiled = Execution(offload="component", ways=Ways(vae_tiling=True))
    desk.loaded.offload(
        LoadedModel(
            id="m@sim-0", model_id="m", device_id="sim-0", components=(), load_time_s=1, last_use_time_s=1, asked=tiled
        )
    )
    desk.source.others = 100 - room
    async with desk.door.claimed(load_of(), "sim-0") as less:
        assert desk.promised == claimed
        assert (less.execution.offload if less else "") == offload
        assert less is None or less.execution.ways == tiled.ways


async def test_the_header_of_a_model_that_is_quantized_is_read_before_its_forecast() -> None:
    desk = Desk()
    for quantization, read in (("none", []), ("int8", ["m"])):
        work = LoadWork(model_id="m", execution=Execution(quantization=quantization))
        async with desk.door.claimed(Jobs.draft(work, JobOptions()), "sim-0"):
            assert desk.read == read


@pytest.mark.parametrize("fallback", [{"allow_offload": False}, {"max_attempts": 0}])
async def test_a_job_that_forbids_offload_is_refused_and_told_what_would_have_helped(fallback: dict[str, Any]) -> None:
    desk = Desk(by_way)
    desk.source.others = 100 - WEIGHTS // 2
    refused = await refusal(desk, load_of(**fallback))
    assert refused.facts["would_help"] == "options.fallback.allow_offload"
    assert refused.message.endswith("permitting more would have helped: options.fallback.allow_offload")


async def test_a_job_that_no_offload_gives_room_is_refused_without_advice() -> None:
    desk = Desk(by_way)
    desk.source.others = 100 - WEIGHTS // 4 + 1
    for job in (load_of(), load_of(allow_offload=False)):
        assert "would_help" not in (await refusal(desk, job)).facts


async def refusal(desk: Desk, job: Job) -> DeviceOpsError:
    with pytest.raises(DeviceOpsError) as caught:
        async with desk.door.claimed(job, "sim-0"):
            raise AssertionError("it was let in")
    assert caught.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert desk.promised == 0
    return caught.value


async def test_room_for_a_job_that_ran_out_of_it_is_what_it_lacks_or_what_there_is() -> None:
    desk = Desk()
    assert not desk.door.evictable("no-pool")
    assert not desk.door.evictable("sim-0")
    desk.reclaimer.load("old", 35, idle_s=3000)
    desk.reclaimer.load("older", 40, idle_s=4000)
    await desk.pools.measure("sim-0")
    assert desk.door.evictable("sim-0")
    assert set(await desk.door.evict("sim-0", 75)) == {"old", "older"}
    desk.reclaimer.load("old", 35, idle_s=3000)
    await desk.pools.measure("sim-0")
    assert [*await desk.door.evict("sim-0", 1000)] == ["old"]
    assert [*await desk.door.evict("sim-0", 1000)] == []


def test_a_model_that_was_just_used_can_leave_for_a_job_that_lacks_room() -> None:
    desk = Desk()
    desk.reclaimer.load("just used", 10, idle_s=0.0)
    assert desk.door.evictable("sim-0")
