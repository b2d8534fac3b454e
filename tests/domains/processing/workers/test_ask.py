"""An order that belongs to no job: its answer, the worker's refusal, its death, and an order without an answer."""

import pytest

from domains.errors import DeviceOpsError, ErrorReason, InternalError, ResourceExhausted
from domains.inference.outcome import RunFailed
from domains.processing.workers.ask import ask
from domains.processing.workers.worker import Emptied, EmptyOrder
from domains.progress import Receipt
from tests.domains.processing.scripted_worker import ScriptedWorker, a_device

ORDER = EmptyOrder(order_id="empty-1")


def failed(reason: ErrorReason) -> RunFailed:
    return RunFailed(reason=reason, message="it failed", facts={"need_bytes": "7"}, receipt=Receipt())


async def test_the_last_report_of_the_kind_is_the_answer() -> None:
    worker = ScriptedWorker(a_device())
    worker.say(Emptied(freed_bytes=1), Emptied(freed_bytes=2))
    assert (await ask(worker, ORDER, Emptied)).freed_bytes == 2


async def test_a_refusal_is_raised_as_its_error_with_its_facts() -> None:
    worker = ScriptedWorker(a_device())
    worker.say(failed(ErrorReason.DEVICE_OUT_OF_MEMORY))
    with pytest.raises(ResourceExhausted, match="it failed") as caught:
        await ask(worker, ORDER, Emptied)
    assert (caught.value.reason, caught.value.facts) == (ErrorReason.DEVICE_OUT_OF_MEMORY, {"need_bytes": "7"})
    assert worker.ended == []


async def test_a_worker_whose_driver_failed_is_ended() -> None:
    worker = ScriptedWorker(a_device())
    worker.dies_when_ended = False
    worker.say(failed(ErrorReason.DRIVER_ERROR))
    with pytest.raises(DeviceOpsError) as caught:
        await ask(worker, ORDER, Emptied)
    assert caught.value.reason is ErrorReason.DRIVER_ERROR
    assert worker.ended == ["its driver failed: it failed"]


async def test_a_dead_worker_and_an_order_without_an_answer_are_errors() -> None:
    worker = ScriptedWorker(a_device())
    worker.say()
    with pytest.raises(InternalError, match="ended an order without its answer"):
        await ask(worker, ORDER, Emptied)
    worker.end("killed")
    with pytest.raises(DeviceOpsError, match="ended before it answered: killed") as caught:
        await ask(worker, ORDER, Emptied)
    assert caught.value.reason is ErrorReason.WORKER_RESTARTING
