"""Advice for a device."""

from typing import Any

import pytest

from domains.device.advice import AdviceFigures, DeviceAdvice, advise
from domains.device.benchmark import BenchmarkResult, Suite
from domains.device.device import Backend, Device, DeviceKind
from domains.device.effects import Effect, MeasuredRun, effect_of
from domains.device.settings import DeviceGoal, DeviceSettings, changed
from domains.errors import InvalidRequest
from domains.measurement import Measurement

GIB = 2**30
ALONE = "one job at a time has the whole device and its memory"
UNLIMITED = "a power limit of ours slows it; the driver's default does not"


def device(*features: str) -> Device:
    return Device(
        id="gpu-1",
        aliases=(),
        display_name="a device",
        kind=DeviceKind.DISCRETE_GPU,
        backend=Backend.CUDA,
        backend_index=0,
        vendor="",
        total_memory_bytes=8 * GIB,
        precision_support=(),
        features=features,
    )


def figures(**known: Any) -> AdviceFigures:
    whole: dict[str, Any] = {
        "tasks": ("text_to_image",),
        "controls": DeviceSettings.__struct_fields__,
        "max_concurrent_jobs": 4,
    }
    return AdviceFigures(**whole | known)


def ask(
    goal: DeviceGoal,
    model_bytes: int | None = 4 * GIB,
    settings: DeviceSettings | None = None,
    features: tuple[str, ...] = (),
    **known: Any,
) -> DeviceAdvice:
    return advise(device(*features), figures(**known), goal, "", model_bytes, settings or DeviceSettings())


def uses(advice: DeviceAdvice) -> dict[str, bool]:
    return {option.option: option.use for option in advice.options}


@pytest.mark.parametrize("goal", list(DeviceGoal))
def test_changed_fields_are_the_mask_that_makes_the_settings_so(goal: DeviceGoal) -> None:
    before = DeviceSettings(power_limit_watts=300.0, max_concurrent_jobs=2)
    advice = ask(goal, settings=before)
    if advice.changed_fields:
        after = changed(before, advice.settings, advice.changed_fields, before.__struct_fields__, None, 4)
        assert after == advice.settings
    else:
        assert advice.settings == before


def test_following_the_advice_leaves_nothing_to_change() -> None:
    for goal in DeviceGoal:
        assert ask(goal, settings=ask(goal).settings).changed_fields == ()


def test_throughput_fills_the_device_and_latency_leaves_it_to_one() -> None:
    one = DeviceSettings(max_concurrent_jobs=1)
    assert ask(DeviceGoal.THROUGHPUT, settings=one).settings.max_concurrent_jobs == 4
    assert ask(DeviceGoal.THROUGHPUT).settings.max_concurrent_jobs is None, "absent is as many as the device takes"
    assert ask(DeviceGoal.LATENCY).settings.max_concurrent_jobs == 1
    assert ask(DeviceGoal.LATENCY, settings=DeviceSettings(max_concurrent_jobs=4)).settings.max_concurrent_jobs == 1


def test_what_the_device_cannot_change_is_not_advised() -> None:
    advice = ask(DeviceGoal.THROUGHPUT, controls=("enabled", "goal"))
    assert advice.changed_fields == ("goal",)
    one = DeviceSettings(max_concurrent_jobs=1)
    assert ask(DeviceGoal.THROUGHPUT, settings=one, controls=("goal",)).settings.max_concurrent_jobs == 1


def test_a_model_larger_than_the_memory_is_offloaded_whatever_the_goal() -> None:
    for goal in DeviceGoal:
        assert uses(ask(goal, 9 * GIB))["offload"]
    advice = ask(DeviceGoal.BALANCED, 9 * GIB)
    assert advice.options[0].reason.startswith("the model holds 9.0 GiB of 8.0 GiB")


@pytest.mark.parametrize("goal", list(DeviceGoal))
def test_a_model_that_fits_is_offloaded_only_to_save_memory(goal: DeviceGoal) -> None:
    """At its size exactly it fits."""
    saves = goal is DeviceGoal.MEMORY
    offload = ask(goal, 8 * GIB).options[0]
    assert (offload.option, offload.use) == ("offload", saves)
    assert offload.reason.endswith("the goal is least memory" if saves else "moving it would cost time")
    without = {"offload": True, "vae_tiling": True, "vae_slicing": True} if saves else {}
    assert uses(ask(goal, None)) == {**without, "compile": False}


