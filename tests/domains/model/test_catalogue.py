"""The catalogue over real folders and a real database: scans, ids, restarts."""

import asyncio
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from domains.errors import ErrorReason, NotFound, PermissionDenied, ResourceExhausted
from domains.model.catalogue import EMBEDDED, Catalogue
from domains.model.detected_model import blank_model
from domains.model.model import ModelLayout, ModelState
from domains.model.roots import Roots
from domains.model.scan import MAX_PROBLEMS, Found, ScanProblem, ScanReport, not_taken
from domains.progress import Progressed
from domains.storage import open_database
from tests.domains.model.folders import age, write_json, write_model
from tests.domains.model.headers import write_header

DEMO = "emoji-sd"


class Place:
    """A state folder and two roots, with a catalogue that can be opened again."""

    def __init__(self, folder: Path) -> None:
        self.state, self.root, self.second = folder / "state", folder / "root", folder / "second"
        for place in (self.state, self.root, self.second):
            place.mkdir()
        self.roots = [self.root, self.second]
        self.database: sqlite3.Connection | None = None
        self.progress: list[Progressed] = []
        self.catalogue = self.reopen()

    def reopen(self) -> Catalogue:
        if self.database:
            self.database.close()
        self.database = open_database(self.state)
        self.catalogue = Catalogue(self.database, Roots(self.roots), DEMO)
        return self.catalogue

    def scan(self, cancelled: Callable[[], bool] = lambda: False, folders: Sequence[Path] = ()) -> ScanReport:
        names = [str(folder) for folder in folders]
        return asyncio.run(self.catalogue.rescan(self.progress.append, cancelled, names))

    def states(self) -> dict[str, ModelState]:
        return {model.id: model.state for model in self.catalogue.list() if not model.embedded}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    assert place.database
    place.database.close()


def test_the_embedded_model_is_there_before_any_scan(place: Place) -> None:
    assert [model.id for model in place.catalogue.list()] == [DEMO]
    assert place.catalogue.default().embedded
    assert place.catalogue.default().state is ModelState.AVAILABLE


def test_a_miss_names_the_nearest(place: Place) -> None:
    write_model(place.root / "watercolour")
    write_model(place.root / "oil-paint")
    place.scan()
    with pytest.raises(NotFound, match="nearest: watercolour") as caught:
        place.catalogue.get("water-color")
    assert caught.value.reason is ErrorReason.MODEL_NOT_FOUND
    assert caught.value.facts["nearest"].split(", ")[0] == "watercolour"
    with pytest.raises(NotFound, match=DEMO) as caught:
        place.catalogue.get("€" * 1_000_000)
    assert len(caught.value.message) < 1000


def test_a_default_that_is_not_there_is_named(place: Place) -> None:
    assert place.database
    with pytest.raises(NotFound, match="absent"):
        Catalogue(place.database, Roots([]), "absent").default()


def test_a_new_folder_is_added_and_then_unchanged(place: Place) -> None:
    write_model(place.root / "deep" / "one")
    age(place.root)
    first, second = place.scan(), place.scan()
    assert (first.added, first.changed, first.missing, first.unchanged) == (("one",), (), (), 0)
    assert (second.added, second.changed, second.missing, second.unchanged) == ((), (), (), 1)
    assert first.read_bytes > 0 == second.read_bytes
    assert first.files == second.files == 8
    assert first.roots == (str(place.root), str(place.second))


def test_a_scan_that_finds_nothing_new_writes_nothing(place: Place) -> None:
    write_model(place.root / "one")
    age(place.root / "one")
    place.scan()
    assert place.database
    written = place.database.total_changes
    assert place.scan().unchanged == 1
    assert place.database.total_changes == written


def test_a_scan_that_hashes_all_hashes_single_files_and_the_next_one_keeps_that(place: Place) -> None:
    file = write_header(place.root / "one.safetensors", {"emb_params": (8, 768)})
    age(place.root)
    place.scan()
    assert place.catalogue.get("one").sha256 == ""
    report = asyncio.run(place.catalogue.rescan(place.progress.append, lambda: False, recompute=True))
    assert (report.unchanged, report.read_bytes) == (1, file.stat().st_size)
    hashed = place.catalogue.get("one")
    (stamp,) = hashed.files
    assert stamp.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert all((hashed.sha256, stamp.tensor_sha256, stamp.data_sha256, stamp.short_hash))
    assert place.scan().unchanged == 1
    place.reopen()
    assert place.scan().read_bytes == 0
    assert place.catalogue.get("one").sha256 == hashed.sha256
    write_header(file, {"emb_params": (9, 768)})
    place.scan()
    assert place.catalogue.get("one").sha256 == ""


