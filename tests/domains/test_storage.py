"""The state folder's database: its errors, its checkpoints, what its commits survive."""

import asyncio
import errno
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from domains import storage
from domains.checkpoints import DEGRADED_AFTER, Checkpoints, checkpoint, has_wal_reset_bug
from domains.errors import DeviceOpsError, ErrorReason
from domains.processing.jobs.erasure import Erasure


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = storage.open_database(tmp_path)
    yield opened
    opened.close()


class Failing(storage.Database):
    """A connection whose checkpoints fail like a disk with a bad sector."""

    failing = True

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
        if self.failing and "wal_checkpoint" in sql:
            raise sqlite3_error(sqlite3.SQLITE_IOERR)
        return super().execute(sql, *parameters)  # type: ignore[arg-type]


def sqlite3_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


def test_a_checkpoint_moves_the_log_into_the_file(database: sqlite3.Connection, tmp_path: Path) -> None:
    database.execute("CREATE TABLE told (text)")
    checkpoint(database)
    with sqlite3.connect(f"file:{tmp_path / storage.DATABASE}?immutable=1", uri=True) as file:
        assert file.execute("SELECT count(*) FROM told").fetchone() == (0,)


def test_no_checkpoint_runs_beside_a_second_connection(database: sqlite3.Connection, tmp_path: Path) -> None:
    file = tmp_path / storage.DATABASE
    before = file.read_bytes()
    with storage.second_connection(tmp_path) as second, storage.transaction(second, tmp_path) as db:
        db.execute("CREATE TABLE told (text)")
        checkpoint(database)
        assert file.read_bytes() == before
    checkpoint(database)
    assert file.read_bytes() != before


async def test_the_third_failed_checkpoint_in_a_row_is_told_and_so_is_the_first_that_succeeds(tmp_path: Path) -> None:
    storage.open_database(tmp_path).close()
    connection = Failing(tmp_path / storage.DATABASE)
    checkpoints, told = Checkpoints(connection, tmp_path), list[bool]()
    checkpoints.listeners.append(lambda: told.append(checkpoints.failing))
    for count in range(1, DEGRADED_AFTER + 2):
        await checkpoints.once()
        assert checkpoints.failed_in_a_row == count
        assert checkpoints.failure is not None
        assert checkpoints.failure.reason is ErrorReason.STORAGE_FAILED
    assert told == [True]
    connection.failing = False
    await checkpoints.once()
    assert (told, checkpoints.failure, checkpoints.failed_in_a_row) == ([True, False], None, 0)
    connection.close()