def test_little_room_beside_the_model_tiles_the_decoder() -> None:
    assert not uses(ask(DeviceGoal.BALANCED, 4 * GIB))["vae_tiling"]
    assert uses(ask(DeviceGoal.BALANCED, 7 * GIB))["vae_tiling"]
    assert uses(ask(DeviceGoal.MEMORY, 4 * GIB))["vae_tiling"]


@pytest.mark.parametrize(
    ("goal", "model_bytes", "why"),
    [
        (DeviceGoal.BALANCED, 7 * GIB, "which is little"),
        (DeviceGoal.MEMORY, 7 * GIB, "which is little"),
        (DeviceGoal.BALANCED, 4 * GIB, "which is enough"),
        (DeviceGoal.MEMORY, 4 * GIB, "and the goal is least memory"),
    ],
)
def test_the_reason_for_tiling_is_the_one_that_decided(goal: DeviceGoal, model_bytes: int, why: str) -> None:
    for option in ask(goal, model_bytes).options:
        if option.option.startswith("vae_"):
            assert option.reason.endswith(why)


def test_a_model_that_fills_the_memory_leaves_none() -> None:
    for model_bytes in (8 * GIB, 9 * GIB):
        _, tiling, *_ = ask(DeviceGoal.BALANCED, model_bytes).options
        assert tiling.reason == "beside the model 0 B of 8.0 GiB are left, which is little"
    # A quarter of the memory is enough, a byte less is little.
    assert not uses(ask(DeviceGoal.BALANCED, 6 * GIB))["vae_tiling"]
    assert uses(ask(DeviceGoal.BALANCED, 6 * GIB + 1))["vae_tiling"]


@pytest.mark.parametrize(("peak", "tight"), [(8 * GIB, False), (8 * GIB + 1, True)])
def test_a_peak_that_just_fits_is_not_tight(peak: int, tight: bool) -> None:
    runs = tuple(MeasuredRun(seconds=1.0, peak_device_bytes=each) for each in (peak, GIB, None))
    runs += (MeasuredRun(seconds=1.0, peak_device_bytes=80 * GIB, options=("vae_tiling",)),)
    option = ask(DeviceGoal.BALANCED, 4 * GIB, runs=runs).options[1]
    assert (option.option, option.use) == ("vae_tiling", tight)
    assert option.reason.startswith("the most that 2 runs without tiling held was 8.0 GiB of 8.0 GiB")


def test_an_effect_needs_runs_on_both_sides() -> None:
    used, without = MeasuredRun(seconds=3.0, options=("compile",)), MeasuredRun(seconds=2.0)
    assert effect_of("compile", [used, without, without]) == Effect(ratio=1.5, sample_count=3)
    assert (effect_of("compile", [used]), effect_of("compile", [without]), effect_of("compile", [])) == (None,) * 3


def test_a_measured_peak_outweighs_the_rule() -> None:
    runs = (MeasuredRun(seconds=1.0, peak_device_bytes=int(7.5 * GIB)),)
    advice = ask(DeviceGoal.BALANCED, 7 * GIB, runs=runs)
    assert not uses(advice)["vae_tiling"]
    assert advice.sample_count == 1


def test_without_measurements_no_effect_is_promised() -> None:
    for goal in DeviceGoal:
        advice = ask(goal, 9 * GIB, features=("compile",))
        assert advice.expected_effects == ()
        assert advice.sample_count == 0


def test_compiling_follows_what_was_measured() -> None:
    runs = tuple(MeasuredRun(seconds=s, options=o) for s, o in ((1.0, ()), (1.0, ()), (0.5, ("compile",))))
    advice = ask(DeviceGoal.LATENCY, features=("compile",), runs=runs)
    assert uses(advice)["compile"]
    assert advice.expected_effects == (Measurement(name="time_ratio_with_compile", value=0.5, unit="1"),)
    assert advice.sample_count == 3
    assert not uses(ask(DeviceGoal.LATENCY, runs=runs))["compile"]  # it has not the feature


@pytest.mark.parametrize("goal", list(DeviceGoal))
def test_without_measured_runs_only_throughput_pays_for_the_slow_first_picture(goal: DeviceGoal) -> None:
    advice = ask(goal, features=("compile",)).options[-1]
    many = goal is DeviceGoal.THROUGHPUT
    assert (advice.option, advice.use) == ("compile", many)
    assert ("many pictures of one shape" in advice.reason) is many


