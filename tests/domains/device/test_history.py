"""The history of a device: what was measured, folded as each figure asks for, and nothing made up."""

import pytest

from domains.device.history import DeviceHistory
from domains.device.sample import DeviceSample, ThrottleReason
from domains.rings import MAX_SAMPLES

BEGIN = 600_000.0
HOUR, DAY = 3600, 24 * 3600


def sample(second: float, **figures: float) -> DeviceSample:
    return DeviceSample(time_s=BEGIN + second, **figures)  # pyright: ignore[reportArgumentType]  # numbers only


def recorded(*samples: DeviceSample) -> DeviceHistory:
    history = DeviceHistory()
    for each in samples:
        history.add(each)
    return history


def test_two_seconds_are_told_apart() -> None:
    history = recorded(*(sample(second, power_watts=float(second)) for second in range(0, 60, 2)))
    view = history.query(BEGIN, BEGIN + 58, 2)
    assert view.step_s == 2
    assert [(step.time_s, step.figures()) for step in view.steps] == [
        (BEGIN + second, {"power_watts": float(second)}) for second in range(0, 60, 2)
    ]


def test_a_longer_step_means_what_fluctuates_and_keeps_what_is_to_be_watched() -> None:
    figures = (
        {"utilization_ratio": 0.0, "used_memory_bytes": 5, "temperature_celsius": 40.0, "power_limit_watts": 300.0},
        {"utilization_ratio": 1.0, "used_memory_bytes": 9, "temperature_celsius": 80.0, "power_limit_watts": 200.0},
        {"utilization_ratio": 0.5, "used_memory_bytes": 7, "temperature_celsius": 60.0, "power_limit_watts": 300.0},
    )
    history = recorded(*(sample(2 * place, **each) for place, each in enumerate(figures)))
    (step,) = history.query(BEGIN, BEGIN + 4, 6).steps
    assert step.sample_count == 3
    assert step.figures() == pytest.approx(
        {"utilization_ratio": 0.5, "used_memory_bytes": 9, "temperature_celsius": 80.0, "power_limit_watts": 200.0}
    )


def test_a_figure_that_was_not_told_weighs_nothing_in_the_mean() -> None:
    history = recorded(
        sample(0, power_watts=100.0),
        sample(2, utilization_ratio=1.0),
        sample(4, power_watts=200.0, utilization_ratio=0.0),
    )
    (step,) = history.query(BEGIN, BEGIN + 4, 10).steps
    assert step.figures() == {"power_watts": 150.0, "utilization_ratio": 0.5}


def test_a_time_without_measurements_is_a_gap_and_no_zero() -> None:
    history = recorded(sample(0, clock_mhz=1000), sample(2), sample(6, clock_mhz=2000))
    told = [(step.sample_count, step.figures()) for step in history.query(BEGIN, BEGIN + 6).steps]
    assert told == [(1, {"clock_mhz": 1000}), (0, {}), (0, {}), (1, {"clock_mhz": 2000})]


def test_every_reason_of_a_step_is_told() -> None:
    hot, idle = ThrottleReason.TEMPERATURE, ThrottleReason.IDLE
    samples = [
        DeviceSample(time_s=BEGIN + place, clock_mhz=1, throttle_reasons=reasons)
        for place, reasons in enumerate([(hot,), (), (idle, hot)])
    ]
    (step,) = recorded(*samples).query(BEGIN, BEGIN + 3, 4).steps
    assert step.throttle_reasons == {hot, idle}


def test_nothing_is_told_from_before_the_first_measurement() -> None:
    history = recorded(sample(0, clock_mhz=1))
    view = history.query(BEGIN - DAY, BEGIN + 3)
    assert view.begin_s == BEGIN
    assert view.steps[0].time_s == BEGIN
    empty = DeviceHistory().query(None, BEGIN)
    assert (empty.steps, empty.begin_s, empty.total_memory_bytes) == ((), None, None)


def test_an_hour_is_fine_a_day_is_coarse_and_nothing_grows() -> None:
    history = DeviceHistory()
    for second in range(0, 2 * DAY, 20):
        history.add(sample(second, temperature_celsius=99.0 if second == DAY + 7000 else 50.0))
    end = BEGIN + 2 * DAY
    day = history.query(BEGIN, end)
    assert len(day.steps) <= MAX_SAMPLES
    assert day.step_s == 120
    assert day.steps[0].time_s >= BEGIN + DAY - 700
    assert max(step.figures().get("temperature_celsius", 0) for step in day.steps) == 99.0
    recent = history.query(end - 1800, end, 2)
    assert recent.step_s == 2
    assert len(recent.steps) <= MAX_SAMPLES


def test_the_step_of_this_moment_is_measured_once() -> None:
    history = recorded(sample(4, clock_mhz=1))
    assert not history.lacks(BEGIN + 5.9)
    assert history.lacks(BEGIN + 6)
    assert DeviceHistory().lacks(0.0)


def test_without_a_start_it_is_the_last_hour() -> None:
    history = recorded(*(sample(second, clock_mhz=1) for second in (2, 4, 3604)))
    assert history.query(None, BEGIN + 3604).steps[0].time_s == BEGIN + 4
