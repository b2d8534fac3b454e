"""Sessions: what an orchestrator opens, sees, changes and closes, and what becomes of its jobs."""

import itertools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.inference.v1 import generation_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.model.v1 import model_service_pb2
from deviceops.processing.v1 import job_pb2, session_pb2
from deviceops.processing.v1 import processing_service_pb2 as pb
from server.cli.app import run
from tests.server import asking
from tests.server.asking import CALL_S, LONG_STEPS, kind, kinds, picture
from tests.server.harness import RunningServer, running_server

Settings = session_pb2.SessionSettings
Limits = session_pb2.SessionLimits
Session = session_pb2.Session
OPEN, PAUSED = session_pb2.SESSION_STATE_OPEN, session_pb2.SESSION_STATE_PAUSED
CLOSING, CLOSED = session_pb2.SESSION_STATE_CLOSING, session_pb2.SESSION_STATE_CLOSED
QUEUED = job_event_pb2.JOB_STATE_QUEUED


def opened(server: RunningServer, settings: Settings | None = None, request_id: str = "") -> Session:
    request = pb.OpenSessionRequest(settings=settings, request_id=request_id)
    return server.processing.OpenSession(request, timeout=CALL_S).session


@contextmanager
def session(server: RunningServer, **settings: Any) -> Generator[str]:
    """A session whose jobs are cancelled afterwards."""
    session_id = opened(server, Settings(**settings)).id
    try:
        yield session_id
    finally:
        close(server, session_id, session_pb2.SESSION_CLOSE_ACTION_CANCEL_ALL)


def get(server: RunningServer, session_id: str) -> Session:
    return server.processing.GetSession(pb.GetSessionRequest(session_id=session_id), timeout=CALL_S).session


def pause(server: RunningServer, session_id: str, cause: str = "") -> Session:
    request = pb.PauseSessionRequest(session_id=session_id, cause=cause)
    return server.processing.PauseSession(request, timeout=CALL_S).session


def resume(server: RunningServer, session_id: str, cause: str = "") -> Session:
    request = pb.ResumeSessionRequest(session_id=session_id, cause=cause)
    return server.processing.ResumeSession(request, timeout=CALL_S).session


def cancel(server: RunningServer, session_id: str, cause: str = "") -> pb.CancelSessionResponse:
    return server.processing.CancelSession(pb.CancelSessionRequest(session_id=session_id, cause=cause), timeout=CALL_S)


def close(
    server: RunningServer,
    session_id: str,
    action: session_pb2.SessionCloseAction.ValueType = session_pb2.SESSION_CLOSE_ACTION_UNSPECIFIED,
) -> Session:
    request = pb.CloseSessionRequest(session_id=session_id, action=action)
    return server.processing.CloseSession(request, timeout=CALL_S).session


def update(
    server: RunningServer, session_id: str, settings: Settings, *paths: str, etag: str = "", request_id: str = ""
) -> Session:
    mask = FieldMask(paths=list(paths))
    request = pb.UpdateSessionRequest(
        session_id=session_id, settings=settings, update_mask=mask, etag=etag, request_id=request_id
    )
    return server.processing.UpdateSession(request, timeout=CALL_S).session


def listed(server: RunningServer, **wanted: Any) -> list[str]:
    """The ids of a list, read in pages of one."""
    found, request = list[str](), pb.ListSessionsRequest(page_size=1, filter=pb.SessionFilter(**wanted))
    while True:
        page = server.processing.ListSessions(request, timeout=CALL_S)
        assert len(page.sessions) <= 1
        found += [one.id for one in page.sessions]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def submit(server: RunningServer, session_id: str, generation: generation_pb2.Generation | None = None) -> str:
    return asking.submit(server, generation, job_event_pb2.JobOptions(session_id=session_id))


def endless(server: RunningServer, session_id: str, seed: int = 1) -> str:
    """A job that runs until it is stopped, at its first step."""
    job_id = submit(server, session_id, picture(steps=LONG_STEPS, seed=seed))
    asking.wait_for_step(server, job_id)
    return job_id


def state(server: RunningServer, job_id: str) -> str:
    number = asking.job_of(server, job_id).state
    return job_event_pb2.JobState.Name(number).removeprefix("JOB_STATE_").lower()


