"""The measurements of workers: the last one stands until the worker ends, and the driver helps where a worker is silent."""

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from domains.device.device import Device
from domains.device.sample import DeviceSample
from domains.errors import Aborted, ErrorReason
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.model.loaded import LoadedModel, Stay
from domains.model.loaded_models import LoadedModels
from domains.processing.devices.statuses import DeviceStatuses
from domains.processing.memory import device_pool
from domains.processing.memory.device_pool import DevicePool, HostOwners, WorkerMemory
from domains.processing.memory.last_measures import LastMeasures
from domains.processing.workers.worker import Measured
from tests.domains.processing.scripted_worker import Floor, ScriptedWorker, a_device


class Measuring:
    """A worker whose memory is asked for."""

    def __init__(self) -> None:
        self.worker: ScriptedWorker | None = ScriptedWorker(a_device())
        self.loaded = LoadedModels()
        self.told: list[tuple[str, MemoryMeasure | None]] = []
        self.last = LastMeasures()
        self.memory = WorkerMemory(
            self.loaded,
            lambda _: self.worker,
            lambda name, measure: self.told.append((name, measure)),
            lambda job_id: {"j-1": "s-1", "j-2": "s-2", "j-3": "s-2"}.get(job_id, ""),
            self.last,
        )

    async def now(self, measure: MemoryMeasure | None = None) -> MemoryMeasure | None:
        assert self.worker
        self.worker.say(*((Measured(measure=measure),) if measure else ()))
        return await self.memory.now("sim-0")


async def test_the_memory_of_jobs_is_told_for_the_session_of_each() -> None:
    bench = Measuring()
    assert bench.last.session_bytes("s-1") is None, "nothing is measured yet"
    owners = [MemoryOwner(kind=OwnerKind.JOB, id=f"j-{n}", live_bytes=n * 10) for n in (1, 2, 3)]
    weights = MemoryOwner(kind=OwnerKind.LOADED_MODEL, id="m", live_bytes=999)
    measure = await bench.now(MemoryMeasure(time_s=1.0, owners=(*owners, weights)))
    assert measure is not None
    assert [owner.session_id for owner in measure.owners] == ["s-1", "s-2", "s-2", ""]
    assert [bench.last.session_bytes(name) for name in ("s-1", "s-2", "s-3")] == [10, 50, 0]


MEASURE = MemoryMeasure(time_s=1.0, total_bytes=10, used_bytes=4)


async def test_nothing_is_told_of_the_memory_of_a_worker_that_has_ended() -> None:
    bench = Measuring()
    assert await bench.now(MEASURE) == bench.memory.last("sim-0") == MEASURE
    bench.memory.forget("sim-0")
    assert bench.memory.last("sim-0") is None
    assert bench.told == [("sim-0", MEASURE), ("sim-0", None)]


async def test_no_worker_or_one_that_says_nothing_gives_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Measuring()
    assert await bench.now() is None, "the order ended without its answer"
    monkeypatch.setattr(device_pool, "ANSWER_S", 0.01)
    async with asyncio.timeout(5):
        assert await bench.memory.now("sim-0") is None, "no answer came in time"
    bench.worker = None
    assert await bench.memory.now("sim-0") is None
    assert (bench.told, bench.memory.last("sim-0")) == ([], None)


async def test_owners_get_the_ids_of_the_server_and_what_may_be_reclaimed_is_marked() -> None:
    bench = Measuring()
    for name, stay in (("free", Stay()), ("pinned", Stay(pinned=True)), ("kept", Stay(keep_alive_s=1000))):
        one = LoadedModel(
            id=f"{name}@sim-0",
            model_id=name,
            device_id="sim-0",
            components=(),
            load_time_s=0.0,
            last_use_time_s=0.0,
        )
        bench.loaded.put(one, stay)
    models = [
        MemoryOwner(kind=OwnerKind.LOADED_MODEL, id=name, live_bytes=1) for name in ("free", "pinned", "kept", "x")
    ]
    others = [MemoryOwner(kind=kind, id="it", live_bytes=1) for kind in (OwnerKind.CACHE, OwnerKind.JOB)]
    measure = await bench.now(MemoryMeasure(time_s=1.0, owners=(*models, *others)))
    assert measure is not None
    assert [(owner.id, owner.reclaimable) for owner in measure.owners] == [
        ("free@sim-0", True),
        ("pinned@sim-0", False),
        ("kept@sim-0", False),
        ("x@sim-0", False),
        ("it", True),
        ("it", False),
    ]


