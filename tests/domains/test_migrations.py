"""The version of the state folder's database."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from domains import storage
from domains.errors import ErrorReason, FailedPrecondition, ResourceExhausted
from domains.migrations import MIGRATIONS
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.rows import UnreadableRow
from domains.processing.jobs.store import JobStore


def tables(database: sqlite3.Connection) -> list[tuple[str, ...]]:
    return database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_a_new_folder_has_the_newest_version(tmp_path: Path) -> None:
    with closing(storage.open_database(tmp_path)) as database:
        assert storage.version(database) == len(MIGRATIONS)


def test_a_folder_of_before_versions_is_brought_to_the_newest(tmp_path: Path) -> None:
    """Its tables are there, and its version is 0."""
    with closing(first_version(tmp_path)) as old:
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


def first_version(folder: Path) -> sqlite3.Connection:
    old = sqlite3.connect(folder / storage.DATABASE)
    MIGRATIONS[0](old, folder)
    return old


def stored_at_first(job_id: str, work: dict[str, object], **fields: object) -> tuple[object, ...]:
    """The row of a job as version 1 had it."""
    job = {"id": job_id, "request_id": "", "work": work, "options": {"session_id": "s"}, "detached": True}
    job |= {"state": "cancelled", "create_time_s": 10.5, "device_id": "cpu", "result": None, **fields}
    return job_id, "s", str(work["type"]), str(job["state"]), 1000, msgspec.msgpack.encode(job)


def test_jobs_of_the_first_version_are_read_again(tmp_path: Path) -> None:
    """Of those that this version cannot read, the columns are."""
    scan = stored_at_first("scan", {"type": "scan_models", "roots": ["models"]})
    picture = stored_at_first(
        "picture", {"type": "generate", "asked": {"prompt": "a red  apple"}, "scheduler": "euler"}
    )
    damaged = (*scan[1:5], b"\xc1")
    with closing(first_version(tmp_path)) as old:
        insert = "INSERT INTO jobs (id, session_id, kind, state, sequence_ceiling, body) VALUES (?, ?, ?, ?, ?, ?)"
        old.executemany(insert, [scan, picture, ("damaged", *damaged)])
        old.execute("INSERT INTO events VALUES ('scan', 1, 10.5, ?)", (msgspec.msgpack.encode({"type": "queued"}),))
        old.commit()
    with closing(storage.open_database(tmp_path)) as database:
        rows = database.execute("SELECT id, device_id, create_time_s, summary, version FROM jobs ORDER BY number")
        assert rows.fetchall() == [
            ("scan", "cpu", 10.5, "scan models", 1),
            ("picture", "cpu", 10.5, "a red apple", 1),
            ("damaged", "", 0.0, "", 1),
        ]
        assert database.execute("SELECT count(*) FROM events").fetchone() == (1,)
        store = JobStore(database, tmp_path)
        job = store.get("scan")
        assert isinstance(job, Job)
        assert (job.work, job.options.session_id, job.number) == (ScanWork(roots=("models",)), "s", 1)
        for name in ("picture", "damaged"):
            row = store.get(name)
            assert isinstance(row, UnreadableRow)
            assert row.version == 1


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
