"""Commits beside checkpoints, as the server does both: whether the database stays whole, and how long one waits.

python -m bench.attacks.wal_reset [COMMITS] [process|power]      10,000,000 and process where nothing is given

SQLite 3.7.0 to 3.51.2 can lose commits when two connections write and checkpoint at one moment. The server has one
connection that does both, and second connections take turns with the checkpoints: a thread opens one here all the time.
"""

import asyncio
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from bench.attacks.harness import tell
from domains import storage
from domains.checkpoints import Checkpoints, has_wal_reset_bug

COMMITS = 10_000_000
_ROWS = 5000
_AT_ONCE = 200
"""Commits beside one checkpoint."""


async def attack(folder: Path, count: int, lasting: storage.Durability) -> dict[str, object]:
    """Commit, checkpoint and open second connections; compare every row at the end."""
    stop, second, waits = threading.Event(), [0], list[float]()
    with closing(storage.open_database(folder, lasting)) as connection:
        connection.execute("CREATE TABLE told (one INTEGER PRIMARY KEY, value INTEGER NOT NULL, filler BLOB NOT NULL)")
        connection.execute("CREATE TABLE others (value INTEGER PRIMARY KEY)")
        thread = threading.Thread(target=_others, args=(folder, stop, second))
        thread.start()
        checkpoints, commits, begin = Checkpoints(connection, folder), 0, time.perf_counter()
        while commits < count:
            before = time.perf_counter()
            checkpoint = asyncio.create_task(checkpoints.once())
            for _ in range(_AT_ONCE):
                commits += 1
                row = (commits % _ROWS, commits, bytes(commits % 2000))
                with storage.transaction(connection, folder) as db:
                    db.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?)", row)
                await asyncio.sleep(0)
            await checkpoint
            waits.append(time.perf_counter() - before)
            # Commits without a pause would keep a second connection out until it gives up.
            await asyncio.to_thread(_let_in)
        took = time.perf_counter() - begin
        stop.set()
        thread.join()
    with closing(storage.open_database(folder)) as connection:
        (check,) = connection.execute("PRAGMA integrity_check").fetchone()
        rows = dict(connection.execute("SELECT one, value FROM told"))
        (others,) = connection.execute("SELECT count(*) FROM others").fetchone()
    wanted = {number % _ROWS: number for number in range(max(1, commits - _ROWS + 1), commits + 1)}
    waits.sort()
    return {
        "durability": lasting,
        "has the bug": has_wal_reset_bug(),
        "commits": commits,
        "commits of second connections": second[0],
        "checkpoints": len(waits),
        "failed checkpoints": checkpoints.failed_in_a_row,
        "integrity_check": check,
        "every commit is there": rows == wanted and others == second[0],
        "us a commit, beside all that": took / commits * 1e6,
        "checkpoint ms, median": 1000 * waits[len(waits) // 2],
        "checkpoint ms, slowest": 1000 * waits[-1],
    }


def _let_in() -> None:
    """Return when no second connection is open."""
    with storage.side_turn(wait=True):
        pass


def _others(folder: Path, stop: threading.Event, count: list[int]) -> None:
    while not stop.wait(0.05):
        with storage.second_connection(folder) as connection, storage.transaction(connection, folder) as db:
            db.execute("INSERT INTO others VALUES (?)", (count[0],))
        count[0] += 1


def main() -> int:
    """Print what was found."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COMMITS
    lasting = storage.Durability(sys.argv[2] if len(sys.argv) > 2 else "process")
    with tempfile.TemporaryDirectory() as folder:
        return tell("wal_reset", **asyncio.run(attack(Path(folder), count, lasting)))


if __name__ == "__main__":
    raise SystemExit(main())
