"""The engine on simulated hardware: scripted memory, time and faults."""

import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from domains.device.health import HealthDepth, Verdict
from domains.device.on_device.health_check import run_checks
from domains.device.simulated.fault_counts import FaultCounts
from domains.device.simulated.faults import (
    Crash,
    DriverError,
    Fault,
    HungStep,
    Leak,
    NotFinite,
    OutOfMemory,
    SlowLoad,
    WrongResult,
)
from domains.device.simulated.script import SimDevice
from domains.errors import ErrorReason, ResourceExhausted
from domains.inference.fallback import Fallback
from domains.inference.given import Given
from domains.inference.on_device import StepLoop
from domains.inference.on_device.families.family import KeepOn, StepRows
from domains.inference.on_device.families.sd1 import Sd1
from domains.inference.on_device.hardware import Mark
from domains.inference.on_device.pace import MOST_ROWS, Sizes
from domains.inference.on_device.simulated import SimulatedHardware
from domains.inference.on_device.simulated.device_clock import DeviceClock, TimedFence
from domains.inference.outcome import ImageReady, Report, RunFailed, RunFinished, RunStopped
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.model.execution import Execution
from domains.model.model import Model
from domains.progress import Progressed, Stage, StageStarted
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import bring
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_model import weight_files, write_tiny_model

ROOM = 64 * 2**20
RUNTIME = 2**20
CANCEL = Stop(kind=StopKind.CANCEL, cause="not wanted")
RUN_ENDS = (RunFinished, RunFailed, RunStopped)


@dataclass
class Sim:
    """A step loop on a simulated device, and the front's counts of faults."""

    device: SimDevice
    reports: list[tuple[str, Report]] = field(default_factory=list[tuple[str, Report]])
    struck: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    on_report: Callable[[str, Report], None] = lambda job_id, report: None
    stop_of: Callable[[str], Stop | None] = lambda job_id: None
    """What the step loop asks within a step."""

    def __post_init__(self) -> None:
        self.counts = FaultCounts()
        self.restart()

    def restart(self) -> None:
        """The worker's next life."""
        self.hardware = SimulatedHardware(self.counts.setup(self.device), self._struck)
        self.loop = StepLoop("cpu", self._take, hardware=self.hardware, stop_of=lambda job_id: self.stop_of(job_id))

    def _struck(self, index: int, job_id: str) -> None:
        self.struck.append((index, job_id))
        self.counts.count_strike(self.device, index)

    def _take(self, job_id: str, report: Report) -> None:
        self.reports.append((job_id, report))
        self.on_report(job_id, report)

    def run(self, model: Model, job_id: str, steps: int = 3) -> Report:
        """A job, to its last report."""
        self.loop.submit(job_id, Given(model, request(model, steps=steps)))
        while self.loop.tick():
            pass
        return self.reports[-1][1]

    def file(self, job_id: str) -> bytes:
        return next(report.data for name, report in self.reports if name == job_id and isinstance(report, ImageReady))

    def measure(self) -> MemoryMeasure:
        """As `domains.processing.on_device.device_orders` asks."""
        models = [
            MemoryOwner(kind=OwnerKind.LOADED_MODEL, id=name, live_bytes=size)
            for name, size in self.loop.resources.model_bytes().items()
        ]
        jobs = [
            MemoryOwner(kind=OwnerKind.JOB, id=name, live_bytes=size) for name, size in self.loop.job_bytes().items()
        ]
        cache = MemoryOwner(kind=OwnerKind.CACHE, id="prompts", live_bytes=self.loop.resources.prompt_bytes())
        return self.hardware.measured(MemoryMeasure(time_s=1.0, owners=(*models, *jobs, cache)))


Simulate = Callable[..., Sim]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    made: list[Sim] = []

    def make(*faults: Fault, memory: int = ROOM, speed: float = 1.0) -> Sim:
        device = SimDevice(id="sim-0", memory_bytes=memory, runtime_bytes=RUNTIME, speed=speed, faults=faults)
        made.append(Sim(device))
        return made[-1]

    yield make
    for sim in made:
        sim.loop.close()


def test_without_faults_the_pictures_are_those_of_the_cpu(simulate: Simulate, tiny: Model) -> None:
    sim = simulate()
    assert isinstance(sim.run(tiny, "a"), RunFinished)
    real: list[Report] = []
    loop = StepLoop("cpu", lambda _, report: real.append(report))
    loop.submit("a", Given(tiny, request(tiny, steps=3)))
    while loop.tick():
        pass
    loop.close()
    assert sim.file("a") == next(report.data for report in real if isinstance(report, ImageReady))


