"""`deviceops sessions`: lists sessions, opens, shows, changes, pauses, cancels, closes and follows one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.calls.pages import LARGEST_PAGE, pages
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import (
    emit,
    notice,
    print_json,
)
from server.cli.console.tables import print_table
from server.cli.groups import lists_only
from server.cli.jobs.session_text import facts, line, row, tell_state

if TYPE_CHECKING:
    from deviceops.processing.v1.processing_service_pb2 import ListSessionsResponse
    from deviceops.processing.v1.session_pb2 import SessionSettings

app = typer.Typer(help="List sessions, or open, show, change and close one.", invoke_without_command=True)
Name = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id, or its beginning.")]
Cause = Annotated[str, typer.Option(help="Why; comes back in the events.")]
NameOption = Annotated[str | None, typer.Option("--name", help="A name for people.")]
Weight = Annotated[float | None, typer.Option(help="Share of a busy device against other sessions, 0.01 to 100.")]
Running = Annotated[int | None, typer.Option(min=0, help="Most jobs that run at a time; 0: no limit.")]
Queued = Annotated[int | None, typer.Option(min=0, help="Most jobs that wait; 0: as the server's setting says.")]
Idle = Annotated[float | None, typer.Option(help="Close it after so many seconds without job, watcher and call.")]
LabelOption = Annotated[list[str] | None, typer.Option("--label", help="A mark, as KEY=VALUE; may be repeated.")]


@app.callback()
def sessions(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Closed sessions too.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """List the sessions that are not closed, the newest first."""
    if not lists_only(context):
        return None
    from deviceops.processing.v1 import processing_service_pb2 as pb
    from deviceops.processing.v1 import session_pb2

    unended = (session_pb2.SESSION_STATE_OPEN, session_pb2.SESSION_STATE_PAUSED, session_pb2.SESSION_STATE_CLOSING)
    states = [] if every else list(unended)

    with connect(address) as connection:

        def page(token: str) -> ListSessionsResponse:
            wanted = pb.SessionFilter(states=states)
            request = pb.ListSessionsRequest(page_size=LARGEST_PAGE, page_token=token, filter=wanted)
            return connection.processing.ListSessions(request)

        answer = pb.ListSessionsResponse(sessions=[one for each in pages(page) for one in each.sessions])
    if json:
        return print_json(answer)
    heads = ("session", "name", "state", "weight", "waits", "runs", "done", "created")
    return print_table(heads, map(row, answer.sessions), "No sessions.")


@app.command("open")
def open_session(
    name: NameOption = None,
    weight: Weight = None,
    max_running: Running = None,
    max_queued: Queued = None,
    idle: Idle = None,
    label: LabelOption = None,
    request_id: Annotated[str, typer.Option(help="The same id gives the same session.")] = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Open a session and print its id."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    settings, _ = _settings(name, weight, max_running, max_queued, idle, label)
    with connect(address) as connection:
        answer = connection.processing.OpenSession(pb.OpenSessionRequest(settings=settings, request_id=request_id))
    return print_json(answer) if json else emit(answer.session.id)


@app.command()
def show(session: Name, address: AddressOption = None, json: JsonOption = False) -> None:
    """Tell a session's settings, where its jobs are, and what they have used."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    with connect(address) as connection:
        answer = connection.processing.GetSession(pb.GetSessionRequest(session_id=ids.session(connection, session)))
    if json:
        return print_json(answer)
    for title, text in facts(answer.session):
        emit(f"{title:<11}{text}")
    return None


