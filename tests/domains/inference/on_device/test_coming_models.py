"""A job that computes with a model whose copies to the device are enqueued and not over: here they wait for a gate."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.given import Given
from domains.inference.on_device import StepLoop
from domains.inference.outcome import (
    CheckpointReady,
    ImageReady,
    ModelLoaded,
    Report,
    RunFailed,
    RunFinished,
    RunStopped,
)
from domains.model.model import Model
from domains.model.on_device.weights import Filling
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import LAST, Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

TICKS = 50
"""More than the jobs here need for all that does not wait for the gate."""


class Gate:
    """See `Ready`: passes when a test opens it. `wait` opens it too: the device works on whoever waits."""

    def __init__(self) -> None:
        self.open = False
        self.held = 0
        """How often computing was made to wait for the copies."""

    def passed(self) -> bool:
        return self.open

    def wait(self) -> None:
        self.open = True

    def hold(self) -> None:
        self.held += 1


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    found = Gate()

    def ended(filling: Filling) -> Gate:
        return found

    def hold_computing(filling: Filling) -> None:
        found.hold()

    monkeypatch.setattr(Filling, "ended", ended)
    monkeypatch.setattr(Filling, "hold_computing", hold_computing)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return write_tiny_model(tmp_path / "coming")


class Loop:
    """A step loop without a model, and what it reported."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Report]] = []
        self.loop = StepLoop("cpu", lambda job_id, report: self.reports.append((job_id, report)))

    def begin(self, model: Model, job_id: str = "a") -> None:
        """Do all that does not wait for the gate."""
        self.loop.submit(job_id, Given(model, request(model, steps=4)))
        for _ in range(TICKS):
            self.loop.tick()

    def end(self) -> Report:
        """The end of the job that ends last."""
        while self.loop.tick():
            pass
        return [report for _, report in self.reports if isinstance(report, LAST)][-1]

    def of(self, kind: type[Report]) -> list[Report]:
        return [report for _, report in self.reports if isinstance(report, kind)]

    def steps(self) -> list[int]:
        """Steps that were told as finished."""
        told = [one for one in self.of(Progressed) if isinstance(one, Progressed)]
        return [one.completed for one in told if one.stage is Stage.DENOISING and one.completed]


@pytest.fixture
def loop(gate: Gate) -> Iterator[Loop]:
    made = Loop()
    yield made
    gate.open = True
    made.loop.close()


def test_a_job_computes_while_its_model_comes_and_tells_nothing_before_it_is_there(
    loop: Loop, gate: Gate, model: Model
) -> None:
    loop.begin(model)
    assert gate.held == 1
    assert loop.loop.job_bytes()["a"] > 0, "the latents are there, so the prompts are read"
    assert not loop.steps()
    assert not loop.of(ModelLoaded)
    with pytest.raises(FailedPrecondition) as told:
        loop.loop.loaded(model.id)
    assert told.value.reason is ErrorReason.MODEL_NOT_LOADED
    gate.open = True
    assert isinstance(loop.end(), RunFinished)
    assert loop.steps() == [1, 2, 3, 4]
    assert len(loop.of(ModelLoaded)) == 1
    loop.loop.loaded(model.id)


def test_the_picture_is_that_of_a_model_that_was_there(loop: Loop, gate: Gate, model: Model) -> None:
    loop.begin(model)
    gate.open = True
    loop.end()
    there = Recorder(model)
    there.loop.submit("b", Given(there.loaded.model, request(model, steps=4)))
    there.run()
    assert [report.data for report in loop.of(ImageReady) if isinstance(report, ImageReady)] == there.files("b")
    there.loop.close()


def test_a_file_that_changes_meanwhile_fails_the_job_and_keeps_no_model(loop: Loop, gate: Gate, model: Model) -> None:
    loop.begin(model)
    path = Path(model.folder) / "unet/diffusion_pytorch_model.safetensors"
    stamp = path.stat()
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1_000_000_000))
    gate.open = True
    failed = loop.end()
    assert isinstance(failed, RunFailed)
    assert failed.reason == ErrorReason.ILLEGAL_STATE
    assert not loop.of(ImageReady)
    assert not loop.steps()
    assert loop.loop.resources.model_bytes() == {}
    loop.begin(tiny_model(Path(model.folder)), "again")
    assert isinstance(loop.end(), RunFinished)


def test_a_cancelled_job_cancels_the_load(loop: Loop, model: Model) -> None:
    loop.begin(model)
    loop.loop.stop("a", Stop(kind=StopKind.CANCEL, cause="not wanted"))
    assert isinstance(loop.end(), RunStopped)
    assert loop.loop.resources.model_bytes() == {}
    assert not loop.of(ModelLoaded)


def test_the_load_goes_on_for_a_second_job(loop: Loop, gate: Gate, model: Model) -> None:
    loop.begin(model)
    loop.begin(model, "b")
    loop.loop.stop("a", Stop(kind=StopKind.CANCEL, cause="not wanted"))
    loop.loop.tick()
    assert loop.loop.resources.model_bytes()[model.id] > 0
    gate.open = True
    assert isinstance(loop.end(), RunFinished)
    assert gate.held == 1


def test_a_job_that_only_loads_ends_when_the_model_is_there(loop: Loop, gate: Gate, model: Model) -> None:
    loop.begin(model)
    loop.loop.load("load", model)
    for _ in range(TICKS):
        loop.loop.tick()
    assert not loop.of(RunFinished)
    gate.open = True
    assert isinstance(loop.end(), RunFinished)


def test_a_pause_waits_for_the_model(loop: Loop, gate: Gate, model: Model) -> None:
    loop.begin(model)
    loop.loop.stop("a", Stop(kind=StopKind.PAUSE, cause="a pause"))
    loop.end()
    kept = loop.of(CheckpointReady)
    assert kept, "the steps that were computed are kept"
    assert gate.open, "whoever keeps them has waited for the copies"
    loop.loop.loaded(model.id)


def test_a_job_beside_others_waits_for_its_whole_model(loop: Loop, gate: Gate, model: Model, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "there")
    gate.open = True
    loop.loop.load("load", other)
    loop.end()
    gate.open = False
    loop.loop.submit("neighbour", Given(other, request(other, steps=1000)))
    loop.begin(model)
    assert not gate.held, "the neighbour's steps would wait for the copies too"
    loop.loop.stop("neighbour", Stop(kind=StopKind.CANCEL, cause="not wanted"))
    gate.open = True
    assert isinstance(loop.end(), RunFinished)
