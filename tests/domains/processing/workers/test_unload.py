"""What a worker was asked to unload is unloaded, and the books hear of it, whether or not the caller is still there."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from domains.errors import ErrorReason, Unavailable
from domains.inference.outcome import ModelUnloaded
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.processing.workers.unload import Unloading, _total  # pyright: ignore[reportPrivateUsage]
from domains.processing.workers.worker import Order, Report, UnloadOrder


class SlowWorker:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: list[str] = []

    async def carry_out(self, order: Order) -> AsyncIterator[Report]:
        assert isinstance(order, UnloadOrder)
        self.asked.append(order.model_id)
        await self.go.wait()
        yield ModelUnloaded(model_id=order.model_id, freed_bytes=7)


async def test_a_caller_that_leaves_does_not_keep_the_books_from_hearing() -> None:
    loaded, worker = LoadedModels(), SlowWorker()
    one = loaded.put(
        LoadedModel(id="m@sim-0", model_id="m", device_id="sim-0", components=(), load_time_s=0.0, last_use_time_s=0.0)
    )
    gone = asyncio.Event()
    loaded.listeners.append(lambda model, there: None if there else gone.set())
    unloading = Unloading(loaded, lambda device_id: worker, lambda name: 0)  # pyright: ignore[reportArgumentType]  # only orders
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await unloading.unload([one])
    # The next one waits for the same answer, and does not ask again.
    second = asyncio.create_task(unloading.unload([one]))
    worker.go.set()
    async with asyncio.timeout(5):
        await gone.wait()
    assert (await second).freed_device_bytes == 7
    assert (worker.asked, loaded.list()) == (["m"], [])


async def test_a_model_of_a_worker_that_is_being_restarted_cannot_be_unloaded_now() -> None:
    loaded = LoadedModels()
    one = loaded.put(
        LoadedModel(id="m@sim-0", model_id="m", device_id="sim-0", components=(), load_time_s=0.0, last_use_time_s=0.0)
    )
    with pytest.raises(Unavailable) as caught:
        await Unloading(loaded, lambda device_id: None, lambda name: 0).unload([one])
    assert caught.value.reason is ErrorReason.WORKER_RESTARTING
    assert loaded.list() == [one]


@pytest.mark.parametrize(
    ("parts", "total"), [([], None), ([0], 0), ([3, 4], 7), ([3, None], None), ([None], None), ([0, 5], 5)]
)
def test_a_sum_is_known_if_all_its_parts_are(parts: list[int | None], total: int | None) -> None:
    assert _total(parts) == total


async def test_bytes_are_told_by_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, worker = LoadedModels(), SlowWorker()
    worker.go.set()
    places = {"": 5, "cpu": 7, "sim-0": 7}
    there = [
        loaded.put(
            LoadedModel(
                id=f"m@{device}", model_id="m", device_id=device, components=(), load_time_s=0.0, last_use_time_s=0.0
            )
        )
        for device in places
    ]
    dropped = list[str]()

    def from_host(name: str) -> int:
        dropped.append(name)
        return 5

    unloading = Unloading(loaded, lambda device_id: worker, from_host)  # pyright: ignore[reportArgumentType]  # only orders
    done = await unloading.unload(there)
    assert (done.freed_host_bytes, done.freed_device_bytes) == (5 + 7, 7)
    assert (dropped, worker.asked) == (["m@"], ["m", "m"])
    assert done.loaded_ids == ("m@", "m@cpu", "m@sim-0")
    nothing = await unloading.unload([])
    assert (nothing.freed_host_bytes, nothing.freed_device_bytes) == (None, None)