@app.command("set")
def change(
    session: Name,
    name: NameOption = None,
    weight: Weight = None,
    max_running: Running = None,
    max_queued: Queued = None,
    idle: Idle = None,
    label: LabelOption = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Change what is given; the rest stays as it is."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from deviceops.processing.v1 import processing_service_pb2 as pb

    settings, paths = _settings(name, weight, max_running, max_queued, idle, label)
    if not paths:
        raise CliError("nothing to change; give an option, such as --weight", USAGE)
    with connect(address) as connection:
        session_id = ids.session(connection, session)
        if "limits" in paths:
            before = connection.processing.GetSession(pb.GetSessionRequest(session_id=session_id)).session
            kept = before.settings.limits
            kept.max_running_jobs = kept.max_running_jobs if max_running is None else max_running
            kept.max_queued_jobs = kept.max_queued_jobs if max_queued is None else max_queued
            settings.limits.CopyFrom(kept)
        request = pb.UpdateSessionRequest(session_id=session_id, settings=settings, update_mask=FieldMask(paths=paths))
        answer = connection.processing.UpdateSession(request)
    return print_json(answer) if json else tell_state(answer.session)


@app.command()
def pause(session: Name, cause: Cause = "", address: AddressOption = None, json: JsonOption = False) -> None:
    """Pause its running jobs and start no others."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    with connect(address) as connection:
        request = pb.PauseSessionRequest(session_id=ids.session(connection, session), cause=cause)
        answer = connection.processing.PauseSession(request)
    return print_json(answer) if json else tell_state(answer.session)


@app.command()
def resume(session: Name, cause: Cause = "", address: AddressOption = None, json: JsonOption = False) -> None:
    """Let it go on, with the jobs that its pause has paused."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    with connect(address) as connection:
        request = pb.ResumeSessionRequest(session_id=ids.session(connection, session), cause=cause)
        answer = connection.processing.ResumeSession(request)
    return print_json(answer) if json else tell_state(answer.session)


@app.command()
def cancel(session: Name, cause: Cause = "", address: AddressOption = None, json: JsonOption = False) -> None:
    """Ask all its jobs to stop; it stays open."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    with connect(address) as connection:
        request = pb.CancelSessionRequest(session_id=ids.session(connection, session), cause=cause)
        answer = connection.processing.CancelSession(request)
    if json:
        return print_json(answer)
    count = answer.cancelling_count
    return notice(f"{count} job{'' if count == 1 else 's'} of session {answer.session.id} asked to stop.")


@app.command()
def close(
    session: Name,
    jobs: Annotated[
        Literal["finish", "cancel-pending", "cancel-all"],
        typer.Option(help="Its jobs run to their end, or those that wait are cancelled, or all."),
    ] = "finish",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """End a session: it takes no more jobs."""
    from deviceops.processing.v1 import processing_service_pb2 as pb
    from deviceops.processing.v1 import session_pb2

    action = session_pb2.SessionCloseAction.Value(f"SESSION_CLOSE_ACTION_{jobs.replace('-', '_').upper()}")
    with connect(address) as connection:
        request = pb.CloseSessionRequest(session_id=ids.session(connection, session), action=action)
        answer = connection.processing.CloseSession(request)
    return print_json(answer) if json else tell_state(answer.session)


@app.command()
def watch(
    session: Name,
    after: Annotated[int, typer.Option(min=0, help="Go on after the message with this sequence.")] = 0,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Follow all its jobs until it is closed, one line an event. Ctrl-C stops watching."""
    from deviceops.processing.v1 import processing_service_pb2 as pb

    with connect(address) as connection:
        request = pb.WatchSessionRequest(session_id=ids.session(connection, session), after_sequence=after)
        for message in connection.processing.WatchSession(request):
            if json:
                print_json(message, one_line=True)
            elif message.session_sequence:
                emit(line(message))


def _settings(
    name: str | None,
    weight: float | None,
    max_running: int | None,
    max_queued: int | None,
    idle: float | None,
    label: list[str] | None,
) -> tuple[SessionSettings, list[str]]:
    """The settings that the options give, and their paths."""
    from google.protobuf.duration_pb2 import Duration

    from deviceops.common.v1 import label_pb2
    from deviceops.processing.v1 import session_pb2

    limits = None
    if max_running is not None or max_queued is not None:
        limits = session_pb2.SessionLimits(max_running_jobs=max_running or 0, max_queued_jobs=max_queued or 0)
    span = None if idle is None else Duration(seconds=int(idle), nanos=round(idle % 1 * 1e9))
    given = {"display_name": name, "weight": weight, "limits": limits, "idle_timeout": span, "labels": label}
    pairs = [one.partition("=") for one in label or []]
    settings = session_pb2.SessionSettings(
        display_name=name or "",
        weight=weight,
        limits=limits,
        idle_timeout=span,
        labels=[label_pb2.Label(key=key, value=value) for key, _, value in pairs],
    )
    return settings, [path for path, value in given.items() if value is not None]
