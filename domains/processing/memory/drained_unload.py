"""Unloads models after the jobs that use them have ended: waits for those jobs, or ends them.

No new job that needs one of the models starts on its device meanwhile.
"""

import asyncio
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import msgspec

from domains.errors import ErrorReason, FailedPrecondition
from domains.model.loaded import LoadedModel
from domains.processing.jobs.jobs import Jobs
from domains.processing.lanes.lane import Lane, Running
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.room_signal import RoomSignal
from domains.processing.memory.model_use import loaded_ids
from domains.processing.workers.unload import Unloaded, Unloading
from domains.stop import Stop, StopKind

LONGEST_DRAIN_S = 3600.0
_NAMED = 8
"""Most jobs that a refusal names."""


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to the jobs that use a model."""

    timeout_s: float = 30.0
    """How long they may take to end."""
    force: bool = False
    """Whether they are ended after that time. False: their models stay."""


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """What was unloaded, and the jobs that were ended for it."""

    unloaded: Unloaded
    ended_job_ids: tuple[str, ...] = ()


class DrainedUnload:
    """Unloads for callers. One event loop."""

    def __init__(self, unloading: Unloading, lanes: Lanes, room: RoomSignal, jobs: Jobs) -> None:
        self._unloading = unloading
        self._lanes = lanes
        self._room = room
        self._jobs = jobs
        self._tasks: set[asyncio.Task[Drained]] = set()

    async def unload(self, targets: Sequence[LoadedModel], drain: Drain) -> Drained:
        """Unload the models. A begun unload continues after its caller disconnects.

        Raises ILLEGAL_STATE, naming the jobs that still use models when the time is over; models that no job uses are
        unloaded all the same. Raises what the workers answer.
        """
        task = asyncio.create_task(self._unload(targets, drain))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Drained]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # The caller may have left: an error that no one reads would be logged as a fault.
            task.exception()

    async def _unload(self, targets: Sequence[LoadedModel], drain: Drain) -> Drained:
        with self._closed(targets):
            await self._wait(targets, drain.timeout_s)
            ended = await self._end(targets) if drain.force else ()
            used = {one.id: names for one in targets if (names := [job.job.id for _, job in self._users(one)])}
            unloaded = await self._unloading.unload([one for one in targets if one.id not in used])
        if used:
            raise _in_use(used, drain.timeout_s)
        return Drained(unloaded=unloaded, ended_job_ids=ended)

    @contextmanager
    def _closed(self, targets: Sequence[LoadedModel]) -> Generator[None]:
        """Until exit, no job that needs one of the models starts on its device."""
        lanes = [(lane, one.id) for one in targets if (lane := self._lanes.of(one.device_id)) is not None]
        for lane, name in lanes:
            lane.leaving.append(name)
        try:
            yield
        finally:
            for lane, name in lanes:
                lane.leaving.remove(name)
            self._room.tell()

    def _users(self, one: LoadedModel) -> list[tuple[Lane, Running]]:
        """The running attempts that use a model."""
        lane = self._lanes.of(one.device_id) if one.device_id else None
        if lane is None:
            return []
        return [(lane, job) for job in lane.running.values() if one.id in loaded_ids(job.job, one.device_id)]

    async def _wait(self, targets: Sequence[LoadedModel], timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while (users := [user for one in targets for user in self._users(one)]) and (
            left := until - time.monotonic()
        ) > 0:
            changes = {asyncio.ensure_future(lane.changed.wait()) for lane in {lane for lane, _ in users}}
            _, waiting = await asyncio.wait(changes, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()

    async def _end(self, targets: Sequence[LoadedModel]) -> tuple[str, ...]:
        """End the jobs that use the models; returns those that this call has ended."""
        users = {job.job.id: (lane, job, one.id) for one in targets for lane, job in self._users(one)}
        for job_id, (_, job, name) in users.items():
            cause = f"its model was unloaded by force, as {name}; submit job {job_id} again to load it anew"
            facts = {"loaded_model_id": name}
            reason = ErrorReason.MODEL_UNLOADED
            job.stop(Stop(kind=StopKind.TIME_UP, cause=cause, reason=reason, facts=facts, asked_s=time.monotonic()))
        for lane, job, _ in users.values():
            await lane.without(job)
        return tuple(name for name in users if self._was_ended(name))

    def _was_ended(self, job_id: str) -> bool:
        job = self._jobs.find(job_id)
        return job is not None and job.failure is not None and job.failure.reason is ErrorReason.MODEL_UNLOADED


def _in_use(used: dict[str, list[str]], timeout_s: float) -> FailedPrecondition:
    jobs = list(dict.fromkeys(name for names in used.values() for name in names))
    message = (
        f"jobs still use {', '.join(used)} after {timeout_s:g} s: {', '.join(jobs[:_NAMED])}; wait, cancel them, or set"
        " `force`"
    )
    return FailedPrecondition(message, job_ids=",".join(jobs[:_NAMED]), loaded_model_ids=",".join(list(used)[:_NAMED]))