def test_out_of_memory_at_a_step_ends_that_job_and_the_next_one_works(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(OutOfMemory(at_step=2, times=1))
    bring(sim.loop, tiny)
    before = sim.measure()
    end = sim.run(tiny, "a")
    assert isinstance(end, RunFailed)
    assert end.reason == ErrorReason.DEVICE_OUT_OF_MEMORY
    assert int(end.facts["needed_bytes"]) > int(end.facts["available_bytes"])
    assert end.receipt.steps_executed == 1
    assert sim.struck == [(0, "a")]
    sim.loop.resources.forget_prompts()
    assert sim.measure().live_bytes == before.live_bytes
    assert isinstance(sim.run(tiny, "b"), RunFinished)


def test_a_model_that_does_not_fit_is_loaded_in_half_the_bytes_if_the_job_permits_it(
    simulate: Simulate, tiny: Model
) -> None:
    roomy = simulate()
    bring(roomy.loop, tiny)
    size = sum(roomy.loop.resources.model_bytes().values())

    def made(**permits: bool) -> tuple[Sim, Report]:
        sim = simulate(memory=RUNTIME + round(0.8 * size))
        fallback = Fallback(allow_eviction=False, allow_offload=False, **permits)
        sim.loop.submit("a", Given(tiny, request(tiny, steps=1, width_px=16, height_px=16), fallback=fallback))
        while sim.loop.tick():
            pass
        return sim, sim.reports[-1][1]

    _, refused = made()
    assert isinstance(refused, RunFailed)
    assert refused.reason == ErrorReason.DEVICE_OUT_OF_MEMORY
    assert refused.facts["would_help"] == "options.fallback.allow_offload, options.fallback.allow_lower_precision"

    sim, end = made(allow_lower_precision=True)
    assert isinstance(end, RunFinished)
    (told,) = end.receipt.degradations
    assert (told.kind, told.reason) == ("lower_precision", "DEVICE_OUT_OF_MEMORY")
    assert "bfloat16" in told.detail
    assert ("a", told) in sim.reports
    assert sum(sim.loop.resources.model_bytes().values()) < 0.8 * size
    assert sim.loop.loaded(tiny.id).precision_of("unet") == "bfloat16"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OutOfMemory(at_step=2, times=1), ErrorReason.DEVICE_OUT_OF_MEMORY),
        (DriverError(at_step=2, times=1), ErrorReason.DRIVER_ERROR),
        (NotFinite(at_step=2, times=1), ErrorReason.NUMERIC_FAILURE),
    ],
)
def test_a_fault_at_a_step_is_typed_and_leaves_the_job_beside_alone(
    simulate: Simulate, tiny: Model, fault: Fault, reason: ErrorReason
) -> None:
    sim = simulate(fault)
    bring(sim.loop, tiny)
    for name in ("hit", "beside"):
        sim.loop.submit(name, Given(tiny, request(tiny, steps=4)))
    while sim.loop.tick():
        pass
    last = dict(sim.reports)
    hit = last["hit"]
    assert isinstance(hit, RunFailed)
    assert hit.reason == reason
    assert isinstance(last["beside"], RunFinished)


def test_a_fault_strikes_as_often_as_scripted_across_restarts(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(DriverError(at_step=1, times=2))
    assert isinstance(sim.run(tiny, "a"), RunFailed)
    sim.loop.close()
    sim.restart()
    assert isinstance(sim.run(tiny, "b"), RunFailed)
    assert isinstance(sim.run(tiny, "c"), RunFinished)
    sim.loop.close()
    sim.restart()
    assert isinstance(sim.run(tiny, "d"), RunFinished)


def test_a_fault_with_times_zero_strikes_every_time(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(DriverError(at_step=1, times=0))
    assert [type(sim.run(tiny, name)) for name in "abc"] == [RunFailed] * 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OutOfMemory(at_step=0, times=1), ErrorReason.DEVICE_OUT_OF_MEMORY),
        (DriverError(at_step=0, times=1), ErrorReason.DRIVER_ERROR),
    ],
)
def test_step_zero_is_the_load_of_a_model(simulate: Simulate, tiny: Model, fault: Fault, reason: ErrorReason) -> None:
    sim = simulate(fault)
    sim.loop.load("a", tiny)
    while sim.loop.tick():
        pass
    failed = sim.reports[-1][1]
    assert isinstance(failed, RunFailed)
    assert failed.reason == reason
    assert sim.struck == [(0, "a")]
    assert sim.measure().live_bytes == RUNTIME
    assert bring(sim.loop, tiny).size_bytes > 0


