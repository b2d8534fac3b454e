"""A model is unloaded once the jobs that use it have ended: they are waited for, or ended, and no new one starts."""

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from domains.errors import ErrorReason, FailedPrecondition
from domains.failure import Failure
from domains.model.loaded import LoadedModel
from domains.processing.jobs.event import Failed, JobReceipt, Started
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.kinds import LoadWork
from domains.processing.memory.drained_unload import Drain, Drained, DrainedUnload
from domains.processing.workers.unload import Unloaded
from domains.progress import Receipt
from domains.stop import Stop
from tests.domains.processing.scripted_worker import Floor

AT_ONCE = Drain(timeout_s=0.0)


class Using:
    """An attempt that ends when it is stopped."""

    def __init__(self, used: "Used", job: Job) -> None:
        self.job = job
        self._used = used
        self.claims_memory = False

    def stop(self, stop: Stop) -> None:
        assert stop.reason
        failure = Failure(reason=stop.reason, message=stop.cause, facts=stop.facts)
        receipt = JobReceipt(work=Receipt(), queue_s=0.0, run_s=0.0, attempts=1)
        self._used.floor.jobs.record(self.job.id, Failed(failure=failure, receipt=receipt))
        self._used.lane.leave(self.job.id)

    def allow(self, options: JobOptions) -> None:
        pass


class Used:
    """Two models on a device, and jobs that use them."""

    def __init__(self, folder: Path) -> None:
        self.floor = Floor(folder)
        self.floor.arrive()
        lane = self.floor.board.lanes.of("sim-0")
        assert lane
        self.lane = lane
        self.gone: list[str] = []
        self.unloaded = asyncio.Event()
        board = self.floor.board
        self.drained = DrainedUnload(cast(Any, self), board.lanes, board.room, self.floor.jobs)

    async def unload(self, targets: Sequence[LoadedModel]) -> Unloaded:
        """See `Unloading`."""
        self.gone += [one.id for one in targets]
        self.unloaded.set()
        return Unloaded(loaded_ids=tuple(one.id for one in targets))

    def submit(self, model_id: str) -> Job:
        """A job that the dispatcher starts nowhere."""
        return self.floor.jobs.submit(LoadWork(model_id=model_id), JobOptions(device_ids=("none",)))[0]

    def use(self, model_id: str) -> Job:
        job = self.submit(model_id)
        job = self.floor.jobs.record(job.id, Started(device_id="sim-0", attempt=1))
        self.lane.begin(Using(self, job))
        return job

    def start(self, drain: Drain, *model_ids: str) -> asyncio.Task[Drained]:
        targets = [
            LoadedModel(
                id=f"{name}@sim-0",
                model_id=name,
                device_id="sim-0",
                components=(),
                load_time_s=0.0,
                last_use_time_s=0.0,
            )
            for name in model_ids
        ]
        return asyncio.create_task(self.drained.unload(targets, drain))


@pytest.fixture
async def used(tmp_path: Path) -> Any:
    used = Used(tmp_path)
    yield used
    used.floor.database.close()


async def test_an_unload_waits_for_the_jobs_that_use_its_model_alone(used: Used) -> None:
    job, _ = used.use("a"), used.use("b")
    unload = used.start(Drain(timeout_s=600), "a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not used.gone
    used.lane.leave(job.id)
    assert (await unload).unloaded.loaded_ids == ("a@sim-0",)


async def test_a_refusal_names_the_first_eight_jobs_that_use_the_model(used: Used) -> None:
    jobs = [used.use("a").id for _ in range(9)]
    with pytest.raises(FailedPrecondition) as refused:
        await used.start(AT_ONCE, "a")
    assert refused.value.facts == {"job_ids": ",".join(jobs[:8]), "loaded_model_ids": "a@sim-0"}
    assert ", ".join(jobs[:8]) in refused.value.message
    assert jobs[8] not in refused.value.message


async def test_no_job_that_needs_a_leaving_model_starts(used: Used) -> None:
    job, other = used.use("a"), used.submit("b")
    unload = used.start(Drain(timeout_s=600), "a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert used.lane.leaving_for(job) == ["a@sim-0"]
    assert used.lane.leaving_for(other) == []
    used.lane.leave(job.id)
    await unload
    assert used.lane.leaving_for(job) == []


async def test_models_in_use_stay_when_the_time_is_over_and_idle_ones_go(used: Used) -> None:
    job = used.use("a")
    with pytest.raises(FailedPrecondition) as caught:
        await used.start(AT_ONCE, "a", "b")
    assert (caught.value.reason, caught.value.facts["job_ids"]) == (ErrorReason.ILLEGAL_STATE, job.id)
    assert used.gone == ["b@sim-0"]
    assert used.lane.leaving_for(job) == []


async def test_force_ends_the_jobs_and_names_them(used: Used) -> None:
    first, second, other = used.use("a"), used.use("a"), used.use("b")
    done = await used.start(Drain(timeout_s=0.0, force=True), "a")
    assert (done.ended_job_ids, used.gone) == ((first.id, second.id), ["a@sim-0"])
    ended = used.floor.jobs.get(first.id)
    assert ended.failure
    assert ended.failure.reason is ErrorReason.MODEL_UNLOADED
    assert list(used.lane.running) == [other.id]


async def test_an_unload_goes_on_when_its_caller_leaves(used: Used) -> None:
    job = used.use("a")
    unload = used.start(Drain(timeout_s=600), "a")
    await asyncio.sleep(0)
    unload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unload
    used.lane.leave(job.id)
    await used.unloaded.wait()
    assert used.gone == ["a@sim-0"]


async def test_an_error_that_nobody_waits_for_is_no_fault_of_the_server(
    used: Used, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))
    refused = asyncio.Event()

    async def refuse(targets: object) -> Unloaded:
        refused.set()
        raise FailedPrecondition("it stays", ErrorReason.ILLEGAL_STATE)

    monkeypatch.setattr(used, "unload", refuse)
    unload = used.start(AT_ONCE, "a")
    await asyncio.sleep(0)
    unload.cancel()
    await refused.wait()
    (running,) = used.drained._tasks  # pyright: ignore[reportPrivateUsage]
    await asyncio.wait([running])
    del unload, running
    await asyncio.sleep(0)
    gc.collect()
    assert (told, used.drained._tasks) == ([], set())  # pyright: ignore[reportPrivateUsage]


async def test_an_unload_that_ends_with_the_server_is_no_fault_of_it(used: Used) -> None:
    told = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))
    used.use("a")
    unload = used.start(Drain(timeout_s=600), "a")
    await asyncio.sleep(0)
    (running,) = used.drained._tasks  # pyright: ignore[reportPrivateUsage]
    running.cancel()
    await asyncio.wait([running, unload])
    await asyncio.sleep(0)
    assert told == []