def watching(server: RunningServer, session_id: str, after: int = 0) -> Any:
    """WatchSession, as a call to iterate or leave."""
    request = pb.WatchSessionRequest(session_id=session_id, after_sequence=after)
    return server.processing.WatchSession(request, timeout=CALL_S)


def until(call: Any, job_id: str, *wanted: str) -> None:
    """Read to an event of a job."""
    asking.until(call, lambda told: told.job_update.event.job_id == job_id and kind(told.job_update) in wanted)


LABELS = [label_pb2.Label(key="team", value="a")]
FULL = Settings(
    display_name="Night run",
    weight=2.5,
    limits=Limits(max_queued_jobs=7, max_running_jobs=3, max_device_bytes=1 << 40, max_result_bytes=1 << 41),
    labels=LABELS,
    idle_timeout=Duration(seconds=3600),
)


def test_a_session_is_told_as_it_was_opened(server: RunningServer) -> None:
    told = opened(server, FULL)
    assert told.settings == FULL
    assert (told.state, told.last_sequence, told.owner) == (OPEN, 1, "")
    assert told.job_counts == session_pb2.SessionJobCounts()
    assert told.create_time == told.update_time
    assert not told.HasField("close_time")
    assert told.usage.result_bytes == 0
    assert get(server, told.id) == told
    assert close(server, told.id).state == CLOSED


def test_the_same_request_gives_the_same_session(server: RunningServer) -> None:
    first = opened(server, FULL, "open-once")
    assert opened(server, FULL, "open-once").id == first.id
    refusal = asking.refused(lambda: opened(server, Settings(), "open-once"))
    assert (refusal.reason, refusal.facts["session_id"]) == ("REQUEST_ID_REUSED", first.id)
    assert opened(server, FULL).id != first.id
    close(server, first.id)
    assert opened(server, FULL, "open-once").state == CLOSED