def test_compiling_that_gains_nothing_is_not_advised() -> None:
    runs = tuple(MeasuredRun(seconds=1.0, options=options) for options in ((), ("compile",)))
    advice = ask(DeviceGoal.THROUGHPUT, features=("compile",), runs=runs).options[-1]
    assert (advice.option, advice.use) == ("compile", False)
    assert advice.reason.endswith("1.00 times as long as without")
    faster = (*runs, MeasuredRun(seconds=0.5, options=("compile",)))
    assert not uses(ask(DeviceGoal.MEMORY, features=("compile",), runs=faster))["compile"]


def test_offloading_costs_what_the_benchmark_says() -> None:
    median = Measurement(name="host_to_device_pinned", value=1.0 * GIB, unit="By/s")
    copy = BenchmarkResult(suite=Suite.TRANSFER, median=median, samples=(GIB,), sample_count=5, workload="")
    advice = ask(DeviceGoal.BALANCED, 9 * GIB, benchmark=(copy,))
    assert advice.expected_effects == (Measurement(name="offload_copy_of_the_model", value=9.0, unit="s"),)
    assert advice.sample_count == 5
    fits = ask(DeviceGoal.THROUGHPUT, 4 * GIB, features=("compile",), benchmark=(copy,))
    assert uses(fits)["compile"]
    assert (fits.expected_effects, fits.sample_count) == ((), 0), "a model that is not moved costs no copy"


def test_a_power_limit_is_advised_from_measured_energy_only() -> None:
    assert ask(DeviceGoal.POWER).settings.power_limit_watts is None
    runs = tuple(
        MeasuredRun(seconds=1.0, energy_joules=joules, power_limit_watts=watts)
        for watts, joules in ((None, 500.0), (300.0, 350.0), (200.0, 400.0))
    )
    advice = ask(DeviceGoal.POWER, runs=runs)
    assert advice.settings.power_limit_watts == 300.0
    assert advice.sample_count == 3
    assert ask(DeviceGoal.POWER, runs=runs[:1]).sample_count == 0, "one limit is no choice"
    assert ask(DeviceGoal.BALANCED, runs=runs).sample_count == 0, "no advice follows from them"


@pytest.mark.parametrize(
    ("goal", "reasons"),
    [
        (DeviceGoal.BALANCED, []),
        (DeviceGoal.THROUGHPUT, ["4 jobs at once is the most that it takes", UNLIMITED]),
        (DeviceGoal.LATENCY, [ALONE, UNLIMITED]),
        (DeviceGoal.MEMORY, [ALONE]),
        (DeviceGoal.POWER, ["no runs at two power limits were measured on it, so none can be advised"]),
    ],
)
def test_each_setting_that_is_advised_has_its_reason(goal: DeviceGoal, reasons: list[str]) -> None:
    limited = DeviceSettings(power_limit_watts=300.0, max_concurrent_jobs=2)
    assert ask(goal, settings=limited).rationale == "; ".join([f"goal {goal}", *reasons])


def test_a_power_limit_that_was_measured_is_the_reason_and_one_that_cannot_be_set_is_none() -> None:
    runs = tuple(
        MeasuredRun(seconds=1.0, energy_joules=joules, power_limit_watts=watts)
        for watts, joules in ((None, 500.0), (300.0, 350.0))
    )
    measured = "at 300 W a picture took 350 J, the least"
    assert ask(DeviceGoal.POWER, runs=runs).rationale == f"goal {DeviceGoal.POWER}; {measured}"
    assert measured not in ask(DeviceGoal.POWER, runs=runs, controls=("goal",)).rationale


def test_a_task_that_the_device_has_not_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        advise(device(), figures(), DeviceGoal.BALANCED, "singing", None, DeviceSettings())
    assert refused.value.violations[0].field == "task"
    assert refused.value.violations[0].allowed == "text_to_image"
    assert "it has text_to_image" in refused.value.message


def test_a_device_without_tasks_says_so() -> None:
    with pytest.raises(InvalidRequest, match="it has none"):
        advise(device(), figures(tasks=()), DeviceGoal.BALANCED, "singing", None, DeviceSettings())
