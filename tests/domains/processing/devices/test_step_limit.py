"""A size that would block a device is refused by what was measured there, and by nothing else."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from domains.device.device import Device, DeviceKind, DeviceState
from domains.errors import InvalidRequest
from domains.inference.generation import Generation, ResolvedGeneration, Sampling
from domains.inference.outcome import RunFinished
from domains.inference.resolution.resolve import resolve
from domains.processing.attempts.attempt import AttemptTools
from domains.processing.devices.step_limit import StepLimit
from domains.processing.devices.step_times import StepTimes
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import DeviceWork, GenerateWork
from domains.processing.jobs.state import JobState
from domains.processing.workers.silence import Silences
from domains.progress import Progressed, Receipt, Stage, StageTiming, Unit
from tests.domains.device.test_devices import a_device
from tests.domains.processing.dispatch_bench import DispatchBench

DEVICE_ID = "gpu-1a2b3c4d"
LIMIT_S = 120.0
STEPS = 10
SILENCE_S = 15.0


class Measuring(DispatchBench):
    """A device whose step times the test says."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1000.0
        super().__init__(folder)
        self.times = StepTimes(self.jobs, self.board.lanes)
        self.limit = StepLimit(self.times, self.devices, LIMIT_S)

    def _tools(self) -> AttemptTools:
        self.silences = Silences(self.devices, SILENCE_S, clock=lambda: self.now_s)
        return dataclasses.replace(super()._tools(), silences=self.silences, silent_s=self._silent_s)

    def _silent_s(self, device: Device, work: DeviceWork) -> float | None:
        # The times do not exist yet when the tools are made.
        return self.times.silent_s(device, work)

    def after(self, seconds: float) -> DeviceState:
        self.now_s += seconds
        self.silences.judge(DEVICE_ID)
        return self.devices.get(DEVICE_ID).state

    def of_size(self, edge_px: int, guidance: float = 7.5) -> ResolvedGeneration:
        asked = Generation(
            prompt="an owl",
            width_px=edge_px,
            height_px=edge_px,
            sampling=Sampling(steps=STEPS, guidance_scale=guidance),
        )
        return resolve(asked, self.catalogue.default())

    def start(self, edge_px: int) -> str:
        asked = Generation(prompt="an owl", width_px=edge_px, height_px=edge_px, sampling=Sampling(steps=STEPS))
        work = GenerateWork(asked=asked, resolved=resolve(asked, self.catalogue.default()))
        return self.jobs.submit(work, JobOptions())[0].id

    async def end(self, job_id: str, step_s: float, *, device_s: float | None = None) -> None:
        await self.at_work(job_id)
        timing = StageTiming(stage=Stage.DENOISING, wall_s=step_s * STEPS, device_s=device_s)
        self.worker.answers[job_id].put_nowait(RunFinished(receipt=Receipt(timings=(timing,), steps_executed=STEPS)))
        await self.until(job_id, JobState.SUCCEEDED)

    async def measure(self, edge_px: int, step_s: float) -> None:
        await self.end(self.start(edge_px), step_s)
        await self.dispatcher.idle()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Measuring]:
    bench = Measuring(tmp_path)
    yield bench
    bench.database.close()


def seconds(bench: Measuring, edge_px: int) -> float:
    estimate = bench.times.estimate(DEVICE_ID, bench.of_size(edge_px))
    assert estimate is not None
    return estimate.seconds


async def test_nothing_measured_means_no_estimate_and_no_refusal(bench: Measuring) -> None:
    assert bench.times.estimate(DEVICE_ID, bench.of_size(4096)) is None
    bench.limit.check(bench.of_size(4096), JobOptions())


async def test_one_size_gives_a_lower_bound(bench: Measuring) -> None:
    await bench.measure(512, 1.0)
    estimate = bench.times.estimate(DEVICE_ID, bench.of_size(1024))
    assert estimate is not None
    assert (estimate.seconds, estimate.at_least) == (pytest.approx(4.0), True)
    assert seconds(bench, 512) == pytest.approx(1.0)


async def test_two_sizes_tell_how_the_time_grows(bench: Measuring) -> None:
    # 1 s linear and 0.25 s quadratic at 512 px.
    await bench.measure(512, 1.25)
    await bench.measure(1024, 8.0)
    assert seconds(bench, 2048) == pytest.approx(16 + 0.25 * 256)
    estimate = bench.times.estimate(DEVICE_ID, bench.of_size(2048))
    assert estimate is not None
    assert not estimate.at_least


async def test_a_step_without_guidance_takes_half(bench: Measuring) -> None:
    await bench.measure(512, 1.0)
    estimate = bench.times.estimate(DEVICE_ID, bench.of_size(512, guidance=1.0))
    assert estimate is not None
    assert estimate.seconds == pytest.approx(0.5)


