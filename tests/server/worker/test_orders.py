"""The loop of a worker: one order's fault is that order's alone."""

from collections import deque
from typing import Any

import pytest
import structlog

from domains.errors import ErrorReason
from domains.inference.outcome import Failed, Finished
from domains.processing.worker import Measured, MeasureOrder, Order, Report, UnloadOrder
from server.stdio.command import Command, Ended, Message, Opened
from server.stdio.ending import EndKind, PipeEnd
from server.worker import wire
from server.worker.orders import OrderLoop


class PlayedFront:
    """A pipe with all orders in it already; it ends behind the last."""

    def __init__(self, *orders: Order) -> None:
        self.commands: deque[Command] = deque()
        for call_id, order in enumerate(orders, 1):
            self.commands += Opened(call_id, wire.CARRY_OUT, None, ()), Message(call_id, wire.encode(order))
        self.reports: list[tuple[int, Report]] = []
        self.closed: list[int] = []

    def next(self, timeout_s: float | None = None) -> Command | None:
        if self.commands:
            return self.commands.popleft()
        return Ended(PipeEnd(kind=EndKind.END_OF_STREAM, detail="")) if timeout_s is None else None

    def send(self, call_id: int, data: bytes) -> bool:
        self.reports.append((call_id, wire.decode_report(data)))
        return True

    try_send = send

    def close(self, call_id: int, *status: object) -> bool:
        self.closed.append(call_id)
        return True


def test_a_bug_in_an_order_is_its_answer_and_the_process_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front: Any = PlayedFront(UnloadOrder(job_id="job-1", model_id="m"), MeasureOrder(job_id="measure-1"))
    loop = OrderLoop(front, "cpu")

    def broken(model_id: str) -> int:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(loop._steps, "unload", broken)  # pyright: ignore[reportPrivateUsage]  # a fault is put in
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        loop.run()
    (_, failed), (_, measured), (_, finished) = front.reports
    assert isinstance(failed, Failed)
    assert (failed.reason, "secret" in failed.message) == (ErrorReason.INVARIANT_BROKEN, False)
    assert isinstance(measured, Measured)
    assert isinstance(finished, Finished)
    assert front.closed == [1, 2]
    assert [line["job_id"] for line in lines] == ["job-1"]
    assert isinstance(lines[0]["exc_info"], ZeroDivisionError)