async def test_what_a_worker_holds_in_host_memory_is_the_hosts_until_the_worker_ends() -> None:
    bench = Measuring()
    owners = HostOwners(bench.memory, lambda: ())
    held = MemoryOwner(kind=OwnerKind.CACHE, id="adapters", live_bytes=5)
    await bench.now(msgspec.structs.replace(MEASURE, host_owners=(held,)))
    assert owners.owners() == [msgspec.structs.replace(held, id="adapters@sim-0", reclaimable=True)]
    bench.memory.forget("sim-0")
    assert owners.owners() == []


class Driver:
    """Tells what the test says."""

    def __init__(self) -> None:
        self.total: int | None = 100
        self.used: int | None = 60
        self.samples = 0

    async def sample(self, device: Device) -> DeviceSample:
        self.samples += 1
        return DeviceSample(time_s=1.0, total_memory_bytes=self.total, used_memory_bytes=self.used)


@pytest.fixture
async def floor(tmp_path: Path) -> Any:
    floor = Floor(tmp_path)
    yield floor
    floor.database.close()


@pytest.mark.parametrize(
    ("measure", "driver", "total", "used"),
    [
        (MEASURE, (100, 60), 10, 4),
        (MemoryMeasure(time_s=1.0, total_bytes=10), (100, 60), 10, 60),
        (MemoryMeasure(time_s=1.0, used_bytes=0), (100, 60), 100, 0),
        (MemoryMeasure(time_s=1.0, held_bytes=3), (100, 60), 100, 60),
        (None, (100, 60), 100, 60),
        (None, (None, None), 1 << 30, None),
    ],
)
async def test_the_driver_tells_what_the_worker_does_not(
    floor: Floor, measure: MemoryMeasure | None, driver: tuple[int | None, int | None], total: int, used: int | None
) -> None:
    worker, meter = floor.arrive(), Driver()
    meter.total, meter.used = driver
    memory = WorkerMemory(floor.loaded, floor.workers.get, lambda name, found: None, lambda job_id: "", LastMeasures())
    statuses = DeviceStatuses(floor.devices, cast(Any, meter), floor.board.backlog.workload, lambda name: (None, 0))
    pool = DevicePool("sim-0", floor.devices, statuses, memory)
    assert (pool.pool_id, pool.device_id, pool.aliases) == ("sim-0", "sim-0", ())
    worker.say(*((Measured(measure=measure),) if measure else ()))
    found = await pool.measure()
    assert (found.total_bytes, found.used_bytes) == (total, used)
    assert found.held_bytes == (measure.held_bytes if measure else None)
    assert meter.samples == (0 if measure is MEASURE else 1)
    floor.devices.lost("sim-0", "unplugged")
    with pytest.raises(Aborted) as lost:
        await pool.measure()
    assert lost.value.reason is ErrorReason.DEVICE_LOST


async def test_the_owners_on_the_host_are_those_of_the_cpu_and_its_blobs() -> None:
    blob, model = (MemoryOwner(kind=kind, id="it", live_bytes=1) for kind in (OwnerKind.BLOB, OwnerKind.JOB))
    asked: list[str] = []
    thrice = asyncio.Event()

    class Memory:
        async def now(self, device_id: str) -> None:
            asked.append(device_id)
            if len(asked) == 3:
                thrice.set()

        def last(self, device_id: str) -> MemoryMeasure | None:
            return MemoryMeasure(time_s=1.0, owners=(model,)) if asked else None

        def on_host(self) -> list[MemoryOwner]:
            return []

    owners = HostOwners(cast(Any, Memory()), lambda: [blob])
    assert owners.owners() == [blob]
    task = asyncio.create_task(owners.keep_asking(0.001))
    await asyncio.wait_for(thrice.wait(), 5)
    task.cancel()
    assert set(asked) == {"cpu"}
    assert owners.owners() == [model, blob]
