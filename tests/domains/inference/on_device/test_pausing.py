"""Pausing: at any stage, with the memory given back; what continues makes the same picture, bit for bit."""

import dataclasses
import itertools
import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from domains.errors import ErrorReason
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.outcome import CheckpointReady, Report, RunFinished, RunStopped
from domains.inference.samplers import SAMPLERS
from domains.model.model import Model
from domains.progress import Degraded, Progressed, Stage, StageStarted, Unit
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request

PAUSE = Stop(kind=StopKind.PAUSE, cause="the device is needed")
CANCEL = Stop(kind=StopKind.CANCEL, cause="not wanted any more")
STEPS = 5
STARTED_DECODING = StageStarted(stage=Stage.DECODING)


def stepped(step: int, steps: int = STEPS) -> Progressed:
    return Progressed(stage=Stage.DENOISING, completed=step, total=steps, unit=Unit.STEPS)


@pytest.fixture(scope="module")
def shared(tiny: Model) -> Iterator[Recorder]:
    """One loop for runs that are followed by their job ids."""
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


_NUMBERS = itertools.count(1)
"""Tests share a loop, so that no two runs of this module have one name."""


@dataclasses.dataclass
class Runs:
    """Runs jobs on a loop, with new ids, and keeps checkpoints in files."""

    loop: Recorder
    folder: Path
    count: int = 0

    def whole(self, asked: ResolvedGeneration) -> list[bytes]:
        """The pictures of a run without a pause."""
        return self.loop.files(self.run(asked))

    def run(
        self, asked: ResolvedGeneration, at: Callable[[Report], bool] | None = None, *, made: int = 0, **given: Any
    ) -> str:
        """Run a job; pause it at the first report that `at` selects."""
        self.count += 1
        name = f"run {next(_NUMBERS)}"

        def pause(job_id: str, report: Report) -> None:
            if at is not None and job_id == name and at(report):
                self.loop.loop.stop(job_id, PAUSE)

        self.loop.on_report = pause
        self.loop.loop.submit(name, Given(self.loop.loaded.model, asked, made=made, **given))
        self.loop.run()
        return name

    def kept(self, name: str) -> KeptFile:
        """The checkpoint of a paused job, as a file."""
        last, end = self.loop.reports[name][-2:]
        assert isinstance(last, CheckpointReady)
        assert isinstance(end, RunStopped)
        path = self.folder / f"{self.count}.safetensors"
        path.write_bytes(last.data)
        return KeptFile(path=str(path), sha256=sha256(last.data).hexdigest())


@pytest.fixture
def runs(shared: Recorder, tmp_path: Path) -> Runs:
    return Runs(shared, tmp_path)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_pause_at_every_step_of_every_sampler_leaves_the_picture_bit_exact(
    runs: Runs, tiny: Model, sampler: str
) -> None:
    schedule = SAMPLERS[sampler].sigma_schedules[0]
    eta = 0.5 if SAMPLERS[sampler].eta else None
    asked = request(
        tiny, sampler=sampler, sigma_schedule=schedule, steps=STEPS, eta=eta, seeds=(1, 2), width_px=16, height_px=16
    )
    whole = runs.whole(asked)
    for step in range(STEPS + 1):
        paused = runs.run(asked, lambda report, step=step: report == stepped(step))
        executed = _end(runs, paused).receipt.steps_executed
        assert executed == step
        resumed = runs.run(asked, kept=runs.kept(paused))
        assert runs.loop.files(resumed) == whole, f"after step {step}"
        end = runs.loop.last(resumed)
        assert isinstance(end, RunFinished)
        assert executed + end.receipt.steps_executed == STEPS
        assert not end.receipt.degradations


def test_a_pause_after_each_step_in_turn_leaves_the_picture_bit_exact(runs: Runs, tiny: Model) -> None:
    asked = request(tiny, sampler="dpmpp_3m_sde", steps=STEPS, width_px=16, height_px=16)
    given: dict[str, Any] = {}
    for step in range(1, STEPS):
        paused = runs.run(asked, lambda report, step=step: report == stepped(step), **given)
        given = {"kept": runs.kept(paused)}
    assert runs.loop.files(runs.run(asked, **given)) == runs.whole(asked)


def test_pictures_that_were_made_before_the_pause_are_not_made_again(runs: Runs, tiny: Model) -> None:
    asked = request(tiny, steps=2, seeds=(1, 2, 3), width_px=16, height_px=16)
    whole = runs.whole(asked)
    paused = runs.run(
        asked,
        lambda report: report == Progressed(stage=Stage.ENCODING, completed=1, total=3, unit=Unit.IMAGES),
    )
    made = len(runs.loop.files(paused))
    if isinstance(runs.loop.last(paused), RunFinished):
        # The files of all pictures were at work already, so the pause came too late to matter.
        assert runs.loop.files(paused) == whole
        return
    resumed = runs.run(asked, kept=runs.kept(paused), made=made)
    assert runs.loop.files(paused) + runs.loop.files(resumed) == whole


