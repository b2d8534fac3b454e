"""Trying whether a device computes right, on the CPU."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from domains.device.health import HealthCheck, HealthDepth, HealthReport, Verdict
from domains.device.on_device.canary import verify
from domains.device.on_device.health_check import allocate, copy, run_check, run_checks
from domains.device.on_device.memory_patterns import memory_patterns
from domains.device.on_device.steady_load import SteadyLoad, steady_load, sustained_compute
from domains.device.on_device.trial import Trial
from domains.errors import ErrorReason

CPU = torch.device("cpu")
MIB = 2**20
QUICK = ["allocate", "copy", "compute", "verify"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def go_on() -> bool:
    return False


def flipped(result: Tensor) -> Tensor:
    """One number in the middle is wrong by its own size, or by one bit."""
    wrong = result.clone().flatten()
    middle = wrong.numel() // 2
    wrong[middle] = -wrong[middle] if wrong.is_floating_point() else wrong[middle] ^ 4
    return wrong.view(result.shape)


def computed(corrupt: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Only what was computed, not what was copied."""
    return lambda result: corrupt(result) if result.is_floating_point() else result


def run(
    depth: HealthDepth = HealthDepth.QUICK, corrupt: Callable[[Tensor], Tensor] = lambda one: one
) -> list[HealthCheck]:
    return list(run_checks(CPU, depth, go_on, corrupt))


def test_a_sound_device_is_healthy_and_tells_what_it_measured() -> None:
    checks = run()
    assert [check.name for check in checks] == QUICK
    assert all(check.verdict is Verdict.HEALTHY for check in checks), checks
    assert all(check.duration_s > 0 for check in checks)
    assert all(measured.value > 0 for check in checks for measured in check.measurements)
    assert {"copy_host_to_device", "copy_device_to_host"} == {one.name for one in checks[1].measurements}


def test_a_wrong_result_is_unhealthy_and_says_found_and_expected() -> None:
    checks = run(corrupt=computed(flipped))
    assert [check.verdict for check in checks][-1] is Verdict.UNHEALTHY
    assert "found" in checks[-1].message
    assert "expected" in checks[-1].message
    assert checks[-1].failure_reason is None  # the device gave no error


def test_a_number_that_is_none_is_unhealthy_and_ends_the_checks() -> None:
    checks = run(HealthDepth.FULL, computed(lambda result: result / 0))
    verdicts = {check.name: check.verdict for check in checks}
    assert verdicts["compute"] is Verdict.UNHEALTHY
    assert [verdicts[name] for name in ("verify", "memory_patterns", "sustained_compute")] == [Verdict.SKIPPED] * 3
    assert "compute" in checks[-1].message


def test_a_small_error_everywhere_is_found_too() -> None:
    found = verify(Trial(device=CPU, corrupt=lambda result: result * 1.1))
    assert found.verdict is Verdict.UNHEALTHY


def test_results_that_change_between_two_runs_are_found() -> None:
    calls: list[int] = []

    def last_bit(result: Tensor) -> Tensor:
        calls.append(len(calls))
        return result if len(calls) % 2 else torch.nextafter(result, torch.ones_like(result))

    found = verify(Trial(device=CPU, corrupt=lambda one: last_bit(one) if one.dtype is torch.float32 else one))
    assert found.verdict is Verdict.UNHEALTHY
    assert "second run" in found.message


def test_a_bit_that_changes_on_the_way_is_found_with_its_place() -> None:
    found = copy(Trial(device=CPU, corrupt=flipped))
    assert found.verdict is Verdict.UNHEALTHY
    assert found.message.startswith(f"1 of {32 * MIB} bytes changed on the way, the first at {16 * MIB}")


def test_too_little_memory_is_told_with_need_and_available() -> None:
    check = run_check("allocate", partial(allocate, need_bytes=1 << 50), Trial(device=CPU))
    assert check.verdict is Verdict.UNHEALTHY
    assert check.failure_reason is ErrorReason.HOST_OUT_OF_MEMORY
    assert "needed 1024.0 TiB; " in check.message
    assert "are available" in check.message


def test_patterns_find_a_stuck_bit_and_say_where() -> None:
    small = partial(memory_patterns, limit_bytes=MIB)
    assert small(Trial(device=CPU)).verdict is Verdict.HEALTHY
    found = small(Trial(device=CPU, corrupt=lambda words: words | 4))
    assert found.verdict is Verdict.UNHEALTHY
    assert "pattern 0x00" in found.message
    assert "found 0x0000000000000004, expected 0x0000000000000000" in found.message


def test_the_address_pattern_finds_a_word_that_answers_for_two() -> None:
    def aliased(words: Tensor) -> Tensor:
        half = words.numel() // 2
        return torch.cat((words[:half], words[:half]))

    found = memory_patterns(Trial(device=CPU, corrupt=aliased), limit_bytes=MIB)
    assert found.verdict is Verdict.UNHEALTHY
    assert f"pattern address: {MIB // 16} words differ, the first at byte {MIB // 2}" in found.message


def test_sustained_computing_finds_a_result_that_changes() -> None:
    calls: list[int] = []

    def third_is_wrong(result: Tensor) -> Tensor:
        calls.append(len(calls))
        return flipped(result) if len(calls) == 3 else result

    assert sustained_compute(Trial(device=CPU), 0.05).verdict in (Verdict.HEALTHY, Verdict.DEGRADED)
    found = sustained_compute(Trial(device=CPU, corrupt=third_is_wrong), 0.2)
    assert found.verdict is Verdict.UNHEALTHY
    assert "the first in iteration 2" in found.message


def test_a_device_that_gets_slower_drifts() -> None:
    load = SteadyLoad(workload="", times_s=(1.0,) * 5 + (1.5,) * 5, differing=())
    assert load.drift == 1.5


def test_a_stop_ends_the_check_and_skips_the_rest() -> None:
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 8

    checks = list(run_checks(CPU, HealthDepth.FULL, stop))
    assert [check.name for check in checks] == [*QUICK, "memory_patterns", "sustained_compute"]
    verdicts = [check.verdict for check in checks]
    assert verdicts == [Verdict.HEALTHY] * 2 + [Verdict.SKIPPED] * 4
    assert len(asked) == 9  # nothing looked on after the answer


def test_a_stop_ends_a_steady_load() -> None:
    done: list[Tensor] = []

    def note(result: Tensor) -> Tensor:
        done.append(result)
        return result

    check = run_check(
        "sustained_compute",
        lambda trial: (steady_load(trial, 60.0), verify(trial))[1],
        Trial(device=CPU, stop=lambda: len(done) >= 2, corrupt=note),
    )
    assert check.verdict is Verdict.SKIPPED
    assert len(done) == 2


def test_the_verdict_is_the_worst_of_the_checks_that_ran() -> None:
    def verdict(*said: Verdict) -> Verdict:
        checks = tuple(HealthCheck(name="copy", verdict=one, message="", duration_s=0.0) for one in said)
        return HealthReport(device_id="cpu", checks=checks, check_time_s=0.0, queue_s=0.0, duration_s=0.0).verdict

    assert verdict() is verdict(Verdict.SKIPPED) is Verdict.SKIPPED
    assert verdict(Verdict.SKIPPED, Verdict.HEALTHY) is Verdict.HEALTHY
    assert (
        verdict(Verdict.UNHEALTHY, Verdict.HEALTHY) is verdict(Verdict.HEALTHY, Verdict.UNHEALTHY) is Verdict.UNHEALTHY
    )
