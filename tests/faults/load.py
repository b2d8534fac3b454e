"""A load of small generations on simulated devices, which goes on while workers and the server are killed."""

import random
import statistics
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

import grpc

from deviceops.common.v1 import job_event_pb2
from deviceops.inference.v1 import generation_pb2
from deviceops.processing.v1 import processing_service_pb2, system_event_pb2
from tests.faults.processes import kill
from tests.server import asking
from tests.server.asking import CALL_S, picture
from tests.server.harness import RunningServer

DEVICES = 10
UNFINISHED = 16
"""Jobs that run or wait at a time."""
_RUNNING = job_event_pb2.JOB_STATE_RUNNING
ENDED = frozenset(job_event_pb2.JobState.Value(f"JOB_STATE_{name.upper()}") for name in asking.ENDINGS)
_FIRST_JOB_S = 0.5
"""How long a job runs, before one was observed."""


class Load:
    """Submits jobs from a thread of its own, and knows from WatchEvents which of them run, where, and for how long."""

    def __init__(self, server: RunningServer, chance: random.Random) -> None:
        self._server = server
        self._chance = chance
        self._asked: dict[str, generation_pb2.Generation] = {}
        self.jobs: dict[str, str] = {}
        """By request id."""
        self._changed = threading.Condition()
        self._unfinished: set[str] = set()
        self._ended: set[str] = set()
        self._running: dict[str, tuple[str, float]] = {}
        """By job: its device, and when its attempt began."""
        self._job_s: deque[float] = deque([_FIRST_JOB_S], maxlen=20)
        self._call: Any = None
        self._life = 0
        """Counts the kills of the server."""
        self._serving = 0
        """The last life whose server has begun to serve."""
        self._over = False
        self._loader = threading.Thread(target=self._load, daemon=True)

    def __enter__(self) -> "Load":
        self._follow()
        self._loader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._loader.join(CALL_S)
        assert not self._loader.is_alive()
        self._call.cancel()

    def until_running(self, within_s: float) -> bool:
        """Wait until a job runs; whether one does."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._running), max(0.0, within_s))

    def moment(self, until_s: float) -> list[str]:
        """Waits for a running job, then a random part of the time that jobs take; the device on which it still runs, then
        the others that compute. Empty if it runs no more."""
        if not self.until_running(until_s - time.monotonic()):
            return []
        with self._changed:
            if not self._running:
                return []
            job_id = self._chance.choice(sorted(self._running))
            attempt = self._running[job_id]
            in_s = self._chance.random() * statistics.median(self._job_s) - (time.monotonic() - attempt[1])
            gone = self._changed.wait_for(lambda: self._running.get(job_id) != attempt, max(0.0, in_s))
            others = sorted({device_id for device_id, _ in self._running.values()} - {attempt[0]})
            self._chance.shuffle(others)
            return [] if gone else [attempt[0], *others]

    def kill_workers(self, device_ids: list[str]) -> int:
        """SIGKILL the workers of some devices in one moment; how many there were."""
        workers = {one.device_id: one.process_id for one in self._server.status().workers if one.process_id}
        found = [device_id for device_id in device_ids if device_id in workers]
        for device_id in found:
            kill(workers[device_id])
        # The jobs of a killed worker do not run; the log tells when they run again.
        with self._changed:
            self._running = {job_id: run for job_id, run in self._running.items() if run[0] not in found}
        return len(found)

    def kill_server(self) -> None:
        """SIGKILL, with calls under way, and another server on the same state folder."""
        kill(self._server.process.pid)
        with self._changed:
            self._life += 1
            self._running.clear()
        self._server.kill()
        self._server.start()
        self._follow()

    def submit(self, request_id: str) -> str:
        """The request as it always was; its job."""
        return asking.submit(self._server, self._asked[request_id], request_id=request_id)

    def _follow(self) -> None:
        request = processing_service_pb2.WatchEventsRequest()
        self._call = self._server.processing.WatchEvents(request)
        next(iter(self._call))
        active = processing_service_pb2.ListJobsRequest(page_size=1000)
        jobs = self._server.processing.ListJobs(active, timeout=CALL_S).jobs
        with self._changed:
            self._unfinished = {job.id for job in jobs if job.state not in ENDED}
            self._serving = self._life
            self._changed.notify_all()
        threading.Thread(target=self._read, args=(self._call, self._life), daemon=True).start()

    def _read(self, call: Any, life: int) -> None:
        try:
            for update in call:
                if update.event.kind == "job.state_changed":
                    self._take(update.event, life)
        except grpc.RpcError:
            # The server was killed, or the load is over.
            return

    def _take(self, event: system_event_pb2.SystemEvent, life: int) -> None:
        with self._changed:
            if life != self._life:
                return
            job, now = event.job, time.monotonic()
            if job.state == _RUNNING:
                self._running[job.id] = job.device_id, now
            elif before := self._running.pop(job.id, None):
                self._job_s.append(now - before[1])
            if job.state in ENDED:
                self._ended.add(job.id)
                self._unfinished.discard(job.id)
            self._changed.notify_all()

    def _load(self) -> None:
        shape = random.Random(self._chance.getrandbits(32))
        while self._wanted():
            request_id = f"job-{len(self.jobs)}"
            self._asked[request_id] = picture(
                steps=shape.randint(2, 5), seed=len(self.jobs), count=shape.choice((1, 1, 2))
            )
            self._submit_until_answered(request_id)

    def _wanted(self) -> bool:
        """Waits until there is room for another job; False: the load is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or len(self._unfinished) < UNFINISHED)
            return not self._over

    def _submit_until_answered(self, request_id: str) -> None:
        while True:
            with self._changed:
                serving = self._serving
            try:
                job_id = self.submit(request_id)
                break
            except (grpc.RpcError, ValueError):
                # It may be stored or not: the same request is made again, to the next server.
                with self._changed:
                    assert self._changed.wait_for(lambda seen=serving: self._serving > seen, CALL_S)
        with self._changed:
            self.jobs[request_id] = job_id
            # It may have ended before the answer came.
            self._unfinished |= {job_id} - self._ended
