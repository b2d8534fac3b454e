"""ProcessingService: sessions."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

import grpc

from deviceops.processing.v1 import processing_service_pb2 as pb
from domains.draining import Draining
from domains.inference.generation import Previews
from domains.processing.jobs.session_log import News
from domains.processing.sessions.live_session import SessionEvent
from domains.processing.sessions.sessions import Sessions
from server import convert, paging
from server.inference.generation_messages import from_previews
from server.once import asked_of, keeps_its_answers
from server.processing.job_messages import rendered
from server.processing.session_messages import from_action, from_filter, from_settings, to_session
from server.processing.watch import Watching

Context = grpc.aio.ServicerContext[Any, Any]


class SessionMethods:
    """The methods for sessions; the servicer inherits it."""

    def __init__(self, sessions: Sessions, watching: Watching, draining: Draining) -> None:
        self._sessions = sessions
        self._session_draining = draining
        self._session_watching = watching

    @keeps_its_answers
    async def OpenSession(self, request: pb.OpenSessionRequest, context: Context) -> pb.OpenSessionResponse:
        """Open a session. The same request again returns the session as it is now."""
        asked = asked_of(request)
        view = self._sessions.requests.known(asked)
        if view is None:
            self._session_draining.check()
            view = self._sessions.open(from_settings(request.settings), asked)
        return pb.OpenSessionResponse(session=to_session(view))

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """Return one session."""
        return pb.GetSessionResponse(session=to_session(self._sessions.get(request.session_id)))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """List sessions, newest first."""
        place, size = paging.place_of(request.page_token), paging.size_of(request.page_size)
        wanted = from_filter(request.filter)
        sessions, following = paging.fill(lambda count: self._sessions.page(wanted, place, count), size, to_session)
        return pb.ListSessionsResponse(sessions=sessions, next_page_token=following)

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: Context) -> pb.UpdateSessionResponse:
        """Change settings of a session."""
        settings, mask = from_settings(request.settings), list(request.update_mask.paths)
        view = self._sessions.update(request.session_id, settings, mask, request.etag)
        return pb.UpdateSessionResponse(session=to_session(view))

    async def PauseSession(self, request: pb.PauseSessionRequest, context: Context) -> pb.PauseSessionResponse:
        """Pause a session and its running jobs."""
        convert.refuse(convert.cause_violations(request.cause))
        view = self._sessions.pause(request.session_id, request.cause)
        return pb.PauseSessionResponse(session=to_session(view))

    async def ResumeSession(self, request: pb.ResumeSessionRequest, context: Context) -> pb.ResumeSessionResponse:
        """Let a paused session go on."""
        convert.refuse(convert.cause_violations(request.cause))
        view = self._sessions.resume(request.session_id, request.cause)
        return pb.ResumeSessionResponse(session=to_session(view))

    async def CancelSession(self, request: pb.CancelSessionRequest, context: Context) -> pb.CancelSessionResponse:
        """Request that all jobs of a session stop."""
        convert.refuse(convert.cause_violations(request.cause), convert.unserved_scope(request.scope))
        view, count = self._sessions.cancel(request.session_id, request.cause)
        return pb.CancelSessionResponse(session=to_session(view), cancelling_count=count)

    async def CloseSession(self, request: pb.CloseSessionRequest, context: Context) -> pb.CloseSessionResponse:
        """End a session when its jobs have ended."""
        view = self._sessions.close(request.session_id, from_action(request.action))
        return pb.CloseSessionResponse(session=to_session(view))

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Context
    ) -> AsyncGenerator[pb.WatchSessionResponse]:
        """Follow all jobs of a session, and the session itself, from any event to its end."""
        wish = from_previews(request.previews, "previews") if request.HasField("previews") else None
        news = self._sessions.news(request.session_id, request.after_sequence)
        with self._sessions.watching(request.session_id) as live, ExitStack() as wishes:
            wanted = _Wishes(self._session_watching, wish, wishes)
            for job_id in live.jobs:
                wanted.join(job_id)
            if news.at_end:
                # The first message comes at once.
                yield pb.WatchSessionResponse()
            async for sequence, event in news.events():
                wanted.note(event)
                yield _response(sequence, event)


class _Wishes:
    """The previews that one watcher wants of each job, until the watcher leaves."""

    def __init__(self, watching: Watching, wish: Previews | None, held: ExitStack) -> None:
        self._wishes = watching.wishes
        self._wish = watching.wish_of(wish)
        self._held = held
        self._joined: set[str] = set()

    def note(self, event: SessionEvent) -> None:
        """Request previews of a job that was added later."""
        if isinstance(event, News) and not event.job.state.ended:
            self.join(event.job.id)

    def join(self, job_id: str) -> None:
        """Request previews of a job."""
        if self._wish.every_steps and job_id not in self._joined:
            self._joined.add(job_id)
            self._held.callback(self._wishes.join(job_id, self._wish))


def _response(sequence: int, event: SessionEvent) -> pb.WatchSessionResponse:
    response = pb.WatchSessionResponse(session_sequence=sequence)
    if isinstance(event, News):
        # The same bytes as in WatchJob: they are rendered once for all readers.
        response.job_update.MergeFromString(rendered(event.job, event.entry, event.job.state))
    else:
        response.session.CopyFrom(to_session(event.view))
    return response
