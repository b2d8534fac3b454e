"""A conversion whose result cannot become known leaves no files."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import AlreadyExists
from domains.model.conversion import Conversion, Written
from domains.model.model import ModelLayout
from domains.model.publish import part_of, publish
from domains.model.publish_note import being_published, write_note
from domains.model.register import Registration
from domains.processing.front.convert import ConvertRunner
from domains.processing.jobs.event import ConversionResult
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ConvertWork
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.jobs.state import JobState
from domains.progress import Stage, StageStarted


@pytest.mark.parametrize("layout", [ModelLayout.FILE, ModelLayout.DIFFUSERS])
async def test_a_result_that_cannot_be_registered_goes_and_says_why(tmp_path: Path, layout: ModelLayout) -> None:
    class Taken:
        async def register(self, asked: object) -> object:
            raise AlreadyExists("the id is taken")

    nothing: Any = None
    taken: Any = Taken()
    jobs: Any = SimpleNamespace(listeners=[])
    runner = ConvertRunner(nothing, jobs)
    runner._registrations = taken  # pyright: ignore[reportPrivateUsage]
    target = tmp_path / "new"
    target.mkdir() if layout is ModelLayout.DIFFUSERS else target.write_bytes(b"x")
    asked = Conversion(model_id="m", destination=str(target))
    with pytest.raises(AlreadyExists):
        await runner._known(asked, target, layout)  # pyright: ignore[reportPrivateUsage]
    assert not target.exists()


@pytest.mark.parametrize(
    ("state", "result_stays", "note_stays"),
    [
        (JobState.SUCCEEDED, True, False),
        (JobState.FAILED, False, False),
        (JobState.CANCELLED, False, False),
        (JobState.RUNNING, True, True),
    ],
)
def test_a_conversion_that_ends_leaves_its_result_only_if_it_succeeded(
    tmp_path: Path, state: JobState, result_stays: bool, note_stays: bool
) -> None:
    place = tmp_path / "new.safetensors"
    catalogue: Any = SimpleNamespace(place_of=lambda asked: place)  # pyright: ignore[reportUnknownLambdaType]
    jobs: Any = SimpleNamespace(listeners=[])
    ConvertRunner(catalogue, jobs)
    work = ConvertWork(asked=Conversion(model_id="m", destination=str(place)))
    job = replace(Jobs.draft(work, JobOptions()), state=state)
    part = part_of(place, job.id)
    part.write_bytes(b"x")
    write_note(place, job.id, Written(converted=1, copied=0))
    publish(part, place)
    for listener in jobs.listeners:
        listener(job)
    assert (place.exists(), place in being_published(tmp_path)) == (result_stays, note_stays)


@pytest.mark.parametrize("layout", [ModelLayout.FILE, ModelLayout.DIFFUSERS])
async def test_a_folder_that_was_registered_gets_its_hashes_and_a_file_has_them_already(
    tmp_path: Path, layout: ModelLayout
) -> None:
    told = list[object]()

    class Registered:
        async def register(self, asked: Registration) -> object:
            told.append(asked)
            return SimpleNamespace(model=SimpleNamespace(id="new"))

    async def rescan(tell: object, cancelled: object, paths: list[str]) -> None:
        told.append(paths)

    catalogue: Any = SimpleNamespace(rescan=rescan, get=lambda name: f"model {name}")  # pyright: ignore[reportUnknownLambdaType]
    jobs: Any = SimpleNamespace(listeners=[])
    registered: Any = Registered()
    runner = ConvertRunner(catalogue, jobs)
    runner._registrations = registered  # pyright: ignore[reportPrivateUsage]
    asked = Conversion(model_id="m", destination="made", new_model_id="new")
    known = await runner._known(asked, tmp_path / "made", layout)  # pyright: ignore[reportPrivateUsage]
    assert known == "model new"
    place = str(tmp_path / "made")
    hashed = [[place]] if layout is ModelLayout.DIFFUSERS else []
    assert told == [Registration(model_id="new", path=place), *hashed]


@pytest.mark.parametrize("found", ["nothing", "stopped", "written before"])
async def test_a_conversion_that_is_stopped_halts_and_one_that_was_written_before_is_made_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    place, told = tmp_path / "made", list[object]()
    whole = Written(converted=1, copied=2)

    async def written(*_: object) -> Written | None:
        told.append("written")
        return None if found == "stopped" else whole

    async def known(*_: object) -> str:
        return "model"

    catalogue: Any = SimpleNamespace(place_of=lambda asked: place, get=lambda name: SimpleNamespace(id=name))  # pyright: ignore[reportUnknownLambdaType]
    jobs: Any = SimpleNamespace(listeners=[])
    runner = ConvertRunner(catalogue, jobs)
    monkeypatch.setattr(runner, "_written", written)
    monkeypatch.setattr(runner, "_known", known)
    monkeypatch.setattr("domains.processing.front.convert.layout_after", lambda *_: ModelLayout.FILE)  # pyright: ignore[reportUnknownLambdaType]
    if found == "written before":
        part_of(place, "job").write_bytes(b"x")
        write_note(place, "job", whole)
    task: Any = SimpleNamespace(job=SimpleNamespace(id="job"), tell=told.append)
    begin_s = time.monotonic()
    done = await runner.run(ConvertWork(asked=Conversion(model_id="m", destination=str(place))), task)
    assert told == [StageStarted(stage=Stage.CONVERTING), *(["written"] if found != "written before" else [])]
    if found == "stopped":
        assert isinstance(done, Halted)
        return
    assert isinstance(done, Done)
    assert isinstance(done.result, ConversionResult)
    report = done.result.report
    assert (report.model, report.source_model_id, report.written) == ("model", "m", whole)
    assert 0.0 <= report.duration_s <= time.monotonic() - begin_s
