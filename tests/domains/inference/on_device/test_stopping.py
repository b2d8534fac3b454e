"""Cancellation: soon, at any stage, with proof, and with nothing left behind."""

import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domains.inference.given import Given
from domains.inference.on_device.networks import slices
from domains.inference.on_device.trajectory import Trajectory
from domains.inference.outcome import Report, RunFinished, RunStopped
from domains.model.model import Model
from domains.progress import Progressed, Stage, StageStarted, Unit
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request

CANCEL = Stop(kind=StopKind.CANCEL, cause="not wanted any more")
STEP = Progressed(stage=Stage.DENOISING, completed=2, total=5, unit=Unit.STEPS)
LAST_STEP = Progressed(stage=Stage.DENOISING, completed=5, total=5, unit=Unit.STEPS)
STARTED_DECODING = StageStarted(stage=Stage.DECODING)
PICTURE = Progressed(stage=Stage.DECODING, completed=1, total=2, unit=Unit.IMAGES)


@pytest.fixture
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


@pytest.mark.parametrize(
    ("after", "stage", "steps"),
    [
        (StageStarted(stage=Stage.DENOISING), Stage.DENOISING, 0),
        (STEP, Stage.DENOISING, 2),
        (LAST_STEP, Stage.DECODING, 5),
        (PICTURE, Stage.DECODING, 5),
        (StageStarted(stage=Stage.ENCODING), Stage.ENCODING, 5),
    ],
    ids=["before the first step", "between steps", "before decode", "between pictures", "while files are written"],
)
def test_a_cancelled_job_does_no_more_work(
    loop: Recorder, tiny: Model, after: Report, stage: Stage, steps: int
) -> None:
    def cancel(job_id: str, report: Report) -> None:
        if report == after:
            assert loop.loop.stop(job_id, CANCEL)

    loop.on_report = cancel
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=5, seeds=(1, 2))))
    loop.run()
    end = loop.last("a")
    assert isinstance(end, RunStopped)
    assert (end.stop, end.stage, end.receipt.steps_executed) == (CANCEL, stage, steps)
    assert end.latency_s >= 0


def looks_of(loop: Recorder, model: Model, **asked: Any) -> dict[Stage, int]:
    """How often a picture of one step is looked at while it is denoised and while it is decoded."""
    looks: Counter[Stage] = Counter()

    def stop_of(job_id: str) -> Stop | None:
        looks[Stage.DECODING if STARTED_DECODING in loop.reports[job_id] else Stage.DENOISING] += 1
        return None

    loop.stop_of = stop_of
    loop.loop.submit("looks", Given(loop.loaded.model, request(model, steps=1, **asked)))
    loop.run()
    assert isinstance(loop.last("looks"), RunFinished)
    return looks


def test_a_long_step_and_a_long_decoding_are_looked_at_in_the_middle_of_their_operations(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"width_px": 128, "height_px": 128}
    whole = looks_of(loop, tiny, **asked)
    monkeypatch.setattr(slices, "SLICED_FROM_FLOP", 2**22)
    monkeypatch.setattr(slices, "PIECE_FLOP", 2**22)
    sliced = looks_of(Recorder(tiny), tiny, **asked)
    for stage, looks in whole.items():
        assert sliced[stage] > 3 * looks


@pytest.mark.parametrize("stage", [Stage.DENOISING, Stage.DECODING])
def test_a_cancel_within_a_long_operation_is_obeyed_at_the_next_look(
    loop: Recorder, tiny: Model, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICED_FROM_FLOP", 2**22)
    monkeypatch.setattr(slices, "PIECE_FLOP", 2**22)
    asked = request(tiny, steps=1, width_px=128, height_px=128)
    middle = looks_of(loop, tiny, width_px=128, height_px=128)[stage] // 2
    looks: Counter[bool] = Counter()

    def stop_of(job_id: str) -> Stop | None:
        if stage is Stage.DECODING and STARTED_DECODING not in loop.reports[job_id]:
            return None
        wanted = sum(looks.values()) >= middle
        looks[wanted] += 1
        return CANCEL if wanted else None

    loop.stop_of = stop_of
    loop.loop.submit("a", Given(loop.loaded.model, asked))
    loop.run()
    end = loop.last("a")
    assert isinstance(end, RunStopped)
    assert end.stage is stage
    # One look found the request, and nothing was computed after it.
    assert looks == {False: middle, True: 1}


@pytest.mark.parametrize(("over", "stage", "steps"), [(2, Stage.DENOISING, 1), (None, Stage.DENOISING, 0)])
def test_a_step_that_nobody_wants_is_left_in_its_middle(
    loop: Recorder, tiny: Model, over: int | None, stage: Stage, steps: int
) -> None:
    """`over`: looks into the second step; None: the first look of the first."""
    looks = 1 if over is None else looks_of(loop, tiny)[Stage.DENOISING] + over
    asked: list[str] = []

    def stop_of(job_id: str) -> Stop | None:
        asked.append(job_id)
        return CANCEL if len(asked) >= looks else None

    loop.stop_of = stop_of
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=5)))
    loop.run()
    end = loop.last("a")
    assert isinstance(end, RunStopped)
    assert (end.stage, end.receipt.steps_executed) == (stage, steps)
    assert len(asked) == looks
    assert _trajectories() == 0