async def test_the_usual_step_is_that_of_the_models_own_guidance_for_each_picture(bench: Measuring) -> None:
    model = bench.catalogue.default()
    assert bench.times.usual(DEVICE_ID, model, 512, 512, 1) is None
    await bench.measure(512, 1.0)
    for images in (1, 3):
        usual = bench.times.usual(DEVICE_ID, model, 512, 512, images)
        assert usual is not None
        assert usual.seconds == pytest.approx(images)


async def test_the_shortest_measured_step_counts(bench: Measuring) -> None:
    for step_s in (3.0, 1.0, 2.0):
        await bench.measure(512, step_s)
    assert seconds(bench, 512) == pytest.approx(1.0)


async def test_a_step_that_shared_its_device_is_no_measurement(bench: Measuring) -> None:
    first, second = bench.start(512), bench.start(512)
    await bench.at_work(first, second)
    await bench.end(first, 5.0)
    assert bench.times.estimate(DEVICE_ID, bench.of_size(512)) is None
    # The device's own clock counts the job's work alone.
    await bench.end(second, 5.0, device_s=2.0 * STEPS)
    assert seconds(bench, 512) == pytest.approx(2.0)


async def test_a_refusal_names_field_estimate_and_remedy(bench: Measuring) -> None:
    await bench.measure(512, 2.0)
    bench.limit.check(bench.of_size(2048), JobOptions())
    with pytest.raises(InvalidRequest) as told:
        bench.limit.check(bench.of_size(4096), JobOptions())
    [violation] = told.value.violations
    assert violation.field == "generation.width_px"
    assert violation.allowed == "a step of at most 2.0 min"
    assert f"one step of 4096×4096 px takes at least 2.1 min on {DEVICE_ID}" in violation.message
    assert "set options.run_timeout to 21.3 min or more" in violation.message
    assert told.value.facts["estimated_step_s"] == "128.0"


async def test_a_time_limit_for_the_whole_run_is_consent(bench: Measuring) -> None:
    await bench.measure(512, 2.0)
    bench.limit.check(bench.of_size(4096), JobOptions(run_timeout_s=128.0 * STEPS))
    with pytest.raises(InvalidRequest):
        bench.limit.check(bench.of_size(4096), JobOptions(run_timeout_s=127.0 * STEPS))


async def test_a_step_that_takes_just_the_limit_is_taken(bench: Measuring) -> None:
    await bench.measure(512, 2.0)
    limit = StepLimit(bench.times, bench.devices, seconds(bench, 4096))
    limit.check(bench.of_size(4096), JobOptions())


async def test_a_device_without_measurements_is_given_a_try(bench: Measuring) -> None:
    await bench.measure(512, 2.0)
    with pytest.raises(InvalidRequest):
        bench.limit.check(bench.of_size(4096), JobOptions())
    other = a_device("gpu-2", aliases=("cuda:1",))
    bench.devices.described("cuda:1", other, bench.devices.get(DEVICE_ID).reach, ready=True)
    bench.limit.check(bench.of_size(4096), JobOptions())
    with pytest.raises(InvalidRequest):
        bench.limit.check(bench.of_size(4096), JobOptions(device_ids=("cuda:0",)))


async def test_a_larger_size_is_silent_when_its_estimated_step_is_overdue(bench: Measuring) -> None:
    """The device has shown gaps of a small size alone; the first step of a larger one is not told as a hang."""
    await bench.measure(512, 10.0)
    job_id = bench.start(1024)
    await bench.at_work(job_id)
    begun = Progressed(stage=Stage.DENOISING, completed=0, total=STEPS, unit=Unit.STEPS)
    bench.worker.answers[job_id].put_nowait(begun)
    await bench.jobs.live(job_id).journal.more(bench.jobs.live(job_id).journal.last_sequence, 5.0)
    assert bench.after(40 + SILENCE_S - 0.1) is DeviceState.BUSY
    assert bench.after(0.2) is DeviceState.DEGRADED
    bench.worker.answers[job_id].put_nowait(RunFinished(receipt=Receipt()))
    await bench.dispatcher.idle()


async def test_a_cpu_shows_life_inside_its_steps(bench: Measuring) -> None:
    await bench.measure(512, 10.0)
    work = bench.job(bench.start(512)).work
    assert bench.times.silent_s(bench.worker.device, work) == pytest.approx(10.0)
    cpu = msgspec.structs.replace(bench.worker.device, kind=DeviceKind.CPU)
    assert bench.times.silent_s(cpu, work) is None
