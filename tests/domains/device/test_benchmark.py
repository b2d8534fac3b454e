"""Measuring a device, on the CPU."""

import statistics
import time
from collections.abc import Sequence

import pytest
import torch

from domains.device.benchmark import BenchmarkReport, Suite, relative_speed, step_s
from domains.device.device import Backend, Device, DeviceKind
from domains.device.on_device.benchmark import run
from domains.device.on_device.benchmark.denoiser import denoiser

CPU = torch.device("cpu")
ABOUT = Device(
    id="cpu",
    aliases=(),
    display_name="a processor",
    kind=DeviceKind.CPU,
    backend=Backend.CPU,
    backend_index=0,
    vendor="",
    total_memory_bytes=None,
    precision_support=(),
    libraries=("torch 1",),
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def measure(suites: Sequence[Suite], max_duration_s: float = 60.0) -> BenchmarkReport:
    return run(CPU, suites, max_duration_s, lambda: False, lambda completed, total, name: None, about=ABOUT)


@pytest.fixture(scope="module")
def report() -> BenchmarkReport:
    torch.set_num_threads(1)
    return measure((Suite.MEMORY, Suite.TRANSFER, Suite.INFERENCE))


def test_medians_are_those_of_the_samples(report: BenchmarkReport) -> None:
    assert report.results
    for result in report.results:
        assert result.median.value == statistics.median(result.samples)
        assert result.sample_count == len(result.samples) <= 1000
        assert all(sample > 0 for sample in result.samples)
        assert result.workload


def test_the_report_says_with_what_it_was_measured(report: BenchmarkReport) -> None:
    assert (report.device_id, report.device_name, report.libraries) == ("cpu", "a processor", ("torch 1",))
    assert report.duration_s > 0


def test_what_a_cpu_has_not_is_a_warning(report: BenchmarkReport) -> None:
    assert not [result for result in report.results if result.suite is Suite.TRANSFER]
    assert any(warning.startswith("transfer: host_to_device_pinned is not measured") for warning in report.warnings)


def test_relative_speed_is_measured_against_a_measurement(report: BenchmarkReport) -> None:
    own = step_s(report)
    assert own is not None
    assert relative_speed(report, own) == 1.0
    assert relative_speed(report, 2 * own) == 2.0
    assert relative_speed(measure((Suite.TRANSFER,)), own) is None


def test_compute_tells_operations_a_second_in_each_precision() -> None:
    results = measure((Suite.COMPUTE,)).results
    names = {result.median.name for result in results}
    assert {"matmul_float32", "conv2d_float32", "scaled_dot_product_attention_float32"} <= names
    assert {result.median.unit for result in results} == {"{flop}/s"}
    assert all(result.median.value > 1e6 for result in results)


def test_stability_tells_drift_and_that_results_repeat() -> None:
    results = {result.median.name: result for result in measure((Suite.STABILITY,), 10.0).results}
    assert results["differing_results"].median.value == 0
    assert results["drift"].median.value == statistics.median(results["drift"].samples)
    assert results["iteration"].sample_count >= 3


def test_the_time_is_shared_and_what_is_not_reached_is_told() -> None:
    begin = time.perf_counter()
    report = measure((Suite.COMPUTE, Suite.STABILITY), 0.0)
    assert time.perf_counter() - begin < 10
    assert report.results == ()
    assert report.warnings == ("compute was not reached", "stability was not reached")


def test_a_stop_is_obeyed_and_keeps_what_was_measured() -> None:
    told: list[tuple[int, int, str]] = []

    def progress(completed: int, total: int, name: str) -> None:
        told.append((completed, total, name))

    report = run(CPU, (Suite.MEMORY,), 60.0, lambda: len(told) == 2, progress, about=ABOUT)
    assert told == [(0, 2, "memory: device_copy"), (1, 2, "memory: allocation"), (2, 2, "")]
    assert [result.median.name for result in report.results] == ["device_copy"]
    assert report.warnings == ("memory: allocation was not reached",)


def test_the_denoiser_is_always_the_same_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.inference_mode():
        results = [network(*inputs) for network, *inputs in (denoiser(CPU, torch.float32, 8) for _ in range(2))]
    assert torch.equal(*results)
    assert results[0].isfinite().all()
    assert torch.equal(torch.get_rng_state(), before)
