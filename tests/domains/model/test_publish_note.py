"""A result that a process had written when it died is found by its note, and nothing else is taken for it."""

import os
from pathlib import Path

import pytest

from domains.model.conversion import Written
from domains.model.publish import part_of, publish
from domains.model.publish_note import being_published, finished, forget_note, take_back, write_note

WRITTEN = Written(converted=3, copied=1)
KEY = "job-1"


@pytest.fixture(params=["file", "folder"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The place of a result that is whole under its other name."""
    place = tmp_path / "made"
    part = part_of(place, KEY)
    if request.param == "file":
        part.write_bytes(b"whole")
    else:
        part.mkdir()
        (part / "index.json").write_bytes(b"{}")
    return place


def test_without_a_note_it_is_written_anew(target: Path) -> None:
    assert finished(target, KEY) is None
    assert (target.exists(), part_of(target, KEY).exists()) == (False, True)


def test_a_result_that_was_noted_gets_its_name(target: Path) -> None:
    write_note(target, KEY, WRITTEN)
    assert list(being_published(target.parent)) == [target]
    assert finished(target, "another") is None
    assert finished(target, KEY) == WRITTEN
    assert (target.exists(), part_of(target, KEY).exists()) == (True, False)
    assert finished(target, KEY) == WRITTEN, "it has its name already"
    forget_note(target, KEY)
    assert list(being_published(target.parent)) == []
    forget_note(target, KEY)


def test_a_name_that_an_empty_folder_reserved_is_given(target: Path) -> None:
    write_note(target, KEY, WRITTEN)
    target.mkdir()
    assert finished(target, KEY) == WRITTEN
    assert target.is_file() or (target / "index.json").is_file()


def test_the_second_name_of_a_file_goes(tmp_path: Path) -> None:
    place, part = tmp_path / "made", part_of(tmp_path / "made", KEY)
    part.write_bytes(b"whole")
    write_note(place, KEY, WRITTEN)
    os.link(part, place)
    assert finished(place, KEY) == WRITTEN
    assert (place.read_bytes(), part.exists()) == (b"whole", False)


def test_what_somebody_else_put_there_is_no_result_and_stays(target: Path) -> None:
    write_note(target, KEY, WRITTEN)
    part_of(target, KEY).rename(target.with_name("away"))
    target.write_bytes(b"foreign")
    assert finished(target, KEY) is None
    take_back(target, KEY)
    assert target.read_bytes() == b"foreign"


def test_a_note_that_was_cut_off_counts_as_none(target: Path) -> None:
    write_note(target, KEY, WRITTEN)
    (note,) = target.parent.glob(".made.*.done.part")
    note.write_bytes(note.read_bytes()[:-1])
    assert finished(target, KEY) is None
    take_back(target, KEY)
    assert part_of(target, KEY).exists()


def test_the_result_of_a_noted_attempt_is_taken_back(target: Path) -> None:
    write_note(target, KEY, WRITTEN)
    publish(part_of(target, KEY), target)
    take_back(target, "another")
    assert target.exists()
    take_back(target, KEY)
    assert not target.exists()


def test_a_folder_that_cannot_be_listed_holds_no_results(tmp_path: Path) -> None:
    (tmp_path / ".other.part").write_bytes(b"")
    assert list(being_published(tmp_path)) == []
    assert list(being_published(tmp_path / "absent")) == []
