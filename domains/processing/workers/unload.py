"""Unloads models from devices and from the RAM tier."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from domains.errors import ErrorReason, Unavailable
from domains.inference.outcome import ModelUnloaded
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.processing.workers.ask import ask
from domains.processing.workers.worker import UnloadOrder, Worker, new_order_id


class Unloaded(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that were freed."""

    loaded_ids: tuple[str, ...]
    freed_device_bytes: int | None = None
    freed_host_bytes: int | None = None


class Unloading:
    """Unloads models through the workers. A model that a job uses stays loaded.

    A worker finishes each unload that it has begun, so an unload continues after its caller disconnects.
    """

    def __init__(
        self, loaded: LoadedModels, worker_of: Callable[[str], Worker | None], from_host: Callable[[str], int]
    ) -> None:
        """`from_host`: drops a model (id) from the RAM tier; returns the bytes that it held."""
        self._loaded = loaded
        self._from_host = from_host
        self._worker_of = worker_of
        self._asked: dict[str, asyncio.Task[int | None]] = {}
        """Running unloads by loaded model; callers that want the same one share it."""

    async def unload(self, targets: Sequence[LoadedModel]) -> Unloaded:
        """Unload each in turn. The first failure is raised; earlier unloads stay done."""
        on_host: list[int | None] = []
        on_device: list[int | None] = []
        for one in targets:
            freed = await asyncio.shield(self._asked.get(one.id) or self._begin(one))
            (on_host if one.device_id in ("", "cpu") else on_device).append(freed)
        return Unloaded(
            loaded_ids=tuple(one.id for one in targets),
            freed_host_bytes=_total(on_host),
            freed_device_bytes=_total(on_device),
        )

    def _begin(self, one: LoadedModel) -> asyncio.Task[int | None]:
        task = self._asked[one.id] = asyncio.create_task(self._unload(one))
        task.add_done_callback(lambda done: self._ended(one.id, done))
        return task

    def _ended(self, loaded_id: str, task: asyncio.Task[int | None]) -> None:
        del self._asked[loaded_id]
        if not task.cancelled():
            # Callers that wait receive the error. Read it here, or asyncio logs an error that no task has read.
            task.exception()

    async def _unload(self, one: LoadedModel) -> int | None:
        if not one.device_id:
            return self._from_host(one.id)
        worker = self._worker_of(one.device_id)
        if worker is None:
            raise Unavailable(
                f"the worker of {one.device_id} is being restarted",
                ErrorReason.WORKER_RESTARTING,
                device_id=one.device_id,
            )
        order = UnloadOrder(order_id=new_order_id("unload"), model_id=one.model_id)
        freed = (await ask(worker, order, ModelUnloaded)).freed_bytes
        self._loaded.remove(one.id)
        return freed


def _total(parts: list[int | None]) -> int | None:
    """Sum of the parts. None: there are no parts, or one could not be measured."""
    return None if not parts or None in parts else sum(part or 0 for part in parts)
