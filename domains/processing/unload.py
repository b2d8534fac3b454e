"""Takes models off devices."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from domains.errors import ErrorReason, Unavailable
from domains.model.loaded import LoadedModel, LoadedModels
from domains.processing.ask import ask
from domains.processing.worker import ModelUnloaded, UnloadOrder, Worker, order_id


class Unloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What was given back."""

    loaded_ids: tuple[str, ...]
    freed_device_bytes: int | None = None
    freed_host_bytes: int | None = None


class Unloading:
    """Asks the workers. A model that a job uses stays: nothing running is disturbed."""

    def __init__(self, loaded: LoadedModels, worker_of: Callable[[str], Worker | None]) -> None:
        self._loaded = loaded
        self._worker_of = worker_of

    async def unload(self, targets: Sequence[LoadedModel]) -> Unloaded:
        """Each in turn; the first that cannot be unloaded ends it, with what was done before kept."""
        on_host: list[int | None] = []
        on_device: list[int | None] = []
        for one in targets:
            freed = await self._unload(one)
            (on_host if one.device_id == "cpu" else on_device).append(freed)
        return Unloaded(
            loaded_ids=tuple(one.id for one in targets),
            freed_host_bytes=_total(on_host),
            freed_device_bytes=_total(on_device),
        )

    async def _unload(self, one: LoadedModel) -> int | None:
        worker = self._worker_of(one.device_id)
        if worker is None:
            raise Unavailable(
                f"the worker of {one.device_id} is being restarted",
                ErrorReason.WORKER_RESTARTING,
                device_id=one.device_id,
            )
        # Whoever asked may leave, the model goes all the same: the books have to hear of it.
        return await asyncio.shield(self._ask(worker, one))

    async def _ask(self, worker: Worker, one: LoadedModel) -> int | None:
        order = UnloadOrder(job_id=order_id("unload"), model_id=one.model_id)
        freed = (await ask(worker, order, ModelUnloaded)).freed_bytes
        self._loaded.remove(one.id)
        return freed


def _total(parts: list[int | None]) -> int | None:
    """Absent if nothing of this kind was unloaded, or if one part could not be measured."""
    return None if not parts or None in parts else sum(part or 0 for part in parts)
