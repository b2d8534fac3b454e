"""What a generation would cost is told of the device that would run it: its memory, its time, and whether it may begin."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from domains.device.settings import DeviceSettings
from domains.inference.fallback import Fallback
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.resolution.resolve import resolve
from domains.model import component_headers
from domains.model.model import Model
from domains.model.weight_file import open_judged
from domains.processing.devices.step_times import StepTimes
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import LoadWork
from domains.processing.memory.generation_plan import GenerationForecast, GenerationPlans
from domains.processing.memory.run_times import RunTimes
from tests.domains.processing.memory.test_estimates import Forecasts

FIRST = JobOptions(device_ids=("sim-0",))
TOTAL = 100_000_000


class Planning(Forecasts):
    """A device with a pool of 100 MB, one without a pool, and the plans of a picture."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        runs = RunTimes(self.jobs, self.board.lanes, StepTimes(self.jobs, self.board.lanes))
        lanes, queue = self.board.lanes, self.board.queue
        self.plans = GenerationPlans(self.estimates, runs, self.catalogue, self.loaded, lanes, queue)

    @property
    def resolved(self) -> ResolvedGeneration:
        asked = Generation(prompt="an owl", width_px=64, height_px=64)
        return resolve(asked, self.catalogue.default())

    def wait_for(self, device_id: str) -> None:
        """A job that waits for a device."""
        self.jobs.submit(LoadWork(model_id="m"), JobOptions(device_ids=(device_id,)))

    async def plan(self, options: JobOptions = FIRST) -> GenerationForecast:
        found = await self.plans.of(self.resolved, options)
        assert found is not None
        return found


@pytest.fixture
def planning(tmp_path: Path) -> Iterator[Planning]:
    planning = Planning(tmp_path)
    yield planning
    planning.database.close()


async def test_a_device_with_room_and_nothing_to_do_begins_at_once(planning: Planning) -> None:
    plan = await planning.plan()
    assert (plan.estimate.device.id, plan.estimate.shortfall_bytes) == ("sim-0", 0)
    assert plan.starts_at_once
    assert plan.later_bytes == ()
    assert (plan.peak_bytes, plan.run.run_s) == (None, None), "nothing was measured"


async def test_a_device_that_jobs_wait_for_does_not_begin_at_once(planning: Planning) -> None:
    planning.draining.begin()
    planning.wait_for("sim-1")
    assert (await planning.plan()).starts_at_once, "what waits for another device is not before it"
    planning.wait_for("sim-0")
    assert not (await planning.plan()).starts_at_once


async def test_a_device_without_a_free_place_does_not_begin_at_once(planning: Planning) -> None:
    lane = planning.board.lanes.of("sim-0")
    assert lane is not None
    async with planning.board.lanes.turn(lane, alone=True):
        assert not (await planning.plan()).starts_at_once
    assert (await planning.plan()).starts_at_once


async def test_the_first_device_that_has_room_is_told(planning: Planning) -> None:
    """Their order is the dispatcher's."""
    whole = JobOptions(fallback=Fallback(allow_offload=False))
    assert (await planning.plan(whole)).estimate.device.id == "sim-0"
    planning.bench.source.others = TOTAL
    assert (await planning.plan(whole)).estimate.device.id == "sim-1"


async def test_where_no_memory_suffices_parts_wait_on_the_host_if_the_job_permits_it(planning: Planning) -> None:
    need = (await planning.plan()).estimate.weights_bytes
    planning.bench.source.others = TOTAL - need + 1
    plan = await planning.plan()
    assert plan.estimate.shortfall_bytes == 0
    assert plan.estimate.weights_bytes < need
    for fallback in (Fallback(allow_offload=False), Fallback(max_attempts=0)):
        missing = await planning.plan(JobOptions(device_ids=("sim-0",), fallback=fallback))
        assert (missing.estimate.weights_bytes, missing.estimate.shortfall_bytes) == (need, 1)


async def test_what_does_not_even_fit_in_parts_is_told_with_what_is_missing(planning: Planning) -> None:
    need = (await planning.plan()).estimate.weights_bytes
    planning.bench.source.others = TOTAL
    assert (await planning.plan()).estimate.shortfall_bytes == need


async def test_headers_that_a_plan_of_layers_needs_are_read_beside_the_event_loop(
    planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set[threading.Thread]()

    def opening(model: Model, path: str) -> BinaryIO:
        threads.add(threading.current_thread())
        return open_judged(model, path)

    monkeypatch.setattr(component_headers, "open_judged", opening)
    planning.bench.source.others = TOTAL
    await planning.plan()
    assert threads
    assert threading.main_thread() not in threads


async def test_without_a_device_that_takes_work_there_is_no_plan(planning: Planning) -> None:
    planning.devices.set_settings("sim-0", DeviceSettings(enabled=False))
    assert await planning.plans.of(planning.resolved, FIRST) is None


async def test_the_peak_is_what_stays_and_what_comes(planning: Planning) -> None:
    planning.learn(peak=5000)
    plan = await planning.plan()
    assert plan.estimate.activation_bytes is not None
    assert plan.peak_bytes == plan.estimate.weights_bytes + plan.estimate.activation_bytes
