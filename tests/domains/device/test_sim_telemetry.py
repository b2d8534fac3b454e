"""What the telemetry of a simulated device tells under a load."""

import asyncio
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.device.device import Backend, Device, DeviceKind
from domains.device.sample import ThrottleReason
from domains.device.simulated.script import SimDevice, Temperature
from domains.device.simulated.telemetry import SimulatedTelemetry
from domains.device.telemetry import DeviceGone, Telemetry
from domains.device.threaded_telemetry import ThreadedTelemetry
from domains.errors import ErrorReason, InvalidRequest

DEVICE = Device(
    id="sim-0",
    aliases=(),
    display_name="Simulated",
    kind=DeviceKind.SIMULATED,
    backend=Backend.SIMULATED,
    backend_index=0,
    vendor="",
    total_memory_bytes=8 * 2**30,
    precision_support=(),
)


class Bench:
    """A simulated device's telemetry with a clock that is set by hand."""

    def __init__(self, sim_device: SimDevice) -> None:
        self.script: SimDevice | None = sim_device
        self.now_s = 0.0
        self.telemetry = SimulatedTelemetry(lambda _: self.script, lambda: self.now_s, lambda: 1000 + self.now_s)

    def sample_at(self, now_s: float):
        self.now_s = now_s
        return self.telemetry.sample(DEVICE)


@pytest.fixture
def bench() -> Bench:
    return Bench(SimDevice(id="sim-0"))


def test_an_idle_device_is_cool_and_tells_that_it_idles(bench: Bench) -> None:
    sample = bench.sample_at(5)
    assert (sample.utilization_ratio, sample.temperature_celsius, sample.power_watts) == (0, 35, 20)
    assert sample.throttle_reasons == (ThrottleReason.IDLE,)
    assert sample.time_s == 1005
    assert sample.power_limit_watts == 250


def test_memory_is_the_runtime_and_what_the_worker_holds(bench: Bench) -> None:
    bench.telemetry.holds("sim-0", 1000)
    sample = bench.sample_at(0)
    assert sample.used_memory_bytes == 256 * 2**20 + 1000
    assert sample.total_memory_bytes == 8 * 2**30


def test_a_load_heats_it_and_its_end_cools_it(bench: Bench) -> None:
    bench.telemetry.load("sim-0", 2)
    assert bench.sample_at(0).utilization_ratio == 1
    assert bench.sample_at(30).temperature_celsius == pytest.approx(70 - 35 * 0.05, abs=0.1)
    hot = bench.sample_at(1000)
    assert hot.temperature_celsius == pytest.approx(70)
    assert hot.power_watts == pytest.approx(200)
    bench.telemetry.load("sim-0", 0)
    assert bench.sample_at(1000).temperature_celsius == pytest.approx(70)
    cool = bench.sample_at(1030)
    assert cool.temperature_celsius == pytest.approx(35 + 35 * 0.05, abs=0.1)
    assert cool.power_watts == pytest.approx(20)
    assert cool.utilization_ratio == 0


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 2)), max_size=20))
def test_temperature_stays_between_idle_and_loaded_and_follows_the_load(changes: list[tuple[float, int]]) -> None:
    bench = Bench(SimDevice(id="sim-0"))
    last = 35.0
    running = 0
    for pause_s, after in changes:
        sample = bench.sample_at(bench.now_s + pause_s)
        assert sample.temperature_celsius is not None
        assert 35 - 1e-9 <= sample.temperature_celsius <= 70 + 1e-9
        assert sample.temperature_celsius >= last - 1e-9 if running else sample.temperature_celsius <= last + 1e-9
        last, running = sample.temperature_celsius, after
        bench.telemetry.load("sim-0", running)


def test_asking_often_changes_nothing(bench: Bench) -> None:
    other = Bench(SimDevice(id="sim-0"))
    for one in (bench, other):
        one.telemetry.load("sim-0", 1)
    for tenth in range(100):
        bench.sample_at(tenth / 10)
    assert bench.sample_at(10) == other.sample_at(10)