def test_progress_goes_up_to_its_total(place: Place) -> None:
    for name in "abc":
        write_model(place.root / name)
    place.scan()
    assert [(told.completed, told.total) for told in place.progress] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_changed_weights_change_the_model(place: Place) -> None:
    write_model(place.root / "one")
    place.scan()
    before = place.catalogue.get("one").sha256
    write_model(place.root / "one", value=2.0)
    assert place.scan().changed == ("one",)
    assert place.catalogue.get("one").sha256 != before


def test_a_changed_config_changes_the_model(place: Place) -> None:
    write_model(place.root / "one")
    place.scan()
    write_json(place.root / "one" / "scheduler" / "scheduler_config.json", {"prediction_type": "v_prediction"})
    assert place.scan().changed == ("one",)
    assert place.catalogue.get("one").prediction_type == "v_prediction"


def test_a_model_that_goes_is_missing_once_and_comes_back_under_its_id(place: Place) -> None:
    write_model(place.root / "one")
    place.scan()
    shutil.move(place.root / "one", place.state / "one")
    assert place.scan().missing == ("one",)
    assert place.scan().missing == ()
    gone = place.catalogue.get("one")
    assert gone.state is ModelState.MISSING
    assert str(place.root / "one") in gone.problem
    shutil.move(place.state / "one", place.root / "one")
    assert place.scan().changed == ("one",)
    assert place.states() == {"one": ModelState.AVAILABLE}


def test_a_renamed_folder_is_one_gone_and_one_new(place: Place) -> None:
    write_model(place.root / "one")
    place.scan()
    (place.root / "one").rename(place.root / "uno")
    report = place.scan()
    assert (report.added, report.missing) == (("uno",), ("one",))
    assert place.catalogue.get("uno").sha256 == place.catalogue.get("one").sha256


def test_equal_names_get_ids_that_stay(place: Place) -> None:
    write_model(place.second / "same", value=2.0)
    place.scan()
    write_model(place.root / "same")
    write_model(place.root / "below" / "Same")
    assert place.scan().added == ("same-2", "same-3")
    where = {model.id: model.folder for model in place.catalogue.list()}
    assert where["same"] == str(place.second / "same")
    shutil.rmtree(place.root / "same")
    place.scan()
    place.reopen()
    place.scan()
    assert {model.id: model.folder for model in place.catalogue.list()} == where


@pytest.mark.parametrize(
    ("name", "model_id"), [("My Model!", "my-model"), ("…", "model"), ("v1.5_final", "v1.5_final"), (DEMO, f"{DEMO}-2")]
)
def test_ids_are_plain_and_free(place: Place, name: str, model_id: str) -> None:
    write_model(place.root / name)
    assert place.scan().added == (model_id,)


def test_broken_models_are_listed_and_do_not_stop_the_scan(place: Place) -> None:
    for name in "abcd":
        write_model(place.root / name)
    os.truncate(place.root / "a" / "unet" / "diffusion_pytorch_model.safetensors", 100)
    (place.root / "b" / "model_index.json").write_bytes(b"\xff")
    (place.root / "c" / "vae" / "config.json").unlink()
    report = place.scan()
    assert report.added == ("a", "b", "c", "d")
    assert {Path(problem.path).name for problem in report.problems} == {"a", "b", "c"}
    assert {problem.reason for problem in report.problems} == {ErrorReason.MODEL_CORRUPT}
    assert place.states() == dict.fromkeys("abc", ModelState.CORRUPT) | {"d": ModelState.AVAILABLE}


def test_a_model_whose_file_leads_out_is_refused_and_missing_if_it_was_known(place: Place) -> None:
    write_model(place.root / "one")
    place.scan()
    config = place.root / "one" / "unet" / "config.json"
    shutil.move(config, place.state / "config.json")
    config.symlink_to(place.state / "config.json")
    report = place.scan()
    assert [problem.reason for problem in report.problems] == [ErrorReason.PATH_OUTSIDE_ROOTS]
    assert report.missing == ("one",)
    assert "outside" in place.catalogue.get("one").problem


def test_a_root_that_holds_the_embedded_model_does_not_list_it_twice(place: Place) -> None:
    place.roots.append(EMBEDDED)
    place.reopen()
    assert place.scan().added == ()
    assert [(model.id, model.embedded) for model in place.catalogue.list()] == [(DEMO, True)]


def test_a_cancelled_scan_keeps_what_it_found_and_calls_nothing_missing(place: Place) -> None:
    for name in "abc":
        write_model(place.root / name)
    place.scan()
    shutil.rmtree(place.root / "a")
    for name in "xyz":
        write_model(place.root / name)
    report = place.scan(cancelled=lambda: len(place.progress) >= 8)  # 4 of the first scan, 4 of this
    assert report.cancelled
    assert (report.added, report.missing) == (("x",), ())
    assert place.states() == dict.fromkeys("abcx", ModelState.AVAILABLE)