def test_a_decoding_that_nobody_wants_is_left_in_its_middle(loop: Recorder, tiny: Model) -> None:
    loop.stop_of = lambda job_id: CANCEL if STARTED_DECODING in loop.reports[job_id] else None
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=5)))
    loop.run()
    end = loop.last("a")
    assert isinstance(end, RunStopped)
    assert (end.stage, end.receipt.steps_executed) == (Stage.DECODING, 5)
    assert not loop.files("a")


def test_a_job_cancelled_before_its_first_turn_is_never_conditioned(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny)))
    assert loop.loop.stop("a", CANCEL)
    loop.run()
    end = loop.last("a")
    assert isinstance(end, RunStopped)
    assert end.stage is Stage.QUEUED
    assert loop.reports["a"] == [end]


def test_cancelling_gives_the_latents_back(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=5, seeds=(1, 2))))
    for _ in range(3):
        loop.loop.tick()
    assert _trajectories() == 1
    loop.loop.stop("a", CANCEL)
    loop.run()
    end = loop.last("a")
    assert isinstance(end, RunStopped)
    pictures, channels, edge, float32 = 2, 4, 16, 4
    assert (end.freed_bytes or 0) >= pictures * channels * edge * edge * float32
    assert _trajectories() == 0


def test_nobody_is_cancelled_under_an_id_that_ended(loop: Recorder, tiny: Model) -> None:
    assert not loop.loop.stop("a", CANCEL)
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1)))
    loop.run()
    assert not loop.loop.stop("a", CANCEL)
    assert isinstance(loop.last("a"), RunFinished)


def test_a_neighbour_goes_on(loop: Recorder, tiny: Model) -> None:
    for name in ("a", "b"):
        loop.loop.submit(name, Given(loop.loaded.model, request(tiny, steps=3)))
    loop.loop.tick()
    loop.loop.stop("a", CANCEL)
    loop.run()
    assert isinstance(loop.last("a"), RunStopped)
    assert isinstance(loop.last("b"), RunFinished)


def test_closing_ends_every_job_as_stopped(tiny: Model) -> None:
    recorder = Recorder(tiny)
    for name in ("a", "b"):
        recorder.loop.submit(name, Given(recorder.loaded.model, request(tiny)))
    recorder.loop.tick()
    recorder.loop.close()
    assert all(isinstance(recorder.last(name), RunStopped) for name in ("a", "b"))


def _trajectories() -> int:
    gc.collect()
    return sum(isinstance(thing, Trajectory) for thing in gc.get_objects())


class AnyOrder(RuleBasedStateMachine):
    """Jobs come, are cancelled and run in any order; each ends once, as what happened to it."""

    model: Model

    def __init__(self) -> None:
        super().__init__()
        self.recorder = Recorder(self.model)
        self.submitted: list[str] = []
        self.cancelled: set[str] = set()

    @rule(steps=st.integers(1, 3), pictures=st.integers(1, 2), sampler=st.sampled_from(["euler", "nonsense"]))
    def submit(self, steps: int, pictures: int, sampler: str) -> None:
        name = f"{sampler} {len(self.submitted)}"
        self.submitted.append(name)
        asked = request(
            self.model, steps=steps, seeds=tuple(range(pictures)), sampler=sampler, width_px=16, height_px=16
        )
        self.recorder.loop.submit(name, Given(self.recorder.loaded.model, asked))

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        if self.submitted and self.recorder.loop.stop(name := self.submitted[pick % len(self.submitted)], CANCEL):
            self.cancelled.add(name)

    @rule(ticks=st.integers(1, 6))
    def tick(self, ticks: int) -> None:
        for _ in range(ticks):
            self.recorder.loop.tick()

    @invariant()
    def ended_jobs_ended_once(self) -> None:
        for name in self.recorder.order:
            self.recorder.last(name)

    def teardown(self) -> None:
        self.recorder.run()
        for name in self.submitted:
            kind = type(self.recorder.last(name)).__name__
            expected = "RunStopped" if name in self.cancelled else "RunFailed" if "nonsense" in name else "RunFinished"
            assert kind == expected, name
        self.recorder.loop.close()


def test_any_order_of_orders_ends_every_job_once(tiny: Model) -> None:
    machine = type("AnyOrderOfTiny", (AnyOrder,), {"model": tiny})
    case = machine.TestCase
    case.settings = settings(max_examples=8, stateful_step_count=15, deadline=None, derandomize=True)
    case().runTest()
