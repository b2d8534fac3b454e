"""The state folder: its lock, its database, and the errors of a full or damaged disk.

SQLite in WAL mode. A commit with `synchronous=NORMAL` survives the death of the process at any point (not the loss of
power, after which the last moments may be missing but the file is whole). It costs tens of microseconds, so the event
loop may do it; the checkpoint, which does wait for the disk, runs on a thread of its own (`keep_checkpointed`).
"""

import asyncio
import contextlib
import errno
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from domains.errors import AlreadyExists, DataLoss, ErrorReason, FailedPrecondition, ResourceExhausted
from domains.migrations import MIGRATIONS

DATABASE = "state.sqlite3"
_SYNCHRONOUS_FULL = 2
"""Levels from this value on wait for the disk at each commit."""
KEPT_FREE_BYTES = 256 * 1024
"""With less free space no new work begins: it could not store its result, and running work needs the space."""


@contextmanager
def storage_errors(folder: Path) -> Generator[None]:
    """Translate errors of SQLite and the file system on a full or damaged disk."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise _full(folder) from error
        raise
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise DataLoss(
                f"the database in {folder} is damaged; move it away and start again", ErrorReason.CHECKPOINT_CORRUPT
            ) from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder) from error
        raise


def _full(folder: Path) -> ResourceExhausted:
    return ResourceExhausted(
        f"the disk under {folder} is full; free space there or delete jobs, then retry",
        ErrorReason.STORAGE_FULL,
        folder=folder,
    )


def room_for_work(folder: Path) -> None:
    """Raise STORAGE_FULL if running work needs the remaining space to store its end.

    SQLite alone does not detect it: after a checkpoint it writes into old pages of its log, however full the disk is.
    """
    with storage_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < KEPT_FREE_BYTES:
        raise _full(folder)


def open_database(folder: Path) -> sqlite3.Connection:
    """The state folder's database, for use on one thread, brought to this server's version.

    Raises ILLEGAL_STATE for a folder of a newer version, which stays as it is.
    """
    with storage_errors(folder):
        connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
        try:
            _check_version(connection, folder)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            # Deleted rows become zeros: https://sqlite.org/pragma.html#pragma_secure_delete
            connection.execute("PRAGMA secure_delete=ON")
            _migrate(connection, folder)
        except BaseException:
            connection.close()
            raise
    return connection


def version(connection: sqlite3.Connection) -> int:
    """The version of the folder's tables; 0: the folder is empty, or older than versions."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return found


def _check_version(connection: sqlite3.Connection, folder: Path) -> None:
    found, known = version(connection), len(MIGRATIONS)
    if found > known:
        raise FailedPrecondition(
            f"the state folder {folder} has version {found}, and this server knows versions up to {known}: a newer server"
            " wrote it; start that one, or choose another folder with --state",
            state_folder=folder,
            folder_version=found,
            known_version=known,
        )


def _migrate(connection: sqlite3.Connection, folder: Path) -> None:
    """Run all migrations that the folder lacks, or none of them."""
    if version(connection) == len(MIGRATIONS):
        return
    with transaction(connection, folder) as db:
        for migration in MIGRATIONS[version(db) :]:
            migration(db, folder)
        # A pragma takes no parameters.
        db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


class Durability(StrEnum):
    """The failures that a committed transaction survives."""

    PROCESS = "process"
    """It survives the death of the process."""
    POWER = "power"
    """It survives a loss of power too."""


def durability(connection: sqlite3.Connection) -> Durability:
    """The durability of commits, as SQLite reports it (https://sqlite.org/pragma.html#pragma_synchronous)."""
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    return Durability.POWER if synchronous >= _SYNCHRONOUS_FULL else Durability.PROCESS


@contextmanager
def transaction(connection: sqlite3.Connection, folder: Path) -> Generator[sqlite3.Connection]:
    """Commit the whole transaction, or nothing."""
    with storage_errors(folder):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


async def keep_checkpointed(folder: Path, every_s: float) -> None:
    """Move the write-ahead log into the database file periodically, off the event loop."""
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(checkpoint, folder)


def checkpoint(folder: Path) -> None:
    """Move the write-ahead log into the database file. ENOSPC and files that cannot be opened are expected; the next
    write reports them to its caller."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(folder / DATABASE)) as database,
    ):
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")


def truncate_log(folder: Path) -> bool:
    """Move the write-ahead log into the database file and empty it, so that it keeps no deleted text. False: another
    connection used the log, or the disk refused."""
    checkpoint(folder)  # without blocking writers; what is left for TRUNCATE, which blocks them, is short
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(folder / DATABASE)) as database,
    ):
        (busy, *_) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    return False


@contextmanager
def owned(folder: Path) -> Generator[None]:
    """Lock the state folder for this process. The system drops the lock when the process ends, for any reason."""
    lock = FileLock(folder / "lock", timeout=0)
    try:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = lock.acquire()
    except Timeout:
        message = f"another server uses the state folder {folder}; stop it, or choose another folder with --state"
        raise AlreadyExists(message, state_folder=folder) from None
    with held:
        yield
