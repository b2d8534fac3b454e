"""The log of changes of a server that dies or stops, and is started again on the same state folder."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from deviceops.processing.v1 import processing_service_pb2
from domains.storage import open_database
from server.cli.app import run
from tests.server import asking
from tests.server.asking import CALL_S
from tests.server.harness import RunningServer, running_server

Response = processing_service_pb2.WatchEventsResponse


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server("--device", "sim:2") as running:
        asking.watch(running, asking.submit(running))
        yield running


def told(server: RunningServer, after: int = 0) -> list[Response]:
    """The first message, and the events up to the newest one at that moment."""
    request = processing_service_pb2.WatchEventsRequest(after_sequence=after)
    call = server.processing.WatchEvents(request, timeout=CALL_S)
    found = [next(call)]
    while (found[-1].event.sequence or after) < found[0].last_sequence:
        found.append(next(call))
    call.cancel()
    return found


def events_of(found: list[Response]) -> dict[int, bytes]:
    return {one.event.sequence: one.event.SerializeToString(deterministic=True) for one in found[1:]}


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_a_restarted_server_tells_the_events_of_before_as_they_were(server: RunningServer, ending: str) -> None:
    before = told(server)
    instance = before[0].server_instance_id
    getattr(server, ending)()
    server.start()
    after = told(server)
    assert not after[0].events_missed
    assert after[0].server_instance_id != instance
    old = {one.event.sequence: one for one in after[1:] if one.event.server_instance_id == instance}
    seen = events_of(before)
    # Sequences, dates, causes, failures and the things as they were: byte for byte.
    assert {sequence: events_of(after)[sequence] for sequence in seen} == seen
    assert {"system.started", "device.appeared", "job.state_changed", "loaded_model.loaded"} <= {
        one.event.kind for one in old.values()
    }
    new = [one.event for one in after[1:] if one.event.sequence not in old]
    assert new[0].kind == "system.started"
    assert {event.server_instance_id for event in new} == {after[0].server_instance_id}
    assert min(event.sequence for event in new) > max(old)
    numbers = [one.event.sequence for one in after[1:]]
    assert numbers == sorted(set(numbers))
    # A reader goes on where it was.
    resumed = told(server, max(seen))
    assert not resumed[0].events_missed
    assert resumed[1].event.sequence > max(seen)


def test_a_reader_of_what_is_gone_hears_since_when_the_log_is_kept(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    last = told(server)[0].last_sequence
    server.kill()
    with closing(open_database(server.state)) as database:
        # Ten days ago: beyond the age that is kept.
        database.execute("UPDATE system_events SET age_from_s = age_from_s - 864000 WHERE sequence < ?", (last,))
        database.execute("UPDATE system_events SET body = x'c1' WHERE sequence = ?", (last,))
    server.start()
    found = told(server)
    assert found[0].events_missed
    assert found[0].oldest_event_time == found[1].event.event_time
    assert found[1].event.kind == "system.started"
    assert found[1].event.server_instance_id == found[0].server_instance_id
    assert "event skipped" in server.log.read_text()
    assert run(["events", "--after", "0", "--limit", "1", "--address", server.address]) == 0
    shown = capsys.readouterr()
    since = found[1].event.event_time.ToDatetime().strftime("%M:%S")
    assert shown.err.startswith("Earlier events are gone: this log starts at ")
    assert shown.err.endswith(f"{since}.\n")
