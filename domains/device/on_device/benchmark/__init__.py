"""Measures a device.

report = run(torch.device("cuda:0"), (Suite.MEMORY, Suite.COMPUTE), 60.0, stop, progress, about=probe("cuda:0"))

figure.py     one figure, and the timing of its runs
compute.py    matrix product, convolution, attention
memory.py     bandwidth and allocation time of the device's memory
transfer.py   copies between host and device
inference.py  one denoising step
denoiser.py   the network of that step
stability.py  drift of speed, results and temperature under steady load
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from domains.device.benchmark import BenchmarkReport, BenchmarkResult, Suite
from domains.device.device import Device
from domains.device.on_device.benchmark import compute, inference, memory, stability, transfer
from domains.device.on_device.benchmark.figure import Figure, TimeBudget
from domains.device.on_device.free_memory import give_back
from domains.device.on_device.torch_errors import translate
from domains.errors import ErrorReason
from domains.measurement import Measurement

__all__ = ["Progress", "run"]

Progress = Callable[[int, int, str], None]
"""Called with the number of figures done, of all figures, and the name of the next one; empty at the end."""

DEFAULT_SUITES = tuple(suite for suite in Suite if suite is not Suite.STABILITY)
_SUITES: Mapping[Suite, Callable[[torch.device], list[Figure]]] = {
    Suite.MEMORY: memory.figures,
    Suite.TRANSFER: transfer.figures,
    Suite.COMPUTE: compute.figures,
    Suite.INFERENCE: inference.figures,
    Suite.STABILITY: stability.figures,
}
_MOST_SAMPLES = 1000
_STEADY = (0.8, 1.25)


def run(
    device: torch.device,
    suites: Sequence[Suite],
    max_duration_s: float,
    stop: Callable[[], bool],
    progress: Progress,
    *,
    about: Device,
) -> BenchmarkReport:
    """Run the suites; empty: all but STABILITY. The figures share the time; a figure that is not reached is a warning.

    `about`: the probed device. `stop` is read between samples. Raises DRIVER_ERROR if the device fails; a figure that lacks
    memory is a warning.
    """
    start_time_s, begin = time.time(), time.perf_counter()
    warnings: list[str] = []
    with torch.inference_mode():
        figures = _figures(device, suites or DEFAULT_SUITES, begin + max_duration_s, stop, warnings)
        results = _measure(device, figures, begin + max_duration_s, stop, progress, warnings)
    give_back(device)
    return BenchmarkReport(
        device_id=about.id,
        results=tuple(results),
        warnings=tuple(warnings),
        libraries=about.libraries,
        device_name=about.display_name,
        driver_version=about.driver_version,
        start_time_s=start_time_s,
        duration_s=time.perf_counter() - begin,
    )


def _figures(
    device: torch.device, suites: Sequence[Suite], until_s: float, stop: Callable[[], bool], warnings: list[str]
) -> list[Figure]:
    figures: list[Figure] = []
    for suite in dict.fromkeys(suites):
        if stop() or time.perf_counter() >= until_s:
            warnings.append(f"{suite} was not reached")
            continue
        try:
            own = _SUITES[suite](device)
        except Exception as error:
            raise translate(error, device, f"preparing the benchmark {suite}") from error
        warnings.extend(f"{suite}: {one.name} is not measured: {one.missing}" for one in own if one.missing)
        figures += [one for one in own if not one.missing]
    return figures


def _measure(
    device: torch.device,
    figures: Sequence[Figure],
    until_s: float,
    stop: Callable[[], bool],
    progress: Progress,
    warnings: list[str],
) -> list[BenchmarkResult]:
    results: list[BenchmarkResult] = []
    for done, figure in enumerate(figures):
        progress(done, len(figures), f"{figure.suite}: {figure.name}")
        now = time.perf_counter()
        # A figure that needs less than its share leaves more for the others.
        share = max(until_s - now, 0.0) / (len(figures) - done)
        budget = TimeBudget(device=device, until_s=now + share, stop=stop)
        samples = _samples(device, figure, budget, warnings)
        if samples:
            results.append(_result(figure, samples))
    progress(len(figures), len(figures), "")
    return results


def _samples(device: torch.device, figure: Figure, budget: TimeBudget, warnings: list[str]) -> Sequence[float]:
    name = f"{figure.suite}: {figure.name}"
    if budget.over:
        warnings.append(f"{name} was not reached")
        return ()
    try:
        samples = figure.take(budget)
    except Exception as error:
        translated = translate(error, device, f"measuring {figure.name}")
        if translated.reason not in (ErrorReason.DEVICE_OUT_OF_MEMORY, ErrorReason.HOST_OUT_OF_MEMORY):
            raise translated from error
        warnings.append(f"{name} found too little memory for {figure.workload}")
        return ()
    finally:
        give_back(device)
    if not samples:
        warnings.append(f"{name} was ended before its first sample")
    elif figure.suite is Suite.STABILITY:
        warnings.extend(_unsteady(figure, samples))
    return samples


def _unsteady(figure: Figure, samples: Sequence[float]) -> Sequence[str]:
    found = statistics.median(samples)
    if figure.name == "differing_results" and found:
        return [f"{found:g} results of the same input differ: do not trust this device before a health check"]
    low, high = _STEADY
    if figure.name == "drift" and not low <= found <= high:
        return [f"speed drifted: an iteration ended {found:.2f} times as long as it began"]
    return ()


def _result(figure: Figure, samples: Sequence[float]) -> BenchmarkResult:
    # The first of each of 1000 equal stretches.
    kept = samples
    if len(samples) > _MOST_SAMPLES:
        kept = [samples[place * len(samples) // _MOST_SAMPLES] for place in range(_MOST_SAMPLES)]
    return BenchmarkResult(
        suite=figure.suite,
        median=Measurement(name=figure.name, value=statistics.median(samples), unit=figure.unit),
        samples=tuple(kept),
        sample_count=len(samples),
        workload=figure.workload,
    )