def test_a_scan_cancelled_at_once_changes_nothing(place: Place) -> None:
    write_model(place.root / "one")
    assert place.scan(cancelled=lambda: True).cancelled
    assert place.states() == {}


def test_a_scan_of_one_folder_leaves_the_others_alone(place: Place) -> None:
    write_model(place.root / "one")
    write_model(place.second / "two")
    place.scan()
    shutil.rmtree(place.root / "one")
    shutil.rmtree(place.second / "two")
    assert place.scan(folders=[place.second]).missing == ("two",)
    assert place.states() == {"one": ModelState.AVAILABLE, "two": ModelState.MISSING}


def test_a_scan_outside_the_roots_is_refused(place: Place) -> None:
    with pytest.raises(PermissionDenied):
        place.scan(folders=[place.state])


def test_what_was_found_outlives_the_process(place: Place) -> None:
    write_model(place.root / "one")
    age(place.root)
    place.scan()
    before = place.catalogue.list()
    place.reopen()
    assert place.catalogue.list() == before
    report = place.scan()
    assert (report.unchanged, report.read_bytes) == (1, 0)


def test_a_root_taken_out_of_the_settings_takes_its_models_along(place: Place) -> None:
    write_model(place.root / "one")
    write_model(place.second / "two")
    place.scan()
    place.roots.remove(place.second)
    place.reopen()
    assert set(place.states()) == {"one"}


def test_rows_of_another_version_are_found_again(place: Place) -> None:
    write_model(place.root / "one")
    place.scan()
    assert place.database
    place.database.execute("UPDATE models SET body = x'80'")
    place.reopen()
    assert place.states() == {}
    assert place.scan().added == ("one",)


def test_a_full_disk_changes_nothing_and_leaves_no_transaction_open(place: Place) -> None:
    write_model(place.root / "one")
    place.scan()
    for number in range(40):
        write_model(place.root / f"more-{number}-{'x' * 80}")
    assert place.database
    pages = place.database.execute("PRAGMA page_count").fetchone()[0]
    place.database.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(ResourceExhausted, match=str(place.state)) as caught:
        place.scan()
    assert caught.value.reason is ErrorReason.STORAGE_FULL
    assert not place.database.in_transaction
    assert set(place.states()) == {"one"}
    place.reopen()
    assert len(place.scan().added) == 40


async def test_two_scans_take_turns(place: Place) -> None:
    write_model(place.root / "one")
    look = place.catalogue.rescan
    first, second = await asyncio.gather(
        look(place.progress.append, lambda: False), look(place.progress.append, lambda: False)
    )
    assert (first.added, second.added, second.unchanged) == (("one",), (), 1)


def test_each_scan_is_told_with_what_stayed_as_it_was(place: Place) -> None:
    told: list[ScanReport] = []
    place.catalogue.listeners.append(told.append)
    for name in "abc":
        write_model(place.root / name)
    age(place.root)
    first = place.scan()
    write_model(place.root / "a", value=2.0)
    second = place.scan()
    assert told == [first, second]
    assert (second.changed, second.unchanged) == (("a",), 2)


@pytest.mark.parametrize(
    ("cancelled", "kept"), [(False, ["/other/b", "/root/new"]), (True, ["/root/old", "/other/b", "/root/new"])]
)
def test_a_problem_stays_until_a_scan_that_looks_there_no_longer_finds_it(cancelled: bool, kept: list[str]) -> None:
    def problems(*paths: str) -> tuple[ScanProblem, ...]:
        return tuple(ScanProblem(path=path, reason=ErrorReason.MODEL_CORRUPT, message="damaged") for path in paths)

    model = blank_model(Path("/root/m"), "m", "m", ModelLayout.DIFFUSERS)
    found = Found(
        models=(model,),
        problems=problems("/root/m", "/other/b", "/root/new"),
        roots=("/root",),
        cancelled=cancelled,
        read_bytes=0,
        duration_s=0.0,
    )
    assert [one.path for one in not_taken(problems("/root/old", "/other/b"), found)] == kept
    many = problems(*(f"/other/{number}" for number in range(MAX_PROBLEMS)))
    assert not_taken(many, found) == many


def test_a_scan_tells_how_long_it_took_and_what_it_read(place: Place) -> None:
    write_model(place.root / "owl")
    begin_s = time.monotonic()
    report = place.scan()
    assert 0.0 < report.duration_s <= time.monotonic() - begin_s
    size = sum(file.stat().st_size for file in (place.root / "owl").rglob("*.safetensors"))
    assert report.read_bytes == size
    assert report.roots == (str(place.root), str(place.second))
    assert place.scan().duration_s > 0.0
