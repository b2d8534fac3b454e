"""Workers and the server die by SIGKILL at random moments under load, and every job ends once.

`DEVICEOPS_KILLS`, `DEVICEOPS_KILLS_S` and `DEVICEOPS_KILLS_SEED` make it longer or repeat a run.
"""

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from io import BytesIO

import pytest
from PIL import Image

from deviceops.common.v1 import error_pb2, job_event_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.faults.load import DEVICES, ENDED, Load
from tests.server import asking
from tests.server.asking import ENDINGS, Update, kind, kinds
from tests.server.harness import RunningServer, running_server

KILLS = int(os.environ.get("DEVICEOPS_KILLS", "100"))
KILLS_S = float(os.environ.get("DEVICEOPS_KILLS_S", "56"))
"""When the last kill is over, counted from the first job that runs; what is left of a minute is for the jobs to end."""
SEED = int(os.environ.get("DEVICEOPS_KILLS_SEED", "0")) or random.SystemRandom().getrandbits(32)
BETWEEN_SERVERS = (30, 45)
"""Kills of workers between two of the server: its next workers need some seconds."""
AT_ONCE = 3
"""Most workers that die in one moment."""
QUICK = {"DEVICEOPS_RECHECK_S": "0.5", "DEVICEOPS_JOBS_PER_DEVICE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server("--device", f"sim:{DEVICES}", environment=QUICK) as running:
        yield running


@pytest.mark.timeout(150 + 2 * KILLS_S)
def test_every_job_ends_once_whatever_dies_and_when(
    server: RunningServer, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    with Load(server, chance) as load:
        load.until_running(asking.CALL_S)
        begin = time.monotonic()
        workers, servers = kills_of(server, load, chance, begin + KILLS_S)
    counts = f"seed {SEED}: {workers} workers and {servers} servers killed within {time.monotonic() - begin:.0f} s"
    print(counts)
    record_property("kills", counts)
    assert workers > 0, counts
    assert servers > 0, counts
    journals = {job_id: asking.watch(server, job_id) for job_id in load.jobs.values()}
    assert len(journals) == len(load.jobs), f"two requests gave one job; {counts}"
    assert listed(server) == {job_id: ending(seen).state for job_id, seen in journals.items()}, counts
    for job_id, seen in journals.items():
        told_once(job_id, seen)
        pictures_are_there(server, seen)
    assert any(kind(seen[-1]) == "succeeded" for seen in journals.values())
    log_goes_on(server)
    for request_id, job_id in load.jobs.items():
        assert load.submit(request_id) == job_id
    assert listed(server).keys() == journals.keys()


def kills_of(server: RunningServer, load: Load, chance: random.Random, until_s: float) -> tuple[int, int]:
    """Kill what works until there were enough kills, or it is time; how many workers and servers."""
    workers = servers = 0
    next_server = chance.randint(5, 15)
    while workers + servers < KILLS and time.monotonic() < until_s:
        devices = load.moment(until_s)
        if not devices:
            continue
        if workers >= next_server:
            load.kill_server()
            servers, next_server = servers + 1, workers + chance.randint(*BETWEEN_SERVERS)
        else:
            workers += load.kill_workers(devices[: chance.randint(1, AT_ONCE)])
    return workers, servers


def listed(server: RunningServer) -> dict[str, int]:
    """All jobs there are, by id, with their states."""
    found: dict[str, int] = {}
    token = ""
    while True:
        request = processing_service_pb2.ListJobsRequest(page_size=1000, page_token=token)
        answer = server.processing.ListJobs(request, timeout=asking.CALL_S)
        for job in answer.jobs:
            assert job.id not in found
            found[job.id] = job.state
        if not (token := answer.next_page_token):
            return found


def ending(seen: list[Update]) -> job_event_pb2.JobEvent:
    return seen[-1].event


def told_once(job_id: str, seen: list[Update]) -> None:
    """One terminal event, the last; sequences that rise; attempts that follow each other."""
    told = f"{job_id}: {kinds(seen)}; seed {SEED}"
    assert [name for name in kinds(seen) if name in ENDINGS] == [kind(seen[-1])], told
    assert [update.event.terminal for update in seen] == [False] * (len(seen) - 1) + [True], told
    sequences = [update.event.sequence for update in seen]
    assert sequences == sorted(set(sequences)), told
    attempts = [update.event.started.attempt for update in seen if kind(update) == "started"]
    assert attempts == list(range(1, len(attempts) + 1)), told
    if kind(seen[-1]) == "failed":
        # It was in the way of three kills.
        assert ending(seen).failed.failure.reason == error_pb2.ERROR_REASON_DEVICE_LOST, told
    else:
        assert kind(seen[-1]) == "succeeded", told


def log_goes_on(server: RunningServer) -> None:
    """The log of changes has all instances of the server one after another, and no end of a job twice."""
    request = processing_service_pb2.WatchEventsRequest(after_sequence=0)
    call = server.processing.WatchEvents(request, timeout=asking.CALL_S)
    first = next(call)
    assert not first.events_missed
    sequences, instances, ended = [0], [""], list[str]()
    while sequences[-1] < first.last_sequence:
        event = next(call).event
        sequences.append(event.sequence)
        if event.server_instance_id != instances[-1]:
            instances.append(event.server_instance_id)
        if event.job.state in ENDED:
            ended.append(event.resource_id)
    call.cancel()
    assert sequences == sorted(set(sequences))
    assert instances[-1] == first.server_instance_id
    assert len(set(instances)) == len(instances)
    assert len(set(ended)) == len(ended)


def pictures_are_there(server: RunningServer, seen: list[Update]) -> None:
    """Each picture that was told can be read, and a job that succeeded has told all of its pictures."""
    told: dict[int, str] = {}
    for update in seen:
        if kind(update) != "output_ready":
            continue
        data = asking.blob(server, update.image.file.blob_id)
        assert hashlib.sha256(data).hexdigest() == update.image.file.sha256
        with Image.open(BytesIO(data)) as image:
            image.load()
            assert image.size == (64, 64)
        # A second attempt makes the same picture.
        assert told.setdefault(update.event.output_ready.index, update.image.file.sha256) == update.image.file.sha256
    result = {image.index: image.file.sha256 for image in seen[-1].generation_result.images}
    if kind(seen[-1]) == "succeeded":
        assert told == result
    assert result.items() <= told.items()
