"""What the clean-ups of the pools see of models, jobs and blobs, and what they ask of workers."""

import time
from pathlib import Path
from typing import Any

import pytest

from domains.errors import DeviceOpsError, ErrorReason, InternalError, NotFound
from domains.inference.outcome import ModelUnloaded
from domains.memory.blobs.blob import BlobSpec, BlobTier, MappedFile
from domains.memory.blobs.freeing import UnfreedBlob
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.store import BlobStore
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.pools.reclaim import RunningJob
from domains.model.loaded import LoadedComponent, LoadedModel, Stay
from domains.processing.jobs.event import Started
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.kinds import LoadWork
from domains.processing.memory.care import MemoryCare, device_of, pool_of
from domains.processing.workers.unload import Unloading
from domains.processing.workers.worker import Emptied, EmptyOrder, UnloadOrder
from tests.domains.memory.blobs import opened
from tests.domains.memory.scripted_pool import Bench
from tests.domains.processing.scripted_worker import Floor


class Cared(Floor):
    """Two devices with workers, of which one has a pool."""

    def __init__(self, folder: Path, blobs: BlobStore) -> None:
        super().__init__(folder)
        self.blobs = blobs
        self.bench = Bench()
        self.told: list[tuple[str, ...]] = []
        for name in ("sim-0", "sim-1", "cpu"):
            self.arrive(name)
        self.care = MemoryCare(
            self.jobs,
            self.devices,
            self.loaded,
            Unloading(self.loaded, self.workers.get, lambda loaded_id: 0),
            self.workers.get,
            self.bench.pools,
            blobs,
            lambda pool_id: self.told.append(("hold back", pool_id)),
            self._interrupt,
        )

    async def _interrupt(self, job_id: str, reason: ErrorReason, message: str) -> None:
        self.told.append(("interrupt", job_id, reason))

    def load(
        self, model_id: str = "m", device_id: str = "sim-0", stay: Stay | None = None, idle_s: float = 100.0
    ) -> LoadedModel:
        parts = tuple(LoadedComponent(id=name, bytes=size, precision="") for name, size in (("unet", 5), ("vae", 2)))
        one = LoadedModel(
            id=f"{model_id}@{device_id}",
            model_id=model_id,
            device_id=device_id,
            components=parts,
            load_time_s=0.0,
            last_use_time_s=time.time() - idle_s,
            load_s=3.0,
        )
        return self.loaded.put(one, stay)

    def job(self, device_id: str = "", model_id: str = "m", priority: int = 2) -> Job:
        """A job that runs on the device, or waits."""
        job_id = self.jobs.submit(LoadWork(model_id=model_id), JobOptions(device_ids=("none",), priority=priority))[
            0
        ].id
        if device_id:
            self.jobs.record(job_id, Started(device_id=device_id, attempt=1))
        return self.jobs.get(job_id)


@pytest.fixture
async def cared(tmp_path: Path) -> Any:
    with opened(tmp_path) as blobs:
        cared = Cared(tmp_path, blobs)
        yield cared
        cared.database.close()


def test_the_cpu_computes_in_the_hosts_pool_and_nothing_on_the_disk() -> None:
    assert [pool_of(name) for name in ("cpu", "sim-0")] == ["host", "sim-0"]
    assert [device_of(name) for name in ("host", "sim-0", "disk")] == ["cpu", "sim-0", None]


@pytest.mark.parametrize(("pool_id", "device_id"), [("sim-1", "sim-1"), ("host", "cpu")])
async def test_caches_are_emptied_and_compacted_by_the_workers_of_the_pool_alone(
    cared: Cared, pool_id: str, device_id: str
) -> None:
    worker = cared.workers[device_id]
    worker.say(Emptied(freed_bytes=1))
    await cared.care.empty_caches(pool_id)
    worker.say(Emptied(freed_bytes=None))
    await cared.care.compact(pool_id)
    orders = [order for order in worker.orders if isinstance(order, EmptyOrder)]
    assert [(order.models, order.compact) for order in orders] == [(False, False), (False, True)]
    assert orders[0].order_id != orders[1].order_id
    assert [each.orders for name, each in cared.workers.items() if name != device_id] == [[], []]


async def test_a_pool_whose_worker_is_gone_says_why_nothing_can_be_freed(cared: Cared) -> None:
    del cared.workers["sim-0"]
    with pytest.raises(DeviceOpsError) as starting:
        await cared.care.empty_caches("sim-0")
    assert starting.value.reason is ErrorReason.DEVICE_RECOVERING
    cared.devices.lost("sim-0", "unplugged")
    with pytest.raises(DeviceOpsError) as lost:
        await cared.care.empty_caches("sim-0")
    assert lost.value.reason is ErrorReason.DEVICE_LOST
    del cared.workers["cpu"]
    await cared.care.empty_caches("host")


async def test_a_model_is_unloaded_by_its_worker(cared: Cared) -> None:
    one = cared.load()
    cared.workers["sim-0"].say(ModelUnloaded(model_id="m", freed_bytes=7))
    await cared.care.unload(one.id)
    assert isinstance(cared.workers["sim-0"].orders[0], UnloadOrder)
    assert cared.loaded.list() == []
    with pytest.raises(NotFound):
        await cared.care.unload(one.id)


