"""Unloads models whose keep-alive is over."""

import asyncio
import time
from collections.abc import Callable

import structlog

from domains.errors import DeviceOpsError
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.jobs import Jobs
from domains.processing.memory.model_use import users_of
from domains.processing.workers.unload import Unloading

_AGAIN_S = 1.0
"""Delay before another try, after a worker could not unload a model."""

_log = structlog.get_logger()


class KeepAlive:
    """Follows the loaded models. A model that a job uses does not expire; its keep-alive counts again from the job's end."""

    def __init__(
        self, loaded: LoadedModels, jobs: Jobs, unloading: Unloading, clock: Callable[[], float] = time.time
    ) -> None:
        self._loaded = loaded
        self._jobs = jobs
        self._unloading = unloading
        self._clock = clock
        self._changed = asyncio.Event()
        loaded.on_change.append(lambda change: self._changed.set())

    async def keep_up(self) -> None:
        """Unload each model at its time, until cancelled."""
        while True:
            self._changed.clear()
            wait_s = await self._unload_due()
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _unload_due(self) -> float | None:
        """Unload what has expired. Returns the seconds until the next look; None: nothing will expire."""
        waits: list[float] = []
        for one in self._loaded.list():
            if one.expire_s is None:
                continue
            left_s = one.expire_s - self._clock()
            if left_s > 0:
                waits.append(left_s)
            elif not await self._unload(one):
                waits.append(_AGAIN_S)
        return min(waits, default=None)

    async def _unload(self, one: LoadedModel) -> bool:
        """Unload a model. False: a job uses it, or its worker could not do it now."""
        if users_of(one, self._jobs.unfinished()):
            return False
        try:
            await self._unloading.unload([one])
        except DeviceOpsError as error:
            _log.info("an expired model stays for now", loaded_model_id=one.id, reason=str(error.reason))
            return False
        return True
