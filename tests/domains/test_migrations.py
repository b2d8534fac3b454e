"""The version of the state folder's database."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from domains import storage
from domains.errors import ErrorReason, FailedPrecondition, ResourceExhausted
from domains.migrations import MIGRATIONS


def tables(database: sqlite3.Connection) -> list[tuple[str, ...]]:
    return database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_a_new_folder_has_the_newest_version(tmp_path: Path) -> None:
    with closing(storage.open_database(tmp_path)) as database:
        assert storage.version(database) == len(MIGRATIONS)


def test_a_folder_of_before_versions_is_brought_to_the_newest(tmp_path: Path) -> None:
    """Its tables are there, and its version is 0."""
    with closing(sqlite3.connect(tmp_path / storage.DATABASE)) as old:
        MIGRATIONS[0](old, tmp_path)
        old.execute("INSERT INTO file_hashes VALUES ('model', 'state', 'sha256')")
        old.commit()
    (tmp_path / "new").mkdir()
    with (
        closing(storage.open_database(tmp_path)) as database,
        closing(storage.open_database(tmp_path / "new")) as new,
    ):
        assert storage.version(database) == len(MIGRATIONS)
        assert tables(database) == tables(new)
        assert database.execute("SELECT path FROM file_hashes").fetchall() == [("model",)]


def test_a_newer_folder_is_refused_by_name_and_stays_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / storage.DATABASE)) as newer:
        newer.execute("PRAGMA user_version=1000")
    before = (tmp_path / storage.DATABASE).read_bytes()
    with pytest.raises(FailedPrecondition) as told:
        storage.open_database(tmp_path)
    assert told.value.reason is ErrorReason.ILLEGAL_STATE
    assert told.value.facts == {
        "state_folder": str(tmp_path),
        "folder_version": "1000",
        "known_version": str(len(MIGRATIONS)),
    }
    assert all(word in told.value.message for word in ("1000", str(len(MIGRATIONS)), str(tmp_path), "--state"))
    assert (tmp_path / storage.DATABASE).read_bytes() == before


def test_a_migration_that_fails_leaves_the_folder_at_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(storage.open_database(tmp_path)) as database:
        before = tables(database)

    def half(database: sqlite3.Connection, folder: Path) -> None:
        database.execute("CREATE TABLE half_done (text)")
        raise ResourceExhausted("full", ErrorReason.STORAGE_FULL)

    with monkeypatch.context() as next_version:
        next_version.setattr(storage, "MIGRATIONS", (*MIGRATIONS, half))
        with pytest.raises(ResourceExhausted):
            storage.open_database(tmp_path)
    with closing(storage.open_database(tmp_path)) as database:
        assert storage.version(database) == len(MIGRATIONS)
        assert tables(database) == before