WRONG = {
    "settings.display_name": Settings(display_name="x" * 256),
    "settings.weight": Settings(weight=0.001),
    "settings.limits.max_running_jobs": Settings(limits=Limits(max_running_jobs=-1)),
    "settings.labels": Settings(labels=[label_pb2.Label(value="x")]),
    "settings.idle_timeout": Settings(idle_timeout=Duration()),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_setting_is_named(server: RunningServer, field: str) -> None:
    refusal = asking.refused(lambda: opened(server, WRONG[field]))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


def test_all_wrong_settings_are_named_at_once(server: RunningServer) -> None:
    everything = Settings()
    for one in WRONG.values():
        everything.MergeFrom(one)
    assert set(asking.refused(lambda: opened(server, everything)).fields) == set(WRONG)


CALLS: dict[str, Callable[[RunningServer, str], Any]] = {
    "GetSession": get,
    "UpdateSession": lambda server, name: update(server, name, Settings(), "labels"),
    "WatchSession": watching,
    "PauseSession": pause,
    "ResumeSession": resume,
    "CancelSession": cancel,
    "CloseSession": close,
    "SubmitJob": submit,
    "CreateReservation": lambda server, name: server.memory.CreateReservation(
        memory_service_pb2.CreateReservationRequest(memory_pool_id="host", size_bytes=1, session_id=name)
    ),
    "CreateBlob": lambda server, name: server.memory.CreateBlob(
        memory_service_pb2.CreateBlobRequest(blob_spec=blob_pb2.BlobSpec(size_bytes=1, session_id=name))
    ),
    "PrefetchModels": lambda server, name: server.model.PrefetchModels(
        model_service_pb2.PrefetchModelsRequest(session_id=name)
    ),
}
LEFT_ALONE = {"GetSession", "WatchSession", "CloseSession"}
"""What a closed session still answers."""


@pytest.mark.parametrize("name", CALLS)
def test_an_unknown_session_is_named(server: RunningServer, name: str) -> None:
    refusal = asking.refused(lambda: CALLS[name](server, "ses-none"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert refusal.facts["session_id"] == "ses-none"
    assert refusal.facts["field"] == ("options.session_id" if name == "SubmitJob" else "session_id")


@pytest.fixture(scope="module")
def ended(server: RunningServer) -> str:
    """A closed session."""
    session_id = opened(server).id
    close(server, session_id)
    return session_id


@pytest.mark.parametrize("name", sorted(set(CALLS) - LEFT_ALONE))
def test_a_closed_session_takes_nothing_new(server: RunningServer, ended: str, name: str) -> None:
    refusal = asking.refused(lambda: CALLS[name](server, ended))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
    assert (refusal.facts["session_id"], refusal.facts["state"]) == (ended, "closed")


def test_closing_a_closed_session_changes_nothing(server: RunningServer, ended: str) -> None:
    before = get(server, ended)
    assert before.close_time.ToNanoseconds() >= before.create_time.ToNanoseconds()
    assert close(server, ended, session_pb2.SESSION_CLOSE_ACTION_CANCEL_ALL) == before


def test_a_setting_changes_at_once_and_nothing_else_does(server: RunningServer) -> None:
    before = opened(server, FULL)
    other = Settings(display_name="Day run", weight=9, labels=[])
    after = update(server, before.id, other, "display_name", "labels")
    wanted = Settings()
    wanted.CopyFrom(FULL)
    wanted.display_name = "Day run"
    wanted.ClearField("labels")
    assert after.settings == wanted
    assert after.etag != before.etag
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert update(server, before.id, other, "display_name").last_sequence == after.last_sequence
    close(server, before.id)


def test_an_etag_guards_a_change_and_a_repeated_request_is_answered_again(server: RunningServer) -> None:
    with session(server) as name:
        etag = get(server, name).etag
        first = update(server, name, Settings(weight=2), "weight", etag=etag, request_id=f"{name}-1")
        assert update(server, name, Settings(weight=2), "weight", etag=etag, request_id=f"{name}-1") == first
        refusal = asking.refused(lambda: update(server, name, Settings(weight=3), "weight", etag=etag))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        paused = pause(server, name)
        assert paused.etag != first.etag
        assert resume(server, name).etag == first.etag


@pytest.mark.parametrize("paths", [(), ("state",), ("labels", "owner")])
def test_a_mask_that_names_something_else_is_refused(server: RunningServer, ended: str, paths: tuple[str, ...]) -> None:
    assert asking.refused(lambda: update(server, ended, Settings(), *paths)).fields == ["update_mask"]


def test_sessions_are_listed_newest_first_by_state_and_label(server: RunningServer) -> None:
    mine = label_pb2.Label(key="list", value="mine")
    ids = [opened(server, Settings(labels=[mine])).id for _ in range(4)]
    pause(server, ids[1])
    close(server, ids[2])
    assert listed(server, labels=[mine]) == ids[::-1]
    assert listed(server, labels=[label_pb2.Label(key="list")]) == ids[::-1]
    assert listed(server, labels=[mine], states=[PAUSED, CLOSED]) == [ids[2], ids[1]]
    assert listed(server, labels=[mine], states=[session_pb2.SESSION_STATE_UNSPECIFIED]) == ids[::-1]
    assert listed(server, labels=[label_pb2.Label(key="list", value="other")]) == []
    for name in ids:
        close(server, name)


def test_counts_and_usage_are_those_of_its_own_jobs(server: RunningServer) -> None:
    with session(server) as name, session(server) as other:
        made = [submit(server, name, picture(seed=70 + n, count=2)) for n in range(2)]
        for job_id in made:
            asking.watch(server, job_id)
        paused = submit(server, name, picture(steps=LONG_STEPS))
        server.processing.PauseJob(pb.PauseJobRequest(job_id=paused), timeout=CALL_S)
        call = asking.follow(server, paused)
        asking.until(call, lambda told: kind(told) == "paused")
        call.cancel()
        running = endless(server, name)
        told = get(server, name)
        counts = told.job_counts
        assert (counts.queued, counts.running, counts.paused) == (0, 1, 1)
        assert (counts.succeeded, counts.failed, counts.cancelled) == (2, 0, 0)
        receipts = [asking.job_of(server, job_id).receipt for job_id in made]
        assert told.usage.images_made == 4
        assert told.usage.steps_executed >= sum(one.steps_executed for one in receipts) > 0
        assert told.usage.run_time.ToNanoseconds() > sum(one.run_time.ToNanoseconds() for one in receipts)
        files = {
            image.file.sha256: image.file.size_bytes
            for job_id in made
            for image in asking.job_of(server, job_id).generation_result.images
        }
        assert told.usage.result_bytes == sum(files.values()) > 0
        asking.delete(server, made[0])
        assert get(server, name).usage.result_bytes < told.usage.result_bytes
        assert get(server, name).usage.images_made == 4
        nothing = get(server, other)
        assert (nothing.job_counts, nothing.usage.images_made) == (session_pb2.SessionJobCounts(), 0)
        asking.cancel(server, running)
        asking.watch(server, running)
        assert get(server, name).job_counts.cancelled == 1


def test_pausing_holds_back_what_waits_and_pauses_what_runs(server: RunningServer) -> None:
    with session(server) as name, session(server) as other:
        running, alone = endless(server, name), endless(server, name, 2)
        server.processing.PauseJob(pb.PauseJobRequest(job_id=alone, cause="mine"), timeout=CALL_S)
        call = watching(server, name)
        assert pause(server, name, "lunch").state == PAUSED
        until(call, running, "paused")
        waits = submit(server, name)
        assert kind(asking.watch(server, submit(server, other))[-1]) == "succeeded", "other sessions go on"
        job = asking.job_of(server, waits)
        assert job.state == QUEUED
        assert job.waits_for.reason == job_pb2.JOB_WAIT_REASON_SESSION
        assert "lunch" in job.waits_for.detail
        assert pause(server, name).last_sequence == get(server, name).last_sequence
        assert get(server, name).job_counts.paused == 2
        (told,) = [one.event.paused for one in journal(server, running) if kind(one) == "paused"]
        assert (told.origin, told.cause) == (job_event_pb2.JOB_CONTROL_ORIGIN_SESSION, "lunch")
        assert resume(server, name, "back").state == OPEN
        until(call, running, "resumed")
        assert kind(asking.watch(server, waits)[-1]) == "succeeded"
        (back,) = [one.event.resumed for one in journal(server, running) if kind(one) == "resumed"]
        assert (back.origin, back.cause) == (job_event_pb2.JOB_CONTROL_ORIGIN_SESSION, "back")
        assert state(server, alone) == "paused", "one that was paused by itself stays so"
        call.cancel()


def journal(server: RunningServer, job_id: str) -> list[Any]:
    """The events so far."""
    last = asking.job_of(server, job_id).last_sequence
    call = asking.follow(server, job_id)
    told = list[Any]()
    try:
        asking.until(call, lambda one: told.append(one) or one.event.sequence >= last)
        return told
    finally:
        call.cancel()


def test_cancelling_stops_all_its_jobs_with_proof_and_the_session_stays_open(server: RunningServer) -> None:
    with session(server) as name, session(server) as other:
        running = [endless(server, name), endless(server, name, 2)]
        waiting, foreign = submit(server, name), submit(server, other)
        told = cancel(server, name, "enough")
        assert (told.cancelling_count, told.session.state) == (3, OPEN)
        for job_id in [*running, waiting]:
            end = asking.watch(server, job_id)[-1]
            assert kind(end) == "cancelled"
            assert end.event.cancelled.cause == "enough"
        assert cancel(server, name).cancelling_count == 0
        assert get(server, name).job_counts.cancelled == 3
        assert kind(asking.watch(server, foreign)[-1]) == "succeeded"
        assert kind(asking.watch(server, submit(server, name))[-1]) == "succeeded"


def test_a_scope_that_is_not_served_is_named(server: RunningServer) -> None:
    with session(server) as name:
        request = pb.CancelSessionRequest(session_id=name, scope=job_pb2.CANCEL_SCOPE_AFTER_CURRENT)
        assert asking.refused(lambda: server.processing.CancelSession(request)).fields == ["scope"]


def test_closing_lets_its_jobs_finish_and_takes_no_more(server: RunningServer) -> None:
    with session(server) as name:
        running = endless(server, name)
        call = watching(server, name)
        pause(server, name)
        until(call, running, "paused")
        waiting = submit(server, name)
        assert close(server, name).state == CLOSING
        assert asking.refused(lambda: submit(server, name)).facts["state"] == "closing"
        until(call, running, "resumed")
        assert kind(asking.watch(server, waiting)[-1]) == "succeeded"
        asking.cancel(server, running)
        rest = list(call)
        assert rest[-1].session.state == CLOSED
        assert rest[-1].session.HasField("close_time")


def test_closing_can_cancel_what_waits(server: RunningServer) -> None:
    with session(server, limits=Limits(max_running_jobs=1)) as name:
        running, waiting = endless(server, name), submit(server, name)
        assert close(server, name, session_pb2.SESSION_CLOSE_ACTION_CANCEL_PENDING).state == CLOSING
        assert (state(server, waiting), state(server, running)) == ("cancelled", "running")


def test_a_session_runs_no_more_jobs_at_once_than_its_limit(server: RunningServer) -> None:
    with session(server, limits=Limits(max_running_jobs=1)) as name:
        running, waiting = endless(server, name), submit(server, name)
        assert asking.job_of(server, waiting).waits_for.reason == job_pb2.JOB_WAIT_REASON_SESSION
        assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded", "there is room for others"
        update(server, name, Settings(limits=Limits(max_running_jobs=2)), "limits")
        assert kind(asking.watch(server, waiting)[-1]) == "succeeded"
        assert state(server, running) == "running"


def test_a_session_has_no_more_waiting_jobs_than_its_limit(server: RunningServer) -> None:
    with session(server, limits=Limits(max_queued_jobs=1)) as name:
        pause(server, name)
        submit(server, name)
        refusal = asking.refused(lambda: submit(server, name))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert (refusal.facts["session_id"], refusal.facts["limit_name"]) == (name, "max_queued_jobs")


def test_a_session_makes_no_more_results_than_its_limit(server: RunningServer) -> None:
    with session(server, limits=Limits(max_result_bytes=1)) as name:
        made = submit(server, name)
        asking.watch(server, made)
        refusal = asking.refused(lambda: submit(server, name))
        assert (refusal.reason, refusal.facts["limit_name"]) == ("QUOTA_EXCEEDED", "max_result_bytes")
        asking.delete(server, made)
        submit(server, name)


def test_a_watcher_sees_the_same_events_as_watchers_of_the_jobs(server: RunningServer) -> None:
    with session(server) as name:
        jobs = [submit(server, name, picture(seed=n)) for n in range(3)]
        journals = {job_id: asking.durable(asking.watch(server, job_id)) for job_id in jobs}
        close(server, name)
        told = list(watching(server, name))
        sequences = [one.session_sequence for one in told]
        assert sequences == sorted(set(sequences))
        assert sequences[0] == 1
        for job_id, whole in journals.items():
            mine = [one.job_update for one in told if one.job_update.event.job_id == job_id]
            assert asking.durable(mine) == whole
        changes = [one.session.state for one in told if one.HasField("session")]
        assert changes == [OPEN, CLOSING, CLOSED]
        half = sequences[len(sequences) // 2]
        assert list(watching(server, name, half)) == [one for one in told if one.session_sequence > half]


def test_a_watch_without_news_begins_with_a_heartbeat(server: RunningServer) -> None:
    with session(server) as name:
        call = watching(server, name, get(server, name).last_sequence)
        assert next(call) == pb.WatchSessionResponse()
        call.cancel()


@pytest.mark.parametrize("after", [-1, 10**9])
def test_a_place_that_is_none_is_named(server: RunningServer, after: int) -> None:
    with session(server) as name:
        assert asking.refused(lambda: watching(server, name, after)).fields == ["after_sequence"]


def test_a_watcher_of_a_session_gets_the_previews_that_it_wants(server: RunningServer) -> None:
    with session(server) as name:
        wish = generation_pb2.PreviewOptions(every_steps=1, max_edge_px=32)
        call = server.processing.WatchSession(pb.WatchSessionRequest(session_id=name, previews=wish), timeout=CALL_S)
        next(call)
        submit(server, name, picture(steps=LONG_STEPS))
        preview = asking.until(call, lambda told: kind(told.job_update) == "preview").job_update.event.preview
        assert 0 < preview.size.width_px <= 32
        call.cancel()


def test_every_change_of_a_session_is_in_the_log_of_changes(server: RunningServer) -> None:
    name = opened(server).id
    update(server, name, Settings(display_name="x"), "display_name")
    pause(server, name)
    close(server, name)
    request = pb.WatchEventsRequest(after_sequence=0, filter=pb.SystemEventFilter(resource_ids=[name]))
    call = server.processing.WatchEvents(request, timeout=CALL_S)
    told = [update.event for update in itertools.islice(call, 6) if update.HasField("event")]
    call.cancel()
    assert [(one.kind, one.session.state) for one in told] == [
        ("session.state_changed", OPEN),
        ("session.changed", OPEN),
        ("session.state_changed", PAUSED),
        ("session.state_changed", CLOSING),
        ("session.state_changed", CLOSED),
    ]


def test_the_queue_tells_each_session_with_its_weight(server: RunningServer) -> None:
    with session(server, weight=2.5) as name:
        pause(server, name)
        submit(server, name)
        queue = server.processing.GetQueue(pb.GetQueueRequest(), timeout=CALL_S).queue
        (share,) = [one for one in queue.shares if one.session_id == name]
        assert (share.weight, share.queued_count, share.running_count) == (2.5, 1, 0)


def test_memory_is_told_for_the_session_that_holds_it(server: RunningServer) -> None:
    with session(server) as name, session(server) as other:
        jobs = {endless(server, name): name, endless(server, other, 2): other}
        found: dict[str, str] = {}
        while set(found) != set(jobs):
            pool = memory_service_pb2.GetMemoryPoolRequest(memory_pool_id="host", include_owners=True)
            owners = server.memory.GetMemoryPool(pool, timeout=CALL_S).memory_pool.owners
            found = {owner.id: owner.session_id for owner in owners if owner.id in jobs}
        assert found == jobs


def test_the_commands_open_change_follow_and_close_a_session(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)

    def said(*command: str) -> str:
        capsys.readouterr()
        assert run(["sessions", *command]) == 0
        told = capsys.readouterr()
        return told.out + told.err

    name = said("open", "--name", "Night", "--weight", "2.5", "--max-running", "1", "--label", "team=a").strip()
    assert name in said()
    asking.watch(server, submit(server, name))
    said("set", name[:-2], "--max-queued", "7")
    settings = get(server, name).settings
    assert (settings.weight, settings.limits.max_running_jobs, settings.limits.max_queued_jobs) == (2.5, 1, 7)
    assert "paused" in said("pause", name, "--cause", "lunch")
    assert "open" in said("resume", name)
    told = said("show", name)
    assert all(text in told for text in ("Night", "team=a", "running jobs: 1", "1 succeeded", "1 pictures"))
    assert "0 jobs" in said("cancel", name)
    assert "closed" in said("close", name, "--jobs", "cancel-all")
    watched = said("watch", name)
    assert "succeeded" in watched
    assert watched.rstrip().endswith("session is closed")
    assert name not in said()
    assert name in said("--all")
    assert run(["sessions", "show", "ses-none"]) == 1
    assert "SESSION_NOT_FOUND" in capsys.readouterr().err


def test_sessions_and_what_they_saw_outlive_the_server() -> None:
    with running_server("--device", "cpu") as server:
        name = opened(server, FULL, "once").id
        running = endless(server, name)
        call = watching(server, name)
        pause(server, name, "lunch")
        until(call, running, "paused")
        call.cancel()
        waiting = submit(server, name)
        before = get(server, name)
        seen = watched(server, name, before.last_sequence)
        server.kill()
        server.start()
        after = get(server, name)
        assert opened(server, FULL, "once").id == name
        assert (after.state, after.settings, after.job_counts) == (before.state, before.settings, before.job_counts)
        assert after.last_sequence >= before.last_sequence
        assert watched(server, name, before.last_sequence) == seen
        assert state(server, waiting) == "queued"
        resume(server, name)
        call = watching(server, name, before.last_sequence)
        until(call, running, "resumed")
        assert kind(asking.watch(server, waiting)[-1]) == "succeeded"
        close(server, name, session_pb2.SESSION_CLOSE_ACTION_CANCEL_ALL)
        assert list(call)[-1].session.state == CLOSED
        assert kinds(asking.watch(server, running)).count("started") == 2


def watched(server: RunningServer, session_id: str, last: int) -> list[Any]:
    """The durable messages up to a place."""
    call, told = watching(server, session_id), list[Any]()
    for message in call:
        told.append(message)
        if message.session_sequence >= last:
            call.cancel()
            break
    return [one for one in told if not one.HasField("job_update") or kind(one.job_update) not in asking.NEWEST_ONLY]
