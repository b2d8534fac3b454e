"""WatchEvents: follow every change of state."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc

from deviceops.processing.v1 import processing_service_pb2 as pb
from domains.errors import InvalidRequest, Violation
from domains.events import EventLog, chain_filter
from server import convert
from server.heartbeat import Followed
from server.processing.event_messages import JobMessage, accepting, to_event

MAX_FILTER_ENTRIES = 1000
_LOOKED = 1000
"""Events that a watch looks at in one turn of the event loop."""
_WAIT_S = 60.0
"""Longest single wait for the journal; the reader then waits again."""


class SystemEventMethods:
    """Implements WatchEvents; the servicer inherits it."""

    def __init__(self, events: EventLog, instance_id: str, listed: JobMessage) -> None:
        """`listed`: the message of a job in an event."""
        self._events = events
        self._instance_id = instance_id
        self._listed_job = listed

    def WatchEvents(
        self, request: pb.WatchEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Followed[pb.WatchEventsResponse]:
        """Send a first message at once, then each event that passes the filter. Heartbeats tell the end of the log."""
        return Followed(self._events_after(request), lambda: self._response(self._events.journal.last_sequence))

    async def _events_after(self, request: pb.WatchEventsRequest) -> AsyncGenerator[pb.WatchEventsResponse]:
        """The events after the request's position. The server keeps nothing but that position for a reader."""
        log, wanted = self._events.journal, request.filter
        last = log.last_sequence
        position = request.after_sequence if request.HasField("after_sequence") else last
        _check(request, position, last)
        in_chain, accepts = chain_filter(frozenset(wanted.resource_ids)), accepting(wanted)
        yield self._first(last, position)
        while True:
            for looked, entry in enumerate(log.after(position), 1):
                position = entry.sequence
                # `in_chain` must see every event, because it collects the chain of causes.
                if in_chain(entry) and accepts(entry.value):
                    yield self._response(log.last_sequence, event=to_event(entry, self._listed_job))
                elif looked % _LOOKED == 0:
                    await asyncio.sleep(0)
            await log.more(position, _WAIT_S)

    def _first(self, last: int, position: int) -> pb.WatchEventsResponse:
        """The first message: whether events after the asked sequence are gone, and the time of the oldest kept event."""
        response = self._response(last)
        if self._events.missed(position):
            response.events_missed = True
            if kept := self._events.journal.after(position):
                response.oldest_event_time.CopyFrom(convert.to_time(kept[0].time_s))
        return response

    def _response(self, last: int, event: Any = None) -> pb.WatchEventsResponse:
        return pb.WatchEventsResponse(event=event, last_sequence=last, server_instance_id=self._instance_id)


def _check(request: pb.WatchEventsRequest, position: int, last: int) -> None:
    wrong: list[Violation] = []
    if not 0 <= position <= last:
        text = f"{position} is not within 0..{last}; give the sequence of the last event that you saw"
        wrong.append(Violation(field="after_sequence", message=text, allowed=f"0..{last}"))
    for name in ("domains", "resource_ids", "kinds"):
        if len(getattr(request.filter, name)) > MAX_FILTER_ENTRIES:
            text = f"at most {MAX_FILTER_ENTRIES} entries"
            wrong.append(Violation(field=f"filter.{name}", message=text, allowed=f"0..{MAX_FILTER_ENTRIES}"))
    if wrong:
        raise InvalidRequest(wrong)