async def test_an_interrupted_job_starts_again_only_when_its_pool_has_room(cared: Cared) -> None:
    running, waiting = cared.job("cpu"), cared.job()
    await cared.care.interrupt(running.id)
    await cared.care.interrupt(waiting.id)
    await cared.care.interrupt("job-gone")
    assert cared.told == [
        ("hold back", "host"),
        ("interrupt", running.id, ErrorReason.PREEMPTED),
        ("interrupt", waiting.id, ErrorReason.PREEMPTED),
        ("interrupt", "job-gone", ErrorReason.PREEMPTED),
    ]


async def test_the_models_of_a_pool_are_listed_with_what_keeps_them(cared: Cared) -> None:
    cared.load()
    cared.load("pinned", stay=Stay(pinned=True))
    cared.load("kept", stay=Stay(keep_alive_s=1000.0))
    cared.load("used")
    cared.load("elsewhere", "sim-1")
    cared.load("future", idle_s=-1000.0)
    cared.job("sim-0", "used")
    cared.job("sim-1", "m")
    found = {one.id: one for one in cared.care.idle_models("sim-0")}
    assert set(found) == {"m@sim-0", "pinned@sim-0", "kept@sim-0", "used@sim-0", "future@sim-0"}
    plain = found["m@sim-0"]
    assert (plain.bytes, plain.pinned, plain.in_use, plain.load_s) == (7, False, False, 3.0)
    assert 100 <= plain.idle_s < 200
    assert found["future@sim-0"].idle_s == 0.0
    assert {name for name, one in found.items() if one.in_use} == {"used@sim-0"}
    assert {name for name, one in found.items() if one.pinned} == {"pinned@sim-0", "kept@sim-0"}


async def test_running_jobs_are_listed_with_their_bytes_as_last_measured(cared: Cared) -> None:
    first, second = cared.job("sim-0", priority=1), cared.job("sim-0", priority=3)
    cared.job("sim-1")
    cared.job()
    assert {each.bytes for each in cared.care.running_jobs("sim-0")} == {0}
    cared.bench.source.jobs[first.id] = 12
    await cared.bench.pools.measure("sim-0")
    assert list(cared.care.running_jobs("sim-0")) == [
        RunningJob(id=first.id, bytes=12, priority=1),
        RunningJob(id=second.id, bytes=0, priority=3),
    ]
    cared.jobs.cancel(first.id)
    assert [each.id for each in cared.care.running_jobs("sim-0")] == [second.id]


async def test_expired_blobs_of_the_pool_are_one_owner_and_are_collected(cared: Cared) -> None:
    made = {}
    for tier, size in ((BlobTier.HOST, 3), (BlobTier.HOST, 4), (BlobTier.DISK, 9)):
        spec = BlobSpec(size_bytes=size, tier=tier, fill_byte=1, keep_for_s=0.001)
        made[size] = await cared.blobs.requests.create(spec)
    kept = await cared.blobs.requests.create(BlobSpec(size_bytes=5, tier=BlobTier.HOST, fill_byte=1))
    path = cared.blobs.files.folder.parent / "shared" / "file"
    path.write_bytes(b"12")
    await cared.blobs.requests.register(Registration(backing=MappedFile(path=str(path)), keep_for_s=0.001))
    while time.time() <= max(blob.expire_time_s or 0.0 for blob in made.values()) + 0.01:
        pass
    assert list(cared.care.spent_blobs("host")) == [
        MemoryOwner(kind=OwnerKind.BLOB, live_bytes=7, reclaimable=True),
    ]
    assert [each.live_bytes for each in cared.care.spent_blobs("disk")] == [9]
    assert list(cared.care.spent_blobs("sim-0")) == []
    await cared.care.collect("host", "")
    assert list(cared.care.spent_blobs("host")) == []
    assert [each.live_bytes for each in cared.care.spent_blobs("disk")] == [9]
    assert kept.id in {blob.id for blob in cared.blobs.all()}


async def test_bytes_that_cannot_be_freed_are_an_error_and_an_owner(
    cared: Cared, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await cared.blobs.requests.create(BlobSpec(size_bytes=3, tier=BlobTier.HOST, fill_byte=1))

    unfreed: dict[str, UnfreedBlob] = {}
    stuck = UnfreedBlob(blob=blob, why="no answer")
    monkeypatch.setattr(BlobStore, "unfreed", property(lambda store: dict(unfreed)))

    def collect(where: object) -> None:
        unfreed[blob.id] = stuck

    monkeypatch.setattr(cared.blobs, "collect", collect)
    with pytest.raises(InternalError, match=f"of blob {blob.id} could not be freed"):
        await cared.care.collect("host", "")
    assert [(each.id, each.live_bytes) for each in cared.care.spent_blobs("host")] == [(blob.id, 3)]
    assert list(cared.care.spent_blobs("disk")) == []
    await cared.care.collect("host", "another")
    with pytest.raises(InternalError):
        await cared.care.collect("host", blob.id)
