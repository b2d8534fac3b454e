"""Converts sessions between messages and values of the domain."""

from deviceops.common.v1 import label_pb2
from deviceops.processing.v1 import processing_service_pb2, session_pb2
from domains.processing.sessions.session import (
    CloseAction,
    SessionFilter,
    SessionLimits,
    SessionSettings,
    SessionState,
    SessionView,
)
from server import convert

_STATES = {state: session_pb2.SessionState.Value(f"SESSION_STATE_{state.name}") for state in SessionState}
_ACTIONS = {
    session_pb2.SessionCloseAction.Value(f"SESSION_CLOSE_ACTION_{action.name}"): action for action in CloseAction
}
_ACTIONS[session_pb2.SESSION_CLOSE_ACTION_UNSPECIFIED] = CloseAction.FINISH
_LIMITS = SessionLimits.__struct_fields__


def to_session(view: SessionView) -> session_pb2.Session:
    """The message of a session."""
    session, totals = view.session, view.totals
    return session_pb2.Session(
        id=session.id,
        state=_STATES[session.state],
        settings=to_settings(session.settings),
        job_counts=session_pb2.SessionJobCounts(
            queued=view.queued,
            running=view.running,
            paused=view.paused,
            succeeded=totals.succeeded,
            failed=totals.failed,
            cancelled=totals.cancelled,
        ),
        usage=session_pb2.SessionUsage(
            device_time=None if totals.device_s is None else convert.to_duration(totals.device_s),
            run_time=convert.to_duration(totals.run_s),
            queue_time=convert.to_duration(totals.queue_s),
            device_bytes=view.device_bytes,
            result_bytes=view.result_bytes,
            steps_executed=totals.steps,
            images_made=totals.images,
        ),
        create_time=convert.to_time(session.create_time_s),
        update_time=convert.to_time(session.update_time_s),
        close_time=None if session.close_time_s is None else convert.to_time(session.close_time_s),
        last_sequence=view.last_sequence,
        etag=session.etag,
    )


def to_settings(settings: SessionSettings) -> session_pb2.SessionSettings:
    """The message of settings."""
    limits, idle_s = settings.limits, settings.idle_timeout_s
    return session_pb2.SessionSettings(
        display_name=settings.display_name,
        weight=settings.weight,
        limits=limits and session_pb2.SessionLimits(**{name: getattr(limits, name) for name in _LIMITS}),
        labels=[label_pb2.Label(key=key, value=value) for key, value in settings.labels],
        idle_timeout=None if idle_s is None else convert.to_duration(idle_s),
    )


def from_settings(message: session_pb2.SessionSettings) -> SessionSettings:
    """The settings of a request, unchecked."""
    limits = SessionLimits(**{name: getattr(message.limits, name) for name in _LIMITS})
    return SessionSettings(
        display_name=message.display_name,
        weight=message.weight if message.HasField("weight") else None,
        limits=limits if message.HasField("limits") else None,
        labels=convert.labels_of(message.labels),
        idle_timeout_s=convert.from_duration(message.idle_timeout) if message.HasField("idle_timeout") else None,
    )


def from_filter(message: processing_service_pb2.SessionFilter) -> SessionFilter:
    """A filter. UNSPECIFIED among the states: every state."""
    every = not message.states or session_pb2.SESSION_STATE_UNSPECIFIED in message.states
    states = tuple(state for state, number in _STATES.items() if number in message.states)
    return SessionFilter(states=None if every else states, labels=convert.wanted_labels(message.labels))


def from_action(action: session_pb2.SessionCloseAction.ValueType) -> CloseAction:
    """The action on the jobs of a session that closes."""
    return _ACTIONS[action]
