"""What a job says of itself: its summary, its last event, whose it is; and how long the server keeps it."""

import sqlite3
from pathlib import Path

from deviceops.device.v1 import device_work_pb2
from deviceops.model.v1 import model_work_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2, system_status_pb2
from domains import storage
from domains.events import KEPT
from server.settings import Settings
from tests.server import asking
from tests.server.asking import CALL_S, LONG_STEPS, picture
from tests.server.harness import RunningServer, running_server


def listed(server: RunningServer, job_id: str) -> job_pb2.Job:
    request = processing_service_pb2.ListJobsRequest(page_size=1000)
    jobs = server.processing.ListJobs(request, timeout=CALL_S).jobs
    return next(job for job in jobs if job.id == job_id)


def submitted(server: RunningServer, spec: job_pb2.JobSpec) -> job_pb2.Job:
    return server.processing.SubmitJob(processing_service_pb2.SubmitJobRequest(spec=spec), timeout=CALL_S).job


def test_only_the_last_event_is_terminal_however_a_job_ends(server: RunningServer) -> None:
    stopped = asking.submit(server, picture(steps=LONG_STEPS))
    asking.wait_for_step(server, stopped)
    asking.cancel(server, stopped)
    for job_id, end in ((asking.submit(server, picture(previews=1)), "succeeded"), (stopped, "cancelled")):
        updates = asking.watch(server, job_id)
        assert asking.kind(updates[-1]) == end
        assert [update.event.terminal for update in updates] == [False] * (len(updates) - 1) + [True]


def test_every_job_has_a_summary_also_in_lists(server: RunningServer) -> None:
    made = asking.submit(server, picture())
    assert listed(server, made).summary == asking.job_of(server, made).summary == "a red apple"
    scan = submitted(server, job_pb2.JobSpec(model_scan=model_work_pb2.ModelScan()))
    load = submitted(server, job_pb2.JobSpec(model_load=model_work_pb2.ModelLoad(model_id="emoji-sd")))
    benchmark = device_work_pb2.DeviceBenchmark(
        device_id="cpu",
        suites=[device_work_pb2.DEVICE_BENCHMARK_SUITE_MEMORY, device_work_pb2.DEVICE_BENCHMARK_SUITE_COMPUTE],
    )
    measured = submitted(server, job_pb2.JobSpec(device_benchmark=benchmark))
    asking.cancel(server, measured.id)
    told = [listed(server, job.id).summary for job in (scan, load, measured)]
    assert told == ["scan all model roots", "load emoji-sd", "benchmark cpu: memory, compute"]


def test_prompts_can_be_kept_out_of_lists_and_events() -> None:
    with running_server("--device", "cpu", "--no-prompts-in-lists") as server:
        job_id = asking.submit(server, picture())
        asking.watch(server, job_id)
        assert listed(server, job_id).summary == ""
        assert asking.job_of(server, job_id).spec.generation.prompt == "a red apple"
        request = processing_service_pb2.WatchEventsRequest(after_sequence=0)
        events = server.processing.WatchEvents(request, timeout=CALL_S)
        jobs = (update.event.job for update in events if update.event.HasField("job"))
        event = next(job for job in jobs if job.id == job_id and job.HasField("end_time"))
        assert event.summary == ""
        # And it expires as GetJob says.
        assert event.expire_time == asking.job_of(server, job_id).expire_time
        events.cancel()


def test_without_access_control_nothing_has_an_owner(server: RunningServer) -> None:
    assert asking.job_of(server, asking.submit(server)).owner == ""


def test_the_status_tells_what_is_kept_how_long() -> None:
    settings = {"DEVICEOPS_KEEP_JOBS_S": "90", "DEVICEOPS_KEEP_BLOBS_S": "45.5"}
    with running_server("--device", "cpu", environment=settings) as server:
        kept = server.status().retention
        assert (kept.jobs.ToMilliseconds(), kept.blobs.ToMilliseconds()) == (90_000, 45_500)
        assert kept.event_count == KEPT
        assert not kept.HasField("previews")
        assert kept.checkpoints == kept.jobs


def test_the_defaults_are_told_as_they_are(server: RunningServer) -> None:
    settings, kept = Settings(), server.status().retention
    assert (kept.jobs.seconds, kept.blobs.seconds) == (settings.keep_jobs_s, settings.keep_blobs_s)


def test_an_acknowledgement_survives_what_the_database_is_opened_for(server: RunningServer, tmp_path: Path) -> None:
    opened = storage.open_database(tmp_path)
    assert storage.durability(opened) is storage.Durability.PROCESS
    opened.execute("PRAGMA synchronous=FULL")
    assert storage.durability(opened) is storage.Durability.POWER
    opened.close()
    assert storage.durability(sqlite3.connect(":memory:")) is storage.Durability.POWER
    assert server.status().durability == system_status_pb2.ACKNOWLEDGEMENT_DURABILITY_PROCESS
