"""Measure a device."""

from typing import ClassVar

from domains.device.benchmark import Suite
from domains.errors import InternalError
from domains.processing.jobs.event import BenchmarkResult
from domains.processing.jobs.kinds.entry import PlainWork, Reported, Supplies
from domains.processing.workers.worker import BenchmarkOrder
from domains.reasons import Domain


class BenchmarkWork(PlainWork, frozen=True, kw_only=True, tag="benchmark_device"):
    """Measure a device. Implements `DeviceKind`."""

    domain: ClassVar[Domain] = Domain.DEVICE
    alone: ClassVar[bool] = True

    device_id: str
    suites: tuple[Suite, ...]
    max_duration_s: float = 60.0

    @property
    def summary(self) -> str:
        """Names the device and the suites."""
        return f"benchmark {self.device_id}: {', '.join(self.suites)}"

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The device that it measures."""
        return (self.device_id,)

    def order(self, order_id: str, supplies: Supplies) -> BenchmarkOrder:
        """The order with the suites."""
        return BenchmarkOrder(order_id=order_id, suites=self.suites, max_duration_s=self.max_duration_s)

    def result(self, reported: Reported) -> BenchmarkResult:
        """The measurements."""
        if reported.benchmark is None:
            raise InternalError(f"the worker of {self.device_id} ended a benchmark without its report")
        return BenchmarkResult(report=reported.benchmark)
