"""Which events a reader of the log hears of."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

from deviceops.common.v1 import error_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.events import EventDomain, EventLog, Severity, SystemEvent
from domains.storage import open_database
from server.processing import system_events
from server.processing.event_messages import accepting


def test_a_severity_lets_through_itself_and_worse() -> None:
    events = [SystemEvent(domain=EventDomain.DEVICE, kind="device.error", severity=severity) for severity in Severity]
    heard = {
        name: [
            event.severity
            for event in events
            if accepting(processing_service_pb2.SystemEventFilter(min_severity=number))(event)
        ]
        for name, number in error_pb2.Severity.items()
    }
    assert heard == {
        "SEVERITY_UNSPECIFIED": [Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL],
        "SEVERITY_INFO": [Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL],
        "SEVERITY_WARNING": [Severity.WARNING, Severity.ERROR, Severity.CRITICAL],
        "SEVERITY_ERROR": [Severity.ERROR, Severity.CRITICAL],
        "SEVERITY_CRITICAL": [Severity.CRITICAL],
    }


@pytest.mark.parametrize(
    ("wanted", "heard"),
    [
        ("device", True),
        ("device.state", True),
        ("device.state.changed", True),
        ("device.sta", False),
        ("device.state.changed.twice", False),
        ("state", False),
        ("", False),
    ],
)
def test_a_kind_lets_through_itself_and_what_is_within(wanted: str, heard: bool) -> None:
    event = SystemEvent(domain=EventDomain.DEVICE, kind="device.state.changed")
    accepts = accepting(processing_service_pb2.SystemEventFilter(kinds=["memory", wanted]))
    assert accepts(event) is heard


def lines(call: Callable[[], object]) -> int:
    """Lines of Python that a call runs."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_an_event_costs_the_same_however_long_the_lists_of_the_filter_are() -> None:
    event = SystemEvent(domain=EventDomain.DEVICE, kind="device.state_changed")
    few, many = (
        accepting(processing_service_pb2.SystemEventFilter(kinds=[f"no.such.{number}" for number in range(count)]))
        for count in (2, 1000)
    )
    assert not many(event)
    assert lines(lambda: many(event)) == lines(lambda: few(event))


async def test_others_run_while_a_watch_looks_at_events_that_it_does_not_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_events, "_LOOKED", 10)
    with closing(open_database(tmp_path)) as database:
        log = EventLog(database, tmp_path)
        for _ in range(100):
            log.tell(EventDomain.DEVICE, "device.appeared")
        log.tell(EventDomain.MEMORY, "memory.wanted")
        wanted = processing_service_pb2.SystemEventFilter(kinds=["memory"])
        request = processing_service_pb2.WatchEventsRequest(after_sequence=0, filter=wanted)
        methods: Any = system_events.SystemEventMethods(log, "", lambda job: job_pb2.Job())
        async with aclosing(methods._events_after(request)) as answers:
            assert not (await anext(answers)).HasField("event")
            found, turns = asyncio.ensure_future(anext(answers)), 0
            while not found.done():
                await asyncio.sleep(0)
                turns += 1
        assert found.result().event.kind == "memory.wanted"
        assert turns >= 10