def test_a_model_that_does_not_fit_is_refused_and_leaves_nothing(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(memory=RUNTIME + 100_000)
    refused = sim.run(tiny, "a")
    assert isinstance(refused, RunFailed)
    facts = refused.facts
    assert refused.reason == ErrorReason.DEVICE_OUT_OF_MEMORY
    assert int(facts["needed_bytes"]) > int(facts["available_bytes"])
    measure = sim.measure()
    assert (measure.live_bytes, measure.allocation_failure_count) == (RUNTIME, 1)


def test_latents_that_do_not_fit_end_their_job(simulate: Simulate, tiny: Model) -> None:
    size = bring(simulate().loop, tiny).size_bytes
    sim = simulate(memory=RUNTIME + size + 600_000)
    assert isinstance(sim.run(tiny, "small"), RunFinished)
    sim.loop.submit("large", Given(tiny, request(tiny, steps=1, width_px=512, height_px=512)))
    while sim.loop.tick():
        pass
    end = sim.reports[-1][1]
    assert isinstance(end, RunFailed)
    assert end.reason == ErrorReason.DEVICE_OUT_OF_MEMORY
    assert isinstance(sim.run(tiny, "again"), RunFinished)


def test_memory_adds_up_while_a_job_runs(simulate: Simulate, tiny: Model) -> None:
    sim = simulate()
    seen: list[MemoryMeasure] = []

    def look(job_id: str, report: Report) -> None:
        if isinstance(report, Progressed) and report.stage is Stage.DENOISING and report.completed == 2:
            seen.append(sim.measure())

    sim.on_report = look
    sim.run(tiny, "a")
    (measure,) = seen
    assert measure.live_bytes == measure.used_bytes == sum(owner.live_bytes for owner in measure.owners)
    held = {owner.kind: owner.live_bytes for owner in measure.owners}
    assert held[OwnerKind.LOADED_MODEL] == sim.loop.loaded(tiny.id).size_bytes
    assert held[OwnerKind.RUNTIME] == RUNTIME
    assert held[OwnerKind.JOB] > 0
    assert held[OwnerKind.CACHE] > 0
    assert measure.total_bytes == ROOM
    assert measure.largest_free_block_bytes == ROOM - (measure.live_bytes or 0)


def test_blobs_hold_scripted_memory_too(simulate: Simulate) -> None:
    sim = simulate()
    sim.hardware.hold("blob a", ROOM // 2)
    with pytest.raises(ResourceExhausted):
        sim.hardware.hold("blob b", ROOM // 2)
    sim.hardware.hold("blob a", ROOM // 4)  # less is always possible
    sim.hardware.hold("blob b", ROOM // 2)
    sim.hardware.free("blob b")
    sim.hardware.free("unknown")
    sim.hardware.hold("blob c", ROOM // 2)


def test_everything_is_given_back_at_the_end(simulate: Simulate, tiny: Model) -> None:
    sim = simulate()
    sim.run(tiny, "a")
    assert sim.loop.unload_all() > 0
    assert sim.measure().live_bytes == RUNTIME
    sim.hardware.hold("all of it", ROOM - RUNTIME)


def test_a_leak_grows_with_each_job_and_belongs_to_nobody(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(Leak(bytes_per_job=5000))
    leaked: list[int] = []
    for name in "abc":
        sim.run(tiny, name)
        owners = {owner.kind: owner.live_bytes for owner in sim.measure().owners}
        leaked.append(owners[OwnerKind.UNATTRIBUTED])
    assert leaked == [5000, 10000, 15000]
    sim.loop.close()
    sim.restart()
    assert sim.measure().live_bytes == RUNTIME


def test_a_leak_ends_in_a_device_that_is_full(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(Leak(bytes_per_job=ROOM))
    assert isinstance(sim.run(tiny, "a"), RunFinished)
    end = sim.run(tiny, "b")
    assert isinstance(end, RunFailed)
    assert end.reason == ErrorReason.DEVICE_OUT_OF_MEMORY
    assert sim.measure().live_bytes == ROOM


def test_a_wrong_step_changes_the_picture_and_nobody_is_told(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(WrongResult(times=1))
    for name in ("wrong", "right", "right again"):
        assert isinstance(sim.run(tiny, name), RunFinished)
    assert sim.file("wrong") != sim.file("right") == sim.file("right again")


def test_a_health_check_finds_wrong_results(simulate: Simulate) -> None:
    def verdicts(sim: Sim) -> set[Verdict]:
        found = run_checks(torch.device("cpu"), HealthDepth.QUICK, lambda: False, sim.hardware.corrupt)
        return {check.verdict for check in found}

    assert Verdict.UNHEALTHY in verdicts(simulate(WrongResult(times=0)))
    once = simulate(WrongResult(times=1))
    assert Verdict.UNHEALTHY in verdicts(once)
    assert verdicts(once) == {Verdict.HEALTHY}
    assert once.struck == [(0, "")]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bfloat16, torch.bool])
def test_a_spoiled_result_differs_in_every_element(simulate: Simulate, dtype: torch.dtype) -> None:
    result = torch.tensor([0, 1, 0, 1]).to(dtype)
    assert bool((simulate(WrongResult()).hardware.corrupt(result) != result).all())


def test_a_slow_device_takes_its_time_and_stays_cancellable(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(speed=0.0001)
    bring(sim.loop, tiny)
    sim.loop.submit("slow", Given(tiny, request(tiny, steps=50)))
    for _ in range(5):
        assert sim.loop.tick()
    steps = [r for _, r in sim.reports if isinstance(r, Progressed) and r.stage is Stage.DENOISING and r.completed]
    assert steps == []  # the CPU is done with two, the device with none
    assert sim.loop.stop("slow", Stop(kind=StopKind.CANCEL))
    while sim.loop.tick():
        pass
    end = sim.reports[-1][1]
    assert isinstance(end, RunStopped)
    assert end.latency_s < 10


def test_a_slow_device_is_as_slow_as_scripted(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(speed=0.2)
    end = sim.run(tiny, "a", steps=4)
    assert isinstance(end, RunFinished)
    timing = next(timing for timing in end.receipt.timings if timing.stage is Stage.DENOISING)
    assert timing.device_s is not None
    assert timing.wall_s >= timing.device_s


def test_units_queue_up_on_the_devices_clock() -> None:
    now = 10.0
    clock = DeviceClock(lambda: now)
    clock.speed = 0.5
    began = clock.now_s()
    now = 11.0
    first = clock.fence(began)  # a second of the CPU: due at 12
    second = clock.fence(11.0)
    now = 12.0
    assert first.passed()
    assert first.device_s() == 2
    assert second.passed()  # took nothing
    third = clock.fence(11.5)  # begins when the device is free: 12, and takes 1
    now = 12.9
    assert not third.passed()
    now = 13.0
    assert third.passed()


def test_a_slow_load_is_slow_and_can_be_cancelled(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(SlowLoad(bytes_per_second=1))
    sim.loop.load("a", tiny)
    while not sim.loop.resources.model_bytes().get(tiny.id):
        assert sim.loop.tick()
    assert 0 < sim.loop.resources.model_bytes()[tiny.id] < sum(path.stat().st_size for path in weight_files(tiny))
    assert (sim.measure().live_bytes or 0) > RUNTIME
    assert sim.loop.stop("a", CANCEL)
    assert not sim.loop.tick()
    end = sim.reports[-1][1]
    assert isinstance(end, RunStopped)
    assert (end.stop, end.stage) == (CANCEL, Stage.LOADING)
    assert (end.freed_bytes or 0) > 0
    assert sim.measure().live_bytes == RUNTIME


def test_a_neighbour_computes_while_a_model_loads(simulate: Simulate, tiny: Model, tmp_path: Path) -> None:
    sim = simulate()
    bring(sim.loop, tiny)
    other = write_tiny_model(tmp_path / "other")
    sim.device = msgspec.structs.replace(sim.device, faults=(SlowLoad(bytes_per_second=1),))
    sim.hardware.set_up(sim.counts.setup(sim.device))
    sim.loop.load("load", other, Execution(precision="bfloat16"))  # else it shared all weights
    sim.loop.submit("beside", Given(tiny, request(tiny, steps=12)))
    while not any(isinstance(report, RunFinished) for name, report in sim.reports if name == "beside"):
        assert sim.loop.tick()
    assert not any(isinstance(report, RUN_ENDS) for name, report in sim.reports if name == "load")
    sim.loop.stop("load", CANCEL)
    assert not sim.loop.tick()


def test_jobs_of_one_model_share_its_load_and_the_last_to_leave_cancels_it(simulate: Simulate, tiny: Model) -> None:
    sim = simulate(SlowLoad(bytes_per_second=1))
    for name in ("a", "b"):
        sim.loop.submit(name, Given(tiny, request(tiny, steps=1)))
    while not sim.loop.resources.model_bytes().get(tiny.id):
        assert sim.loop.tick()
    held = sim.measure().live_bytes or 0
    sim.loop.stop("a", CANCEL)
    sim.loop.tick()
    assert (sim.measure().live_bytes or 0) >= held > RUNTIME
    sim.loop.stop("b", CANCEL)
    assert not sim.loop.tick()
    assert sim.measure().live_bytes == RUNTIME
    stages = [(name, report.stage) for name, report in sim.reports if isinstance(report, StageStarted)]
    assert stages == [("a", Stage.LOADING), ("b", Stage.LOADING)]


def test_an_edited_script_holds_for_what_comes(simulate: Simulate, tiny: Model) -> None:
    sim = simulate()
    assert isinstance(sim.run(tiny, "a"), RunFinished)
    live = sim.measure().live_bytes
    sim.device = SimDevice(
        id="sim-0", memory_bytes=ROOM * 2, runtime_bytes=RUNTIME, faults=(DriverError(at_step=1, times=1),)
    )
    sim.hardware.set_up(sim.counts.setup(sim.device))
    assert (sim.measure().total_bytes, sim.measure().live_bytes) == (ROOM * 2, live)
    assert isinstance(sim.run(tiny, "b"), RunFailed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("fault", [Crash(at_step=2, times=1), HungStep(at_step=2, times=1)])
def test_the_front_is_told_before_the_process_dies_or_hangs(fault: Fault, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    setup = FaultCounts().setup(SimDevice(id="sim-0", faults=(fault,)))
    child = os.fork()
    if child == 0:

        def struck(index: int, job_id: str) -> None:
            os.write(writer, f"{index}{job_id}".encode())

        hardware = SimulatedHardware(setup, struck)
        hardware.before_step("a", 1, lambda: 0)
        os.write(writer, b".")
        hardware.before_step("a", 2, lambda: 0)
        os._exit(0)
    os.close(writer)
    told = b""
    while len(told) < 3:
        assert select.select([reader], [], [], 20)[0]
        told += os.read(reader, 16)
    assert told == b".0a"
    if isinstance(fault, HungStep):
        assert not select.select([reader], [], [], 0.2)[0]  # it neither ends nor goes on
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_the_devices_time_is_divided_among_the_jobs_of_a_shared_step(
    simulate: Simulate, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sizes, "most_rows", MOST_ROWS)
    sim = simulate()
    sim.run(tiny, "before", steps=1)
    took: list[TimedFence] = []
    fence = sim.hardware.fence

    def kept(began: Mark) -> TimedFence:
        took.append(fence(began))
        return took[-1]

    monkeypatch.setattr(sim.hardware, "fence", kept)
    for name, guidance in (("guided", 5.0), ("plain", 1.0)):
        sim.loop.submit(name, Given(tiny, request(tiny, steps=4, guidance_scale=guidance)))
    while sim.loop.tick():
        pass
    ends = {name: report for name, report in sim.reports if isinstance(report, RunFinished)}
    seconds = {
        name: {one.stage: one.device_s or 0.0 for one in ends[name].receipt.timings} for name in ("guided", "plain")
    }
    steps, decodings = 4, 2
    assert len(took) == steps + decodings
    assert sum(sum(one.values()) for one in seconds.values()) == pytest.approx(sum(one.device_s() for one in took))
    # A guided job has twice the rows.
    assert seconds["guided"][Stage.DENOISING] == pytest.approx(2 * seconds["plain"][Stage.DENOISING])


def test_a_job_that_comes_to_a_device_with_two_steps_in_its_queue_joins_them(
    simulate: Simulate, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sizes, "most_rows", MOST_ROWS)
    groups: list[int] = []
    denoise = Sd1.denoise

    def counted(family: Sd1, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        groups.append(len(group))
        return denoise(family, group, keep_on)

    monkeypatch.setattr(Sd1, "denoise", counted)
    # So slow that the queue is always full.
    sim = simulate(speed=0.2)
    for name in ("a", "b"):
        sim.loop.submit(name, Given(tiny, request(tiny, steps=8)))
    while len(groups) < 3:
        sim.loop.tick()
    sim.loop.submit("late", Given(tiny, request(tiny, steps=4)))
    while sim.loop.tick():
        pass
    assert all(size > 1 for size in groups)
    first = groups.index(3)
    assert first <= 5
    assert groups[first : first + 4] == [3] * 4
