"""A file or folder gets its name when it is whole, and overwrites nothing."""

import errno
import os
from pathlib import Path

import pytest

from domains.errors import AlreadyExists
from domains.model.publish import discard, is_part, part_of, publish


@pytest.fixture(params=["file", "folder"])
def part(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    place = part_of(tmp_path / "new", "job-1")
    if request.param == "file":
        place.write_bytes(b"whole")
    else:
        place.mkdir()
        (place / "a").write_bytes(b"whole")
    return place


def test_a_part_has_a_hidden_name_of_its_writer(tmp_path: Path) -> None:
    assert part_of(tmp_path / "new", "job-1").name == ".new.job-1.part"
    assert [is_part(name) for name in (".new.job-1.part", "new.part", ".new")] == [True, False, False]


def test_a_whole_part_gets_its_name(part: Path) -> None:
    publish(part, part.with_name("new"))
    assert os.listdir(part.parent) == ["new"]


def test_nothing_is_overwritten(part: Path) -> None:
    target = part.with_name("new")
    if part.is_dir():
        target.mkdir()
    else:
        target.write_bytes(b"older")
    with pytest.raises(AlreadyExists, match="nothing is overwritten") as refused:
        publish(part, target)
    assert refused.value.facts["path"] == str(target)
    assert part.exists()
    assert target.is_dir() or target.read_bytes() == b"older"


def test_a_file_system_without_hard_links_gives_names_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("domains.model.publish.os.link", refuse)
    place, target = part_of(tmp_path / "new", "job-1"), tmp_path / "new"
    place.write_bytes(b"whole")
    publish(place, target)
    assert (target.read_bytes(), place.exists()) == (b"whole", False)
    place.write_bytes(b"another")
    with pytest.raises(AlreadyExists):
        publish(place, target)
    assert target.read_bytes() == b"whole"


def test_what_is_discarded_is_gone_and_a_link_leads_nowhere(part: Path, tmp_path: Path) -> None:
    discard(part)
    discard(part)
    assert os.listdir(tmp_path) == []
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    discard(tmp_path / "link")
    assert os.listdir(tmp_path) == ["kept"]
