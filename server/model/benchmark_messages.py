"""Converts benchmarks of models to and from messages."""

from deviceops.common.v1 import image_pb2
from deviceops.model.v1 import model_work_pb2
from domains.errors import InvalidRequest, Violation, excerpt
from domains.inference.limits import IMAGES, STEPS
from domains.inference.samplers import SAMPLERS
from domains.model.benchmark import BenchmarkCase, ModelBenchmark, ModelBenchmarkReport
from domains.reasons import Domain
from server import convert
from server.device.messages import to_environment
from server.inference.generation_messages import to_execution
from server.model.load_messages import check_execution, from_execution, to_asked_execution

_CASES = 16
"""Most sizes, and most numbers of pictures: the contract's limit."""
_USUAL = ModelBenchmark(model_id="")
_RANGES = {"steps": STEPS, "warmup_runs": (0, 100), "runs": (1, 1000), "load_runs": (0, 20)}


def from_model_benchmark(message: model_work_pb2.ModelBenchmark, path: str = "model_benchmark") -> ModelBenchmark:
    """The benchmark of a request. Raises INVALID_FIELD with all violations, NOT_IMPLEMENTED for what is not served."""
    wrong = [*_wrong(message, path)]
    if wrong:
        raise InvalidRequest(wrong)
    check_execution(message.execution, f"{path}.execution")
    numbers = {name: getattr(message, name) if message.HasField(name) else getattr(_USUAL, name) for name in _RANGES}  # pyright: ignore[reportArgumentType]
    return ModelBenchmark(
        model_id=message.model_id,
        execution=from_execution(message.execution),
        sizes=tuple(dict.fromkeys((size.width_px, size.height_px) for size in message.sizes)),
        batch_sizes=tuple(dict.fromkeys(message.batch_sizes)),
        sampler=message.sampler,
        **numbers,
    )


def _wrong(message: model_work_pb2.ModelBenchmark, path: str) -> list[Violation]:
    wrong = [
        Violation(
            field=f"{path}.{name}",
            message=f"{getattr(message, name)} is not within {low}..{high}",
            allowed=f"{low}..{high}",
        )
        for name, (low, high) in _RANGES.items()
        if message.HasField(name) and not low <= getattr(message, name) <= high  # pyright: ignore[reportArgumentType]
    ]
    for name, count in (("sizes", len(message.sizes)), ("batch_sizes", len(message.batch_sizes))):
        if count > _CASES:
            text = f"has {count} entries; at most {_CASES}"
            wrong.append(Violation(field=f"{path}.{name}", message=text, allowed=f"0..{_CASES} entries"))
    low, high = IMAGES
    for index, images in enumerate(message.batch_sizes):
        if not low <= images <= high:
            text = f"{images} is not within {low}..{high}, which this server makes at once"
            wrong.append(Violation(field=f"{path}.batch_sizes[{index}]", message=text, allowed=f"{low}..{high}"))
    if message.sampler and message.sampler not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        text = f"there is no sampler {excerpt(message.sampler)!r}"
        wrong.append(Violation(field=f"{path}.sampler", message=text, allowed=known))
    wrong += [
        Violation(field=f"{path}.sizes[{index}]", message="needs both width_px and height_px")
        for index, size in enumerate(message.sizes)
        if not (size.width_px and size.height_px)
    ]
    return wrong


def to_model_benchmark(asked: ModelBenchmark) -> model_work_pb2.ModelBenchmark:
    """The message of a benchmark, as it was asked for."""
    return model_work_pb2.ModelBenchmark(
        model_id=asked.model_id,
        execution=to_asked_execution(asked.execution),
        sizes=[image_pb2.ImageSize(width_px=width, height_px=height) for width, height in asked.sizes],
        batch_sizes=asked.batch_sizes,
        steps=asked.steps,
        sampler=asked.sampler,
        warmup_runs=asked.warmup_runs,
        runs=asked.runs,
        load_runs=asked.load_runs,
    )


def to_model_benchmark_report(report: ModelBenchmarkReport) -> model_work_pb2.ModelBenchmarkReport:
    """The message of a report."""
    return model_work_pb2.ModelBenchmarkReport(
        model_id=report.model_id,
        model_sha256=report.model_sha256,
        device_id=report.device_id,
        environment=to_environment(report),
        execution=to_execution(dict(report.precisions), report.way),
        sampler=report.sampler,
        cases=[_to_case(case, report.start_time_s + report.duration_s) for case in report.cases],
        load_latency=None if report.load is None else convert.to_latency(report.load),
        warnings=report.warnings,
        start_time=convert.to_time(report.start_time_s),
        duration=convert.to_duration(report.duration_s),
    )


def _to_case(case: BenchmarkCase, end_s: float) -> model_work_pb2.ModelBenchmarkCase:
    return model_work_pb2.ModelBenchmarkCase(
        size=image_pb2.ImageSize(width_px=case.width_px, height_px=case.height_px),
        batch_size=case.images,
        steps=case.steps,
        run_latency=None if case.run is None else convert.to_latency(case.run),
        step_latency=None if case.step is None else convert.to_latency(case.step),
        images_per_second=case.images_per_s,
        peak_device_bytes=case.peak_device_bytes,
        failure=None if case.failure is None else convert.to_failure(case.failure, end_s, Domain.MODEL),
    )
