"""Measure a model on a device."""

from typing import ClassVar

from domains.errors import InternalError
from domains.inference.generation import ResolvedGeneration
from domains.model.benchmark import ModelBenchmark
from domains.processing.jobs.event import ModelBenchmarkResult
from domains.processing.jobs.kinds.assets import Asset, AssetRole
from domains.processing.jobs.kinds.entry import PlainWork, Reported, Supplies
from domains.processing.workers.worker import ModelBenchmarkOrder
from domains.reasons import Domain


class ModelBenchmarkWork(PlainWork, frozen=True, kw_only=True, tag="benchmark_model"):
    """Measure a model on a device. Implements `DeviceKind`."""

    domain: ClassVar[Domain] = Domain.MODEL
    alone: ClassVar[bool] = True

    asked: ModelBenchmark
    cases: tuple[ResolvedGeneration, ...] = ()
    """One generation for each size with each number of pictures."""

    @property
    def summary(self) -> str:
        """Names the model and the number of cases."""
        return f"benchmark {self.asked.model_id}: {len(self.cases)} cases"

    @property
    def assets(self) -> tuple[Asset, ...]:
        """The model that it measures."""
        return (Asset(role=AssetRole.BASE, model_id=self.asked.model_id),)

    def order(self, order_id: str, supplies: Supplies) -> ModelBenchmarkOrder:
        """The order with the model's files."""
        asked = self.asked
        model = supplies.model(asked.model_id)
        return ModelBenchmarkOrder(order_id=order_id, model=model, asked=asked, cases=self.cases)

    def result(self, reported: Reported) -> ModelBenchmarkResult:
        """The measurements."""
        if reported.model_benchmark is None:
            raise InternalError(f"the worker ended a benchmark of {self.asked.model_id} without its report")
        return ModelBenchmarkResult(report=reported.model_benchmark)
