"""The state folder: its lock, its database, and the errors of a full, failing or damaged disk.

SQLite in WAL mode. A commit with `synchronous=NORMAL` survives the death of the process at any point (not the loss of
power, after which the last moments may be missing but the file is whole), and costs tens of microseconds. With
`synchronous=FULL` it survives the loss of power too, and each commit waits for the disk. `checkpoints` moves the log
into the file.
"""

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from domains.descriptors import OPEN_FLAGS, none_left
from domains.errors import (
    AlreadyExists,
    DataLoss,
    DeviceOpsError,
    ErrorReason,
    FailedPrecondition,
    InternalError,
    ResourceExhausted,
)
from domains.migrations import MIGRATIONS
from domains.system_errors import no_memory

DATABASE = "state.sqlite3"
_NO_FAULTS = (FileNotFoundError, FileExistsError, TimeoutError)
_FAULTS = frozenset(
    (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_PROTOCOL,
    )
)
"""SQLite's codes of a disk that failed, or of a database that another process keeps locked."""
_SYNCHRONOUS_FULL = 2
"""Levels from this value on wait for the disk at each commit."""
KEPT_FREE_BYTES = 256 * 1024
"""With less free space no new work begins: it could not store its result, and running work needs the space."""


@contextmanager
def storage_errors(folder: Path) -> Generator[None]:
    """Translate errors of SQLite and the file system on a full, failing or damaged disk."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        known = storage_error(error, folder)
        if known is None:
            raise
        raise known from error


def storage_error(error: sqlite3.Error | OSError, folder: Path) -> DeviceOpsError | None:
    """The error that a caller receives. None: the disk is not at fault."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _full(folder)
        if error.errno == errno.ENOMEM:
            return no_memory()
        if known := none_left(error):
            return known
        # A lock that is taken, and a file that another thread has just made or removed, are no faults of the disk.
        return None if isinstance(error, _NO_FAULTS) else storage_failed(folder, error)
    extended = getattr(error, "sqlite_errorcode", 0)
    if extended == sqlite3.SQLITE_IOERR_NOMEM:
        return no_memory()
    code = extended & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _has_no_room(folder)):
        return _full(folder)
    if code == sqlite3.SQLITE_CANTOPEN and (known := _no_descriptor()):
        return known
    if code in _FAULTS:
        return storage_failed(folder, error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        message = f"the database in {folder} is damaged; move it away and start again"
        return DataLoss(message, ErrorReason.CHECKPOINT_CORRUPT)
    return None


def storage_failed(folder: Path, error: Exception) -> InternalError:
    """The error for a disk that returned an error other than a full disk."""
    problem = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return InternalError(
        f"the disk under {folder} returned an error ({problem}); have its operator look, then retry",
        ErrorReason.STORAGE_FAILED,
        folder=folder,
        problem=problem,
    )


def _no_descriptor() -> ResourceExhausted | None:
    """SQLite does not say why it cannot open a file; the system does."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | OPEN_FLAGS))
    except OSError as error:
        return none_left(error)
    return None


def _has_no_room(folder: Path) -> bool:
    """Whether the disk is full. SQLite reports some writes to a full disk as I/O errors."""
    try:
        return shutil.disk_usage(folder).free < KEPT_FREE_BYTES
    except OSError:
        return False


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


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raise STORAGE_FULL if the disk of a folder has no room for so many bytes more."""
    with storage_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < needed_bytes + KEPT_FREE_BYTES:
        raise ResourceExhausted(
            f"{needed_bytes} bytes would be written, and the disk under {folder} has {free} left; free space there",
            ErrorReason.STORAGE_FULL,
            folder=folder,
            needed_bytes=needed_bytes,
            free_bytes=free,
        )


class Durability(StrEnum):
    """The failures that a committed transaction survives."""

    PROCESS = "process"
    """It survives the death of the process."""
    POWER = "power"
    """It survives a loss of power too."""


class Database(sqlite3.Connection):
    """A connection of one thread, but for its checkpoints, which another thread makes in its turn."""

    turn: threading.RLock
    """Held by a transaction, and by a checkpoint."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, isolation_level=None, check_same_thread=False)
        self.turn = threading.RLock()

    def close(self) -> None:
        """Close after the checkpoint that runs, if one does: Python's module would use the closed database."""
        with self.turn:
            super().close()


_SYNCHRONOUS = {Durability.PROCESS: "NORMAL", Durability.POWER: "FULL"}


def open_database(folder: Path, lasting: Durability = Durability.PROCESS) -> Database:
    """The state folder's database, for use on one thread, brought to this server's version.

    `lasting`: the failures that a commit survives.

    Raises ILLEGAL_STATE for a folder of a newer version, which stays as it is.
    """
    with storage_errors(folder):
        _make_private(folder / DATABASE)
        connection = Database(folder / DATABASE)
        try:
            _check_version(connection, folder)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={_SYNCHRONOUS[lasting]}")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            # Statement journals hold changed rows, prompts too; by default they are files in the system's temporary folder.
            connection.execute("PRAGMA temp_store=MEMORY")
            # Deleted rows become zeros: https://sqlite.org/pragma.html#pragma_secure_delete
            connection.execute("PRAGMA secure_delete=ON")
            _migrate(connection, folder)
        except BaseException:
            connection.close()
            raise
    return connection


def _make_private(database: Path) -> None:
    """Make a new database readable by this user alone, also in a folder that others may look into. SQLite gives the log the
    mode of the database. An existing file is not opened: closing a descriptor of it drops SQLite's locks."""
    if not database.exists():
        with suppress(FileNotFoundError):  # there is no folder, which SQLite tells
            os.close(os.open(database, os.O_CREAT | os.O_WRONLY | OPEN_FLAGS, 0o600))


_side = threading.Lock()
"""Held while a second connection is open, and during a checkpoint."""


@contextmanager
def side_turn(*, wait: bool) -> Generator[bool]:
    """Keep checkpoints and second connections apart. Yields False if it is the other's turn and `wait` is false."""
    mine = _side.acquire(blocking=wait)
    try:
        yield mine
    finally:
        if mine:
            _side.release()


@contextmanager
def second_connection(folder: Path) -> Generator[sqlite3.Connection]:
    """A short-lived second connection, for another thread. No checkpoint runs while it is open."""
    with side_turn(wait=True), closing(open_database(folder)) as connection:
        yield connection


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


def durability(connection: sqlite3.Connection) -> Durability:
    """The durability of commits, as SQLite reports it (https://sqlite.org/pragma.html#pragma_synchronous)."""
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    return Durability.POWER if synchronous >= _SYNCHRONOUS_FULL else Durability.PROCESS


def turn_of(connection: sqlite3.Connection) -> AbstractContextManager[object]:
    """Keeps transactions and checkpoints of a `Database` apart; another connection is used by one thread alone."""
    return connection.turn if isinstance(connection, Database) else nullcontext()


@contextmanager
def transaction(connection: sqlite3.Connection, folder: Path) -> Generator[sqlite3.Connection]:
    """Commit the whole transaction, or nothing."""
    with storage_errors(folder), turn_of(connection):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


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
