"""The stall limit: a worker that reports anything lives; one that is silent for longer is ended."""

import asyncio

import pytest

from domains.processing.workers.stall_limit import stall_limit
from domains.processing.workers.worker import WorkerStalled
from tests.domains.processing.scripted_worker import ScriptedWorker, a_device

LIMIT_S = 0.02


async def test_a_worker_that_tells_nobody_anything_is_ended() -> None:
    worker = ScriptedWorker(a_device())
    worker.quiet_s = LIMIT_S
    with pytest.raises(WorkerStalled):
        async with stall_limit(worker, LIMIT_S):
            await asyncio.Event().wait()
    assert len(worker.ended) == 1


async def test_an_order_behind_a_long_one_waits_as_long_as_that_one_is_told_of() -> None:
    worker, turns = ScriptedWorker(a_device()), 0
    heard = asyncio.Event()

    class Talking(ScriptedWorker):
        @property
        def quiet_s(self) -> float:
            nonlocal turns
            turns += 1
            if turns == 5:
                heard.set()
            return LIMIT_S / 2

        @quiet_s.setter
        def quiet_s(self, value: float) -> None:
            pass

    worker = Talking(a_device())
    async with stall_limit(worker, LIMIT_S):
        await heard.wait()
    assert worker.ended == []


async def test_an_answer_that_took_too_long_for_its_caller_is_no_stall() -> None:
    worker = ScriptedWorker(a_device())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LIMIT_S / 2), stall_limit(worker, LIMIT_S):
            await asyncio.Event().wait()
    assert worker.ended == []


async def test_work_that_raises_a_timeout_of_its_own_is_no_stall() -> None:
    worker = ScriptedWorker(a_device())
    with pytest.raises(TimeoutError, match="its own"):
        async with stall_limit(worker, 60.0):
            raise TimeoutError("its own")
    assert worker.ended == []
