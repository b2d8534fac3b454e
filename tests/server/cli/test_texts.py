"""Events and figures in a person's words."""

import pytest
from google.protobuf.duration_pb2 import Duration

from deviceops.common.v1 import job_event_pb2
from deviceops.memory.v1 import memory_pool_pb2
from server.cli.app import run
from server.cli.calls.following import Cursor
from server.cli.console.bars import count_text, event_text
from server.cli.console.hints import hint
from server.cli.console.methods import _COMMANDS, in_commands  # pyright: ignore[reportPrivateUsage]  # the table itself
from server.cli.console.printing import bytes_text, seconds_text, word
from server.cli.generation.run import proof
from server.cli.memory.blobs import when_deleted
from server.cli.memory.memory import owner_rows


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (job_event_pb2.JobEvent(queued=job_event_pb2.JobQueued(position=2)), "queued behind 2"),
        (job_event_pb2.JobEvent(queued=job_event_pb2.JobQueued(position=0)), "queued"),
        (job_event_pb2.JobEvent(started=job_event_pb2.JobStarted(device_id="cpu", attempt=1)), "started on cpu"),
        (
            job_event_pb2.JobEvent(started=job_event_pb2.JobStarted(device_id="cpu", attempt=2)),
            "started on cpu, attempt 2",
        ),
        (job_event_pb2.JobEvent(interrupted=job_event_pb2.JobInterrupted()), "interrupted; goes on by itself"),
        (job_event_pb2.JobEvent(heartbeat=job_event_pb2.JobHeartbeat()), ""),
    ],
)
def test_events_are_told_in_a_few_words(event: job_event_pb2.JobEvent, text: str):
    assert event_text(event) == text


def test_every_kind_of_event_has_words_or_is_left_out_on_purpose():
    silent = {"progress", "preview", "output_ready", "heartbeat"}
    kinds = {field.name for field in job_event_pb2.JobEvent.DESCRIPTOR.oneofs_by_name["kind"].fields}
    told: set[str] = set()
    for kind in kinds:
        event = job_event_pb2.JobEvent()
        getattr(event, kind).SetInParent()
        if kind == "stage_started":
            event.stage_started.stage = "loading"
        if event_text(event):
            told.add(kind)
    assert told == kinds - silent


def test_a_count_without_a_total_is_not_invented():
    assert count_text(job_event_pb2.JobProgress(stage="scanning", completed=3)) == "scanning"
    steps = job_event_pb2.JobProgress(stage="denoising", completed=7, total=20, unit="steps")
    assert count_text(steps) == "denoising 7/20 steps"


def test_a_delete_that_waits_says_for_what():
    assert when_deleted(["job-1", "job-2"]) == " together with job-1, job-2"
    assert when_deleted([]) == " when its last reader has left"


def test_loaded_bytes_have_units():
    loading = job_event_pb2.JobProgress(stage="loading", completed=3_033_984, total=26_073_134, unit="bytes")
    assert count_text(loading) == "loading 2.9 MiB of 24.9 MiB"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("restart it with ResetDevice for sim-3; if", "restart it with `deviceops device reset sim-3`; if"),
        ("Empty with ReclaimMemory, level CACHES.", "Empty with `deviceops memory reclaim --level caches`."),
        ("UpdateDevice for gpu-1a2b.", "`deviceops device enable gpu-1a2b`."),
        ("CancelJob ends it", "`deviceops cancel` ends it"),
        ("a ResetDeviceRequest is no method", "a ResetDeviceRequest is no method"),
    ],
)
def test_methods_that_the_server_names_are_told_as_commands(said: str, told: str):
    assert in_commands(said) == told


@pytest.mark.parametrize("command", _COMMANDS.values())
def test_every_command_that_is_told_is_there(command: str, capsys: pytest.CaptureFixture[str]):
    assert run([*command.split(), "--help"]) == 0
    assert command.split()[-1] in capsys.readouterr().out


def test_a_cursor_rests_on_events_that_a_restart_keeps():
    cursor = Cursor("j")
    cursor.note(job_event_pb2.JobEvent(job_id="j", sequence=3, started=job_event_pb2.JobStarted()))
    cursor.note(job_event_pb2.JobEvent(job_id="j", sequence=9, progress=job_event_pb2.JobProgress()))
    assert (cursor.after, cursor.ended) == (3, False)
    cursor.note(job_event_pb2.JobEvent(job_id="j", sequence=10, failed=job_event_pb2.JobFailed()))
    assert (cursor.after, cursor.ended) == (10, True)


def test_the_proof_of_a_stop_tells_stage_latency_and_what_was_given_back():
    cancelled = job_event_pb2.JobCancelled(
        stage="denoising",
        latency=Duration(nanos=212_000_000),
        freed=[
            job_event_pb2.FreedMemory(device_id="cuda:0", freed_bytes=3 << 20),
            job_event_pb2.FreedMemory(device_id="cpu"),
        ],
    )
    assert proof(cancelled) == "Cancelled in stage denoising, 212 ms after the request; gave back 3.0 MiB on cuda:0."


def test_figures_carry_their_units():
    assert [seconds_text(s) for s in (0.0123, 3.44, 59.97, 125)] == ["12 ms", "3.4 s", "1 min 00 s", "2 min 05 s"]
    assert [bytes_text(b) for b in (None, 0, 1023, 1024, 5 << 40)] == ["–", "0 B", "1023 B", "1.0 KiB", "5.0 TiB"]
    assert word("JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_") == "partially succeeded"


def test_a_hint_is_given_only_for_names_that_the_model_does_not_know(capsys: pytest.CaptureFixture[str]):
    known = ["red apple", "owl", "rocket"]
    hint("a red apple", known)
    hint("anything", [])
    assert not capsys.readouterr().err
    hint("a rokcet", known)
    assert "“rocket”" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reclaimable", "used_s", "text"),
    [(True, 100.0, "yes"), (True, 170.0, "in 30.0 s"), (True, None, "yes"), (False, 100.0, "no")],
)
def test_an_owner_says_from_when_on_its_memory_may_be_taken(reclaimable: bool, used_s: float | None, text: str):
    owner = memory_pool_pb2.MemoryOwner(id="m@cpu", reclaimable=reclaimable)
    pool = memory_pool_pb2.MemoryPool(id="cpu", owners=[owner])
    pool.budget.idle_after.FromSeconds(60)
    uses = {} if used_s is None else {"m@cpu": used_s}
    (row,) = owner_rows([pool], uses, 200.0)
    assert row[-1] == text