def test_a_pause_before_the_latents_exist_keeps_nothing_and_begins_again(runs: Runs, tiny: Model) -> None:
    asked = request(tiny, steps=2, width_px=16, height_px=16)
    runs.loop.loop.submit("early", Given(runs.loop.loaded.model, asked))
    runs.loop.loop.stop("early", PAUSE)
    runs.loop.run()
    assert [type(report) for report in runs.loop.reports["early"]] == [RunStopped]


def test_a_pause_gives_the_latents_back(runs: Runs, tiny: Model) -> None:
    paused = runs.run(request(tiny, steps=STEPS, seeds=(1, 2)), lambda report: report == stepped(2))
    pictures, channels, edge, float32 = 2, 4, 16, 4
    assert (_end(runs, paused).freed_bytes or 0) >= pictures * channels * edge * edge * float32
    assert runs.loop.loop.job_bytes() == {}


def test_a_pause_waits_for_the_end_of_the_step_and_a_cancellation_does_not(runs: Runs, tiny: Model) -> None:
    asked = request(tiny, steps=STEPS, width_px=16, height_px=16)
    looked: list[str] = []

    def stop_of(job_id: str) -> Stop | None:
        looked.append(job_id)
        return PAUSE

    runs.loop.stop_of = stop_of
    try:
        paused = runs.run(asked, lambda report: report == stepped(1))
    finally:
        runs.loop.stop_of = lambda job_id: None
    assert looked
    assert _end(runs, paused).receipt.steps_executed == 1


def test_a_pause_abandons_a_decoding_and_keeps_the_final_latents(runs: Runs, tiny: Model) -> None:
    asked = request(tiny, steps=2, width_px=16, height_px=16)
    runs.loop.stop_of = lambda job_id: PAUSE if STARTED_DECODING in runs.loop.reports[job_id] else None
    try:
        paused = runs.run(asked)
    finally:
        runs.loop.stop_of = lambda job_id: None
    end = _end(runs, paused)
    assert (end.stage, end.receipt.steps_executed) == (Stage.DECODING, 2)
    resumed = runs.run(asked, kept=runs.kept(paused))
    assert runs.loop.files(resumed) == runs.whole(asked)
    last = runs.loop.last(resumed)
    assert isinstance(last, RunFinished)
    assert last.receipt.steps_executed == 0


def test_a_cancellation_after_a_pause_counts(runs: Runs, tiny: Model) -> None:
    runs.loop.loop.submit("both", Given(runs.loop.loaded.model, request(tiny)))
    runs.loop.loop.stop("both", PAUSE)
    runs.loop.loop.stop("both", CANCEL)
    runs.loop.run()
    end = runs.loop.last("both")
    assert isinstance(end, RunStopped)
    assert end.stop == CANCEL


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _replaced(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 40))


@pytest.mark.parametrize("harm", [Path.unlink, _cut_off, _replaced])
def test_a_checkpoint_that_cannot_be_read_is_reported_and_the_picture_is_made_from_the_start(
    runs: Runs, tiny: Model, harm: Callable[[Path], object]
) -> None:
    asked = request(tiny, steps=3, width_px=16, height_px=16)
    kept = runs.kept(runs.run(asked, lambda report: report == stepped(1, 3)))
    harm(Path(kept.path))
    resumed = runs.run(asked, kept=kept)
    (told,) = runs.loop.of(resumed, Degraded)
    assert isinstance(told, Degraded)
    assert (told.kind, told.reason) == ("checkpoint_dropped", str(ErrorReason.CHECKPOINT_CORRUPT))
    assert runs.loop.files(resumed) == runs.whole(asked)


def test_a_file_with_the_right_hash_that_is_no_checkpoint_is_reported(runs: Runs, tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "no checkpoint"
    path.write_bytes(data := struct.pack("<Q", 2) + b"{}")
    asked = request(tiny, steps=1, width_px=16, height_px=16)
    resumed = runs.run(asked, kept=KeptFile(path=str(path), sha256=sha256(data).hexdigest()))
    (told,) = runs.loop.of(resumed, Degraded)
    assert isinstance(told, Degraded)
    assert told.reason == str(ErrorReason.CHECKPOINT_CORRUPT)


@pytest.mark.parametrize("change", [{"seeds": (8,)}, {"steps": 4}, {"sampler": "euler"}, {"model_sha256": "0" * 64}])
def test_a_checkpoint_of_another_generation_is_not_continued(runs: Runs, tiny: Model, change: dict[str, Any]) -> None:
    asked = request(tiny, steps=3, width_px=16, height_px=16)
    kept = runs.kept(runs.run(asked, lambda report: report == stepped(1, 3)))
    other = request(tiny, like=asked, **change)
    resumed = runs.run(other, kept=kept)
    (told,) = runs.loop.of(resumed, Degraded)
    assert isinstance(told, Degraded)
    assert told.reason == str(ErrorReason.MODEL_INCOMPATIBLE)
    assert next(iter(change)) in told.detail
    assert runs.loop.files(resumed) == runs.whole(other)


def _end(runs: Runs, name: str) -> RunStopped:
    end = runs.loop.last(name)
    assert isinstance(end, RunStopped)
    assert end.stop == PAUSE
    return end
