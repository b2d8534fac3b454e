"""A wrong date at a start deletes no job: a real server on a state folder that was written days earlier by its clock."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from deviceops.common.v1 import domain_pb2, error_pb2
from deviceops.processing.v1 import processing_service_pb2
from deviceops.processing.v1.system_event_pb2 import SystemEvent
from domains.storage import DATABASE
from server.cli.app import run
from tests.server import asking
from tests.server.asking import CALL_S
from tests.server.harness import RunningServer, running_server

BEHIND_S = 8 * 86_400


def turn_back(server: RunningServer, kept_s: float = 0.0) -> None:
    """Change what a stopped server stored, as if the clock had been eight days behind until now."""
    with closing(sqlite3.connect(server.state / DATABASE)) as database, database:
        database.execute("UPDATE clock SET wall_s = wall_s - ?", (BEHIND_S,))
        database.execute("UPDATE jobs SET expire_time_s = expire_time_s - ?", (BEHIND_S - kept_s,))
        database.execute("UPDATE system_events SET time_s = time_s - ?", (BEHIND_S,))
        database.execute("UPDATE system_events SET age_from_s = time_s")


@pytest.fixture(scope="module")
def stepped() -> Iterator[tuple[RunningServer, str]]:
    """A server that has ended a job, and was started again after the clock went forward by eight days."""
    with running_server("--device", "sim") as server:
        job_id = asking.submit(server)
        asking.watch(server, job_id)
        server.stop()
        turn_back(server)
        server.start()
        yield server, job_id


def detail(server: RunningServer) -> str:
    domains = server.status().domains
    return next(one.detail for one in domains if one.domain == domain_pb2.DOMAIN_PROCESSING)


def events_of(server: RunningServer) -> Iterator[SystemEvent]:
    request = processing_service_pb2.WatchEventsRequest(after_sequence=0)
    call = server.processing.WatchEvents(request, timeout=CALL_S)
    for update in call:
        yield update.event
    call.cancel()


def test_a_clock_that_went_forward_deletes_no_job_and_no_picture(stepped: tuple[RunningServer, str]) -> None:
    server, job_id = stepped
    result = asking.watch(server, job_id)[-1].generation_result
    assert asking.blob(server, result.images[0].file.blob_id)


def test_the_step_is_told(stepped: tuple[RunningServer, str]) -> None:
    server, _ = stepped
    assert "the clock went forward by 8.0 d" in detail(server)
    assert list(_until(events_of(server), "system.clock_stepped"))[-1].severity == error_pb2.SEVERITY_WARNING


def test_an_operator_confirms_the_date_with_a_command(
    stepped: tuple[RunningServer, str], capsys: pytest.CaptureFixture[str]
) -> None:
    server, job_id = stepped
    assert server.status().clock.is_in_doubt
    assert 3500 < server.status().clock.agreement_left.ToSeconds() <= 3600
    assert run(["clock", "--address", server.address]) == 0
    assert "`deviceops clock confirm` ends it at once" in capsys.readouterr().out
    assert run(["clock", "confirm", "--cause", "checked by hand", "--address", server.address]) == 0
    assert "the date counts as right" in capsys.readouterr().out
    assert not server.status().clock.is_in_doubt
    assert not server.status().clock.HasField("agreement_left")
    assert detail(server) == ""
    confirmed = list(_until(events_of(server), "system.clock_confirmed"))[-1]
    assert "checked by hand" in confirmed.message
    # Its age did not change with the date.
    assert asking.job_of(server, job_id).id == job_id


def test_an_operator_confirms_the_date_with_a_start(stepped: tuple[RunningServer, str]) -> None:
    server, job_id = stepped
    server.stop()
    # Its records were dated eight days ago; the job is kept for longer.
    turn_back(server, kept_s=2 * BEHIND_S)
    server.start("--trust-clock")
    assert not server.status().clock.is_in_doubt
    assert asking.job_of(server, job_id).id == job_id


def _until(events: Iterator[SystemEvent], kind: str) -> Iterator[SystemEvent]:
    for event in events:
        yield event
        if event.kind == kind:
            return