class Slow(storage.Database):
    """A connection whose checkpoints wait for a slow disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun, self.disk = threading.Event(), threading.Event()

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
        if "wal_checkpoint" in sql:
            self.begun.set()
            assert self.disk.wait(10), "nothing else ran meanwhile"
        return super().execute(sql, *parameters)  # type: ignore[arg-type]


async def begun(connection: Slow) -> None:
    """Wait, while the event loop runs, for a checkpoint that waits for the disk."""
    assert await asyncio.to_thread(connection.begun.wait, 10)


async def test_the_event_loop_runs_while_a_checkpoint_waits_for_the_disk_and_a_transaction_comes_after_it(
    tmp_path: Path,
) -> None:
    storage.open_database(tmp_path).close()
    with closing(Slow(tmp_path / storage.DATABASE)) as connection:
        checkpoints = Checkpoints(connection, tmp_path)
        checkpoint_of_slow_disk = asyncio.create_task(checkpoints.once())
        await begun(connection)
        assert not connection.turn.acquire(blocking=False), "a transaction would run beside the checkpoint"
        connection.disk.set()
        with storage.transaction(connection, tmp_path) as db:
            db.execute("CREATE TABLE told (text)")
        await checkpoint_of_slow_disk
        assert checkpoints.failure is None


def test_a_connection_closes_after_the_checkpoint_that_runs(tmp_path: Path) -> None:
    class Turn:
        """The lock, which tells that it is wanted."""

        def __init__(self) -> None:
            self.wanted, self.lock = threading.Event(), threading.Lock()

        def __enter__(self) -> None:
            self.wanted.set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    connection = storage.open_database(tmp_path)
    turn = Turn()
    connection.turn = turn  # pyright: ignore[reportAttributeAccessIssue]
    with ThreadPoolExecutor(1) as other:
        with turn.lock:
            closed = other.submit(connection.close)
            assert turn.wanted.wait(10)
            assert connection.execute("SELECT 1").fetchone() == (1,)
        closed.result(10)
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


async def test_a_truncation_that_waits_for_the_disk_does_not_stop_the_event_loop(tmp_path: Path) -> None:
    with closing(storage.open_database(tmp_path)) as first:
        first.execute("CREATE TABLE told (text)")
        with closing(Slow(tmp_path / storage.DATABASE)) as connection:
            connection.execute("INSERT INTO told VALUES ('secret prompt')")
            erased = asyncio.create_task(Erasure(connection, tmp_path).complete())
            await begun(connection)
            log = tmp_path / f"{storage.DATABASE}-wal"
            assert b"secret prompt" in log.read_bytes()
            connection.disk.set()
            await erased
            assert log.stat().st_size == 0


async def test_a_checkpoint_that_meets_a_reading_is_made_after_it(tmp_path: Path) -> None:
    class Reading(storage.Database):
        """A connection that is read whenever another thread comes."""

        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
            if "wal_checkpoint" in sql and threading.current_thread() is not threading.main_thread():
                with closing(super().execute("SELECT text FROM told")) as rows:
                    rows.fetchone()
                    return super().execute(sql)
            return super().execute(sql, *parameters)  # type: ignore[arg-type]

    storage.open_database(tmp_path).close()
    with closing(Reading(tmp_path / storage.DATABASE)) as connection:
        connection.execute("CREATE TABLE told (text)")
        connection.executemany("INSERT INTO told VALUES (?)", [("a",), ("b",)])
        checkpoints = Checkpoints(connection, tmp_path)
        await checkpoints.once()
        assert checkpoints.failure is None
        with sqlite3.connect(f"file:{tmp_path / storage.DATABASE}?immutable=1", uri=True) as file:
            assert file.execute("SELECT count(*) FROM told").fetchone() == (2,)


async def test_a_system_without_threads_fails_a_checkpoint_and_not_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with closing(storage.open_database(tmp_path)) as connection:
        checkpoints, erasure = Checkpoints(connection, tmp_path), Erasure(connection, tmp_path)
        with monkeypatch.context() as none_left:
            none_left.setattr("domains.checkpoints.asyncio.to_thread", refuse)
            await checkpoints.once()
            assert checkpoints.failure is not None
            assert checkpoints.failure.reason is ErrorReason.QUOTA_EXCEEDED
            await erasure.complete()
        connection.execute("CREATE TABLE told (text)")
        log = tmp_path / f"{storage.DATABASE}-wal"
        assert log.stat().st_size
        await checkpoints.once()
        assert checkpoints.failure is None
        await erasure.complete()
        assert log.stat().st_size == 0


async def test_periodic_checkpoints_go_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.checkpoints._RETRY_S", 0.0)
    storage.open_database(tmp_path).close()
    connection = Failing(tmp_path / storage.DATABASE)
    checkpoints, failing = Checkpoints(connection, tmp_path), asyncio.Event()
    checkpoints.listeners.append(failing.set)
    task = asyncio.create_task(checkpoints.keep_up(0.0))
    await asyncio.wait_for(failing.wait(), 10)
    task.cancel()
    connection.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), ErrorReason.STORAGE_FULL),
        (OSError(errno.EDQUOT, "quota"), ErrorReason.STORAGE_FULL),
        *((OSError(code, "failed"), ErrorReason.STORAGE_FAILED) for code in (5, 13, 27, 30)),
        (OSError(errno.ENOMEM, "none"), ErrorReason.HOST_OUT_OF_MEMORY),
        (sqlite3_error(sqlite3.SQLITE_IOERR_NOMEM), ErrorReason.HOST_OUT_OF_MEMORY),
        *((OSError(code, "none"), ErrorReason.QUOTA_EXCEEDED) for code in (errno.EMFILE, errno.ENFILE)),
        (sqlite3_error(sqlite3.SQLITE_FULL), ErrorReason.STORAGE_FULL),
        (sqlite3_error(sqlite3.SQLITE_IOERR_FSYNC), ErrorReason.STORAGE_FAILED),
        (sqlite3_error(sqlite3.SQLITE_CANTOPEN), ErrorReason.STORAGE_FAILED),
        (sqlite3_error(sqlite3.SQLITE_READONLY), ErrorReason.STORAGE_FAILED),
        (sqlite3_error(sqlite3.SQLITE_CORRUPT), ErrorReason.CHECKPOINT_CORRUPT),
    ],
)
def test_each_error_of_the_disk_has_a_reason(error: Exception, reason: ErrorReason, tmp_path: Path) -> None:
    with pytest.raises(DeviceOpsError) as told, storage.storage_errors(tmp_path):
        raise error
    assert told.value.reason is reason


def test_an_io_error_of_a_full_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "KEPT_FREE_BYTES", 1 << 62)
    with pytest.raises(DeviceOpsError) as told, storage.storage_errors(tmp_path):
        raise sqlite3_error(sqlite3.SQLITE_IOERR)
    assert told.value.reason is ErrorReason.STORAGE_FULL


def test_a_database_that_no_descriptor_is_left_for_is_no_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("os.open", refuse)
    known = storage.storage_error(sqlite3_error(sqlite3.SQLITE_CANTOPEN), tmp_path)
    assert known is not None
    assert (known.reason, "ulimit -n" in known.message) == (ErrorReason.QUOTA_EXCEEDED, True)


def test_an_error_that_is_not_the_disks_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.IntegrityError), storage.storage_errors(tmp_path):
        raise sqlite3.IntegrityError("UNIQUE constraint failed")


@pytest.mark.parametrize("lasting", list(storage.Durability))
def test_the_durability_asked_for_is_the_one_that_sqlite_reports(lasting: storage.Durability, tmp_path: Path) -> None:
    opened = storage.open_database(tmp_path, lasting)
    assert storage.durability(opened) is lasting
    opened.close()


@pytest.mark.parametrize(
    ("version", "bug"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_versions_of_sqlite_with_the_wal_reset_bug_are_known(version: tuple[int, ...], bug: bool) -> None:
    assert has_wal_reset_bug(version) is bug


def test_no_journal_of_a_statement_is_a_file(tmp_path: Path) -> None:
    """SQLite would make one in /var/tmp, with the prompts that the statement changes (https://sqlite.org/tempfiles.html)."""
    with closing(storage.open_database(tmp_path)) as connection:
        (store,) = connection.execute("PRAGMA temp_store").fetchone()
    assert store == 2
