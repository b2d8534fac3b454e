"""The time of a generation is forecast from runs that were measured, and from nothing else."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from domains.inference.generation import Generation, ResolvedGeneration, Sampling
from domains.inference.hires import HiresPass
from domains.inference.image_fit import ImageFit
from domains.inference.init_image import ResolvedInitImage
from domains.inference.outcome import RunFinished
from domains.inference.resolution.resolve import resolve
from domains.processing.devices.step_times import StepTimes
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import JobState
from domains.processing.memory.run_times import RunForecast, RunTimes
from domains.progress import Receipt, Stage, StageTiming
from tests.domains.processing.dispatch_bench import DispatchBench

DEVICE_ID = "gpu-1a2b3c4d"


class Measuring(DispatchBench):
    """A device whose times the test says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.runs = RunTimes(self.jobs, self.board.lanes, StepTimes(self.jobs, self.board.lanes))

    def resolved(self, edge_px: int = 512, steps: int = 10, strength: float | None = None) -> ResolvedGeneration:
        asked = Generation(prompt="an owl", width_px=edge_px, height_px=edge_px, sampling=Sampling(steps=steps))
        plain = resolve(asked, self.catalogue.default())
        if strength is None:
            return plain
        start = ResolvedInitImage(blob_id="b-1", sha256="0" * 64, strength=strength, fit=ImageFit.COVER)
        return msgspec.structs.replace(plain, init_image=start)

    async def measure(self, step_s: float, rest_s: float, edge_px: int = 512, steps: int = 10) -> None:
        resolved = self.resolved(edge_px, steps)
        work = GenerateWork(asked=Generation(prompt="an owl"), resolved=resolved)
        job_id = self.jobs.submit(work, JobOptions())[0].id
        await self.at_work(job_id)
        timings = (
            StageTiming(stage=Stage.LOADING, wall_s=100.0),
            StageTiming(stage=Stage.COMPILING, wall_s=100.0),
            StageTiming(stage=Stage.DENOISING, wall_s=step_s * steps),
            StageTiming(stage=Stage.DECODING, wall_s=rest_s),
        )
        self.worker.answers[job_id].put_nowait(RunFinished(receipt=Receipt(timings=timings, steps_executed=steps)))
        await self.until(job_id, JobState.SUCCEEDED)
        await self.dispatcher.idle()

    def forecast(self, resolved: ResolvedGeneration) -> RunForecast:
        return self.runs.forecast(DEVICE_ID, resolved)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Measuring]:
    bench = Measuring(tmp_path)
    yield bench
    bench.database.close()


async def test_nothing_measured_means_no_forecast(bench: Measuring) -> None:
    told = bench.forecast(bench.resolved())
    assert (told.run_s, told.low_s, told.high_s, told.sample_count) == (None, None, None, 0)


async def test_steps_count_by_their_number_and_the_rest_by_the_pixels(bench: Measuring) -> None:
    await bench.measure(1.0, 4.0)
    await bench.measure(4.0, 16.0, edge_px=1024)
    assert bench.forecast(bench.resolved(steps=30)).run_s == pytest.approx(30 + 4)
    assert bench.forecast(bench.resolved(edge_px=1024, steps=2)).run_s == pytest.approx(8 + 16)
    assert bench.forecast(bench.resolved()).sample_count == 2


async def test_from_a_picture_only_the_computed_steps_count(bench: Measuring) -> None:
    await bench.measure(1.0, 4.0)
    assert bench.forecast(bench.resolved(steps=10, strength=0.25)).run_s == pytest.approx(3 + 4)


async def test_a_second_pass_counts_with_the_steps_of_its_size(bench: Measuring) -> None:
    asked = Generation(
        prompt="an owl",
        width_px=256,
        height_px=256,
        sampling=Sampling(steps=10),
        hires_pass=HiresPass(scale=2.0, strength=0.5, steps=8),
    )
    twice = resolve(asked, bench.catalogue.default())
    await bench.measure(1.0, 4.0, edge_px=256)
    told = bench.forecast(twice)
    assert (told.run_s, told.low_s) == (None, pytest.approx(10 + 4 * 4 + 16)), "four times as many pixels"
    await bench.measure(5.0, 16.0)
    assert bench.forecast(twice).run_s == pytest.approx(10 + 4 * 5 + 16)


async def test_a_size_beyond_all_measured_ones_has_only_a_lower_bound(bench: Measuring) -> None:
    await bench.measure(1.0, 4.0)
    told = bench.forecast(bench.resolved(edge_px=1024))
    assert (told.run_s, told.low_s) == (None, pytest.approx(40 + 16))


async def test_the_range_is_that_of_the_runs_that_were_forecast(bench: Measuring) -> None:
    for rest_s in (4.0, 4.0, 9.0):
        assert bench.forecast(bench.resolved()).high_s is None
        await bench.measure(1.0, rest_s)
    await bench.measure(1.0, 2.0)
    told = bench.forecast(bench.resolved())
    assert told.run_s == pytest.approx(10 + 4)
    assert (told.low_s, told.high_s) == (pytest.approx(12), pytest.approx(19))


@pytest.mark.parametrize(
    ("rests", "low_s", "high_s"), [((4, 5, 6, 7), 15.5, 15.5 * 17 / 15), ((7, 6, 5, 4), 15.5 * 14 / 16, 15.5)]
)
async def test_the_range_holds_the_forecast_where_all_runs_took_longer_or_less_long(
    bench: Measuring, rests: tuple[float, ...], low_s: float, high_s: float
) -> None:
    for rest_s in rests:
        await bench.measure(1.0, rest_s)
    told = bench.forecast(bench.resolved())
    assert told.run_s == pytest.approx(15.5)
    assert (told.low_s, told.high_s) == (pytest.approx(low_s), pytest.approx(high_s))
