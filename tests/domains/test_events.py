"""The log of changes on disk: what a restart finds again, and how much is kept."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from domains import storage
from domains.errors import ErrorReason
from domains.events import EventDomain, EventLog, Severity
from domains.failure import Failure
from domains.system_event import EventBounds, StoredSnapshot, SystemEvent

Opened = Callable[..., EventLog]
DEVICE = EventDomain.DEVICE


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(storage.open_database(tmp_path)) as connection:
        yield connection


@pytest.fixture
def opened(database: sqlite3.Connection, tmp_path: Path) -> Opened:
    """The log, as a server finds it that starts now."""

    def open_log(instance_id: str = "", **bounds: float) -> EventLog:
        chosen = msgspec.convert(bounds, EventBounds)
        return EventLog(
            database,
            tmp_path,
            instance_id=instance_id,
            bounds=chosen,
            # Read at each call, so that a test can set the clock.
            expiry_now=lambda: time.time(),
            to_store=lambda value: StoredSnapshot("text", str(value).encode()) if value else None,
        )

    return open_log


def sequences(log: EventLog, after: int = 0) -> list[int]:
    return [entry.sequence for entry in log.journal.after(after)]


def facts(log: EventLog) -> list[tuple[int, float, SystemEvent]]:
    return [(entry.sequence, entry.time_s, entry.value) for entry in log.journal.after(0)]


def test_a_restart_finds_events_with_their_sequences_dates_and_instance(opened: Opened) -> None:
    first = opened("one")
    lost = first.tell(DEVICE, "device.lost", "sim-0", "pulled out", severity=Severity.ERROR)
    failure = Failure(reason=ErrorReason.DEVICE_LOST, message="gone")
    first.tell(EventDomain.PROCESSING, "job.state_changed", "job", cause=lost, failure=failure, snapshot="a job")
    again = opened("two")
    found = facts(again)
    assert [event for _, _, event in found] == [
        first.journal.after(0)[0].value,
        msgspec.structs.replace(first.journal.after(0)[1].value, snapshot=StoredSnapshot("text", b"a job")),
    ]
    assert [(sequence, time_s) for sequence, time_s, _ in found] == [
        (sequence, time_s) for sequence, time_s, _ in facts(first)
    ]
    number = again.tell(DEVICE, "device.returned", "sim-0")
    assert number > sequences(first)[-1]
    assert [entry.value.instance_id for entry in opened().journal.after(0)] == ["one", "one", "two"]


def test_a_log_that_was_closed_goes_on_with_the_next_sequence(opened: Opened) -> None:
    first = opened()
    last = first.tell(DEVICE, "device.lost")
    first.close()
    assert opened().tell(DEVICE, "device.returned") == last + 1


def test_the_oldest_go_beyond_the_number_and_readers_of_them_are_told(opened: Opened) -> None:
    log = opened(count=150)
    for _ in range(400):
        log.tell(DEVICE, "device.lost")
    again = opened(count=150)
    assert sequences(again) == list(range(251, 401))
    assert [again.missed(position) for position in (0, 249, 250, 300, 400)] == [True, True, False, False, False]


def test_the_oldest_go_beyond_the_size(opened: Opened) -> None:
    log = opened(size_bytes=100_000)
    for _ in range(300):
        log.tell(DEVICE, "device.lost", message="x" * 1000)
    # While it runs, some more are there: they go in groups.
    assert len(sequences(log)) < 200
    kept = sequences(opened(size_bytes=100_000))
    assert 80 < len(kept) < 100
    assert kept[-1] == 300


def test_old_events_go_with_their_age(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("time.time", lambda: 1_000_000.0)
        log = opened(age_s=60)
        log.tell(DEVICE, "device.lost")
        earlier.setattr("time.time", lambda: 1_000_050.0)
        log.tell(DEVICE, "device.returned")
        earlier.setattr("time.time", lambda: 1_000_070.0)
        # A quiet server lets them go too.
        log.flush(slack=0)
        assert sequences(log) == [2]
        assert log.missed(0)
        assert not log.missed(1)
        assert sequences(opened(age_s=60)) == [2]
    assert sequences(opened(age_s=60)) == []


def test_an_event_that_cannot_be_read_is_skipped_with_a_warning(opened: Opened, database: sqlite3.Connection) -> None:
    log = opened()
    for _ in range(4):
        log.tell(DEVICE, "device.lost")
    newer = msgspec.msgpack.encode({"domain": "astrology", "kind": "star.fell"})
    database.execute("UPDATE system_events SET body = ? WHERE sequence = 2", (newer,))
    database.execute("UPDATE system_events SET body = ? WHERE sequence = 3", (b"\xc1",))
    with capture_logs() as told:
        again = opened()
    assert sequences(again) == [1, 4]
    assert [(line["log_level"], line["sequence"]) for line in told] == [("warning", 2), ("warning", 3)]


def test_a_reader_who_saw_what_the_disk_did_not_keep_is_told(opened: Opened, database: sqlite3.Connection) -> None:
    log = opened()
    for _ in range(5):
        log.tell(DEVICE, "device.lost")
    database.execute("DELETE FROM system_events WHERE sequence > 3")
    again = opened()
    again.tell(DEVICE, "device.returned")
    assert [again.missed(position) for position in (3, 4, 5)] == [False, True, True]


def test_a_deleted_job_leaves_its_events_without_what_it_was(opened: Opened, database: sqlite3.Connection) -> None:
    log = opened()
    for job_id in ("kept", "deleted"):
        log.tell(EventDomain.PROCESSING, "job.state_changed", job_id, snapshot="a secret prompt")
        database.execute(
            "INSERT INTO jobs (id, session_id, kind, state, sequence_ceiling) VALUES (?, '', 'generate', 'cancelled', 0)",
            (job_id,),
        )
    database.execute("UPDATE system_events SET snapshot_kind = 'job'")
    database.execute("DELETE FROM jobs WHERE id = 'deleted'")
    found = {event.resource_id: event.snapshot for _, _, event in facts(opened())}
    assert found == {"kept": StoredSnapshot("job", b"a secret prompt"), "deleted": None}


async def test_events_of_one_turn_are_one_transaction_and_stored_before_readers_wake(
    opened: Opened, database: sqlite3.Connection
) -> None:
    log, statements, stored = opened(), list[str](), list[int]()

    async def reader() -> None:
        await log.journal.more(0, 5)
        stored.extend(database.execute("SELECT count(*) FROM system_events").fetchone())

    reading = asyncio.create_task(reader())
    await asyncio.sleep(0)
    log.tell(DEVICE, "device.appeared")
    database.set_trace_callback(statements.append)
    for _ in range(49):
        log.tell(DEVICE, "device.lost")
    await reading
    assert stored == [50]
    assert sum(text.startswith("BEGIN") for text in statements) == 1


async def test_a_full_disk_keeps_no_reader_from_hearing_and_is_made_good_later(
    opened: Opened, database: sqlite3.Connection
) -> None:
    log = opened()
    log.tell(DEVICE, "device.appeared")
    log.flush()
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count={pages}")
    for _ in range(50):
        log.tell(DEVICE, "device.lost", message="x" * 1000)
    with capture_logs() as told:
        log.flush()
    assert [line["event"] for line in told] == ["events not stored"]
    assert len(sequences(log)) == 51
    assert sequences(opened()) == [1]
    database.execute("PRAGMA max_page_count=1000000")
    log.flush()
    assert sequences(opened()) == sequences(log)
