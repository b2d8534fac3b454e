"""Gives a worker orders that are answered with a value and belong to no job."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from domains.errors import FAMILY_OF, DeviceOpsError, ErrorReason, InternalError, Unavailable
from domains.inference.outcome import RunFailed
from domains.processing.workers.worker import Order, Report, Worker, WorkerGone

Answer = TypeVar("Answer", bound=Report)


async def reports_of(worker: Worker, order: Order) -> AsyncIterator[Report]:
    """Yield every report of an order. Raises a refusal as its error, and a worker's death as WORKER_RESTARTING.

    A worker whose driver has failed is ended, whatever the order was.
    """
    try:
        async with aclosing(worker.carry_out(order)) as reports:  # pyright: ignore[reportArgumentType]  # a generator
            async for report in reports:
                if isinstance(report, RunFailed):
                    if report.reason == ErrorReason.DRIVER_ERROR:
                        worker.end(f"its driver failed: {report.message}")
                    raise error_of(report)
                yield report
    except WorkerGone as gone:
        device_id = worker.device.id
        message = f"the worker of {device_id} ended before it answered: {gone}; try again in a few seconds"
        raise Unavailable(message, ErrorReason.WORKER_RESTARTING, device_id=device_id) from gone


async def ask(worker: Worker, order: Order, kind: type[Answer]) -> Answer:
    """The report of this type that answers the order."""
    answer: Answer | None = None
    async with aclosing(reports_of(worker, order)) as reports:  # pyright: ignore[reportArgumentType]  # a generator
        async for report in reports:
            if isinstance(report, kind):
                answer = report
    if answer is None:
        raise InternalError(f"the worker of {worker.device.id} ended an order without its answer")
    return answer


def error_of(report: RunFailed) -> DeviceOpsError:
    """The worker's refusal as an error of its family."""
    reason = ErrorReason(report.reason)
    family = FAMILY_OF[reason]
    error = DeviceOpsError.__new__(family)
    DeviceOpsError.__init__(error, report.message, reason, **report.facts)
    return error