def test_the_power_follows_within_half_a_second(bench: Bench) -> None:
    bench.telemetry.load("sim-0", 1)
    assert bench.sample_at(0).power_watts == 20
    assert bench.sample_at(0.25).power_watts == pytest.approx(200 - 180 * math.exp(-1.5))
    assert bench.sample_at(0.5).power_watts == pytest.approx(200 - 180 * math.exp(-3))


def test_a_device_without_inertia_is_hot_at_once() -> None:
    bench = Bench(SimDevice(id="sim-0", temperature=Temperature(heating_s=0)))
    bench.telemetry.load("sim-0", 1)
    assert bench.sample_at(0).temperature_celsius == 70


def test_a_power_limit_holds_the_power_down_and_says_so(bench: Bench) -> None:
    bench.telemetry.load("sim-0", 1)
    bench.telemetry.set_power_limit(DEVICE, 150)
    sample = bench.sample_at(60)
    assert (sample.power_watts, sample.power_limit_watts) == (150, 150)
    assert sample.throttle_reasons == (ThrottleReason.POWER_LIMIT,)
    bench.telemetry.set_power_limit(DEVICE, None)
    sample = bench.sample_at(60)
    assert (sample.power_limit_watts, sample.throttle_reasons) == (250, ())


def test_a_limit_that_is_just_enough_throttles_nothing(bench: Bench) -> None:
    bench.telemetry.load("sim-0", 1)
    bench.telemetry.set_power_limit(DEVICE, 200)
    sample = bench.sample_at(1000)
    assert (sample.power_watts, sample.throttle_reasons) == (200, ())
    bench.telemetry.restore(DEVICE)
    assert bench.sample_at(1000).power_limit_watts == 250


@pytest.mark.parametrize("watts", [99.9, 250.1, -1, float("nan"), float("inf")])
def test_a_power_limit_outside_the_range_is_refused_and_the_old_one_holds(bench: Bench, watts: float) -> None:
    bench.telemetry.set_power_limit(DEVICE, 120)
    with pytest.raises(InvalidRequest) as refused:
        bench.telemetry.set_power_limit(DEVICE, watts)
    assert refused.value.violations[0].allowed == "100..250"
    assert bench.sample_at(0).power_limit_watts == 120


def test_the_range_and_the_controls_are_told(bench: Bench) -> None:
    told = bench.telemetry.power_range(DEVICE)
    assert told is not None
    assert (told.least_watts, told.most_watts, told.default_watts) == (100, 250, 250)
    assert {"power_limit_watts", "max_temperature_celsius", "enabled"} <= set(bench.telemetry.controls(DEVICE))


@pytest.mark.parametrize("script", [None, SimDevice(id="sim-0", present=False)])
def test_a_device_that_is_pulled_out_is_gone(bench: Bench, script: SimDevice | None) -> None:
    bench.script = script
    with pytest.raises(DeviceGone) as gone:
        bench.sample_at(0)
    assert gone.value.reason is ErrorReason.DEVICE_LOST
    with pytest.raises(DeviceGone):
        bench.telemetry.set_power_limit(DEVICE, 150)


def test_a_device_that_is_lost_while_it_works_comes_back_idle(bench: Bench) -> None:
    there = bench.script
    bench.telemetry.load("sim-0", 1)
    bench.script = None
    bench.telemetry.load("sim-0", 0)
    bench.script = there
    assert bench.sample_at(0).utilization_ratio == 0


def test_an_edited_script_is_seen_at_once(bench: Bench) -> None:
    assert bench.script is not None
    bench.script = msgspec.structs.replace(bench.script, memory_bytes=2**30, temperature=Temperature(idle_celsius=50))
    sample = bench.sample_at(0)
    assert (sample.total_memory_bytes, sample.temperature_celsius) == (2**30, 50)


async def test_it_is_a_telemetry_for_the_event_loop(bench: Bench) -> None:
    telemetry: Telemetry = bench.telemetry
    threaded = ThreadedTelemetry(telemetry)
    try:
        samples = await asyncio.gather(*(threaded.sample(DEVICE) for _ in range(3)))
        assert {sample.temperature_celsius for sample in samples} == {35}
    finally:
        threaded.close()
