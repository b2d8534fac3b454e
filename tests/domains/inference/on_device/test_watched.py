"""Previews for those who watch: they begin and end in mid-job, cost nothing unwatched, and change no picture."""

from collections.abc import Iterator

import pytest
from torch import Tensor

from domains.inference.generation import Previews
from domains.inference.given import Given
from domains.inference.on_device.families.sd1 import Sd1
from domains.inference.outcome import Report, RunFinished
from domains.model.model import Model
from domains.progress import PreviewReady, Progressed, Stage
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request

WATCHED, UNWATCHED = Previews(every_steps=2, max_edge_px=16), Previews()
STEPS = 12


@pytest.fixture
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The size of each preview that was computed."""
    sizes: list[tuple[int, int]] = []
    original = Sd1.preview

    def preview(self: Sd1, x0: Tensor, size: tuple[int, int]) -> Tensor:
        sizes.append(size)
        return original(self, x0, size)

    monkeypatch.setattr(Sd1, "preview", preview)
    return sizes


def at_steps(loop: Recorder, wishes: dict[int, Previews]) -> None:
    """Show these from these steps on."""

    def show(job_id: str, report: Report) -> None:
        if isinstance(report, Progressed) and report.stage is Stage.DENOISING and report.completed in wishes:
            loop.loop.show(job_id, wishes[report.completed])

    loop.on_report = show


def test_nobody_watches_so_none_is_computed(loop: Recorder, tiny: Model, taken: list[tuple[int, int]]) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=STEPS)))
    loop.run()
    assert taken == []


def test_previews_begin_with_the_watcher_and_end_with_it(
    loop: Recorder, tiny: Model, taken: list[tuple[int, int]]
) -> None:
    at_steps(loop, {3: WATCHED, 7: UNWATCHED})
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=STEPS)))
    loop.run()
    assert isinstance(loop.last("a"), RunFinished)
    steps = [report.step for report in loop.of("a", PreviewReady) if isinstance(report, PreviewReady)]
    # A step or two may be under way when the wish comes.
    assert steps
    assert all(4 <= step <= 8 for step in steps)
    assert 1 <= len(taken) <= 3
    assert all(max(size) == 16 for size in taken)


def test_pictures_are_the_same_bytes_watched_or_not(loop: Recorder, tiny: Model, taken: list[tuple[int, int]]) -> None:
    asked = request(tiny, steps=STEPS, sampler="euler_a", seeds=(4, 9))
    loop.loop.submit("alone", Given(loop.loaded.model, asked))
    loop.run()
    assert taken == []
    loop.loop.submit("watched", Given(loop.loaded.model, asked), Previews(every_steps=1, max_edge_px=512))
    loop.run()
    assert len(taken) == STEPS - 1
    assert loop.files("watched") == loop.files("alone")


def test_a_job_keeps_the_previews_that_it_asked_for_itself(
    loop: Recorder, tiny: Model, taken: list[tuple[int, int]]
) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=5, previews=WATCHED)))
    loop.run()
    assert len(taken) == 2


def test_a_preview_that_fails_ends_only_the_previews_of_watchers(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def broken(self: Sd1, x0: Tensor, size: tuple[int, int]) -> Tensor:
        tried.append(1)
        raise RuntimeError("no memory for a preview")

    monkeypatch.setattr(Sd1, "preview", broken)
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=5)), Previews(every_steps=1))
    loop.run()
    assert isinstance(loop.last("a"), RunFinished)
    assert len(tried) == 1


def test_a_job_that_is_not_there_has_no_previews(loop: Recorder) -> None:
    loop.loop.show("gone", WATCHED)
