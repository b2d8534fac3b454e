"""What a caller does while calls of the system fail, and what was told and must hold: see `nth_fails`."""

import collections
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import psutil

from bench.attacks.failing_calls import Victim
from deviceops.common.v1 import error_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.processing.v1 import job_pb2
from deviceops.processing.v1 import processing_service_pb2 as pb
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from domains.imaging import encode
from server.heartbeat import HEARTBEAT_S
from tests.faults.processes import kill
from tests.server import asking
from tests.server.harness import RunningServer

ANSWER_S = 10.0
JOB_S = 90.0
"""Longest time of a job: a new worker imports torch."""
GONE = "gone"


def answer_s() -> float:
    """Longest time of an answer now: strace and other programs share the cores with the server."""
    return ANSWER_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Told:
    """What callers were told, in the order of telling."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        """The end of each job that ended, or `GONE`."""
        self.answers: collections.Counter[str] = collections.Counter()
        """`call: OK` or the reason of its refusal."""

    def oldest(self) -> str:
        """A job to delete; empty: there is none."""
        return next((job_id for job_id, end in self.jobs.items() if end != GONE), "")

    def broken(self, server: RunningServer) -> list[str]:
        """What the server tells otherwise."""
        now = {job_id: end_of(server, job_id) for job_id in self.jobs}
        return [f"{one} was told to be {end}, now {now[one]}" for one, end in self.jobs.items() if now[one] != end]


def end_of(server: RunningServer, job_id: str) -> str:
    """How a job ended, or `GONE`."""
    try:
        return asking.kind(asking.watch(server, job_id)[-1])
    except grpc.RpcError as error:
        reason = asking.Refusal(error).reason
        return GONE if reason == "JOB_NOT_FOUND" else reason


def told_end(update: Any) -> str:
    """How a job ended, and why it failed."""
    failure = update.event.failed.failure
    reason = error_pb2.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
    return f"failed: {reason}" if asking.kind(update) == "failed" else asking.kind(update)


class Scenario:
    """What a caller does with a server, and how each call was answered."""

    def __init__(
        self, server: RunningServer, told: Told, seed: int, *, accepts: bool = True, job_s: float = JOB_S
    ) -> None:
        """`accepts`: whether gRPC's core can accept a connection, which no code of ours does. `job_s`: how long to follow
        the job."""
        self._server, self._told, self._seed, self._accepts = server, told, seed, accepts
        self._job_s = job_s
        self.faults: list[str] = []

    def run(self, kills: tuple[Victim, ...] = ()) -> None:
        """Make a picture, one from another one, and one with a LoRA and a ControlNet; use two blobs, then delete a blob and
        an older job. `kills`: processes that die first."""
        if Victim.NURSERY in kills and (nursery := nursery_of(self._server)):
            kill(nursery)
        if Victim.WORKER in kills and (pid := self._ask("status", lambda: self._server.worker_pid)):
            kill(pid)
        if self._accepts:
            self._ask("connect", lambda: connected(self._server.address))
        self._ask("upload to memory", lambda: self._upload(blob_pb2.BLOB_TIER_HOST, 1 << 20))
        blob_id = self._ask("upload", lambda: self._upload(blob_pb2.BLOB_TIER_DISK, 1 << 16))
        jobs = {
            "submit": asking.picture(seed=self._seed),
            "submit a picture": self._shown(),
            "submit with networks": self._guided(),
        }
        for name, generation in jobs.items():
            if job_id := self._ask(name, lambda generation=generation: self._submit(generation)):
                self._ask("watch", lambda job_id=job_id: self._watch(job_id))
        if blob_id:
            self._ask("read", lambda: self._read(blob_id))
            self._ask("delete a blob", lambda: self._delete_blob(blob_id))
        self._ask("list", lambda: self._server.processing.ListJobs(pb.ListJobsRequest(), timeout=answer_s()))
        if old := self._told.oldest():
            # If the deletion is refused, the job may be gone, and the truncation of the log have failed.
            del self._told.jobs[old]
            if self._ask("delete", lambda: self._delete(old)):
                self._told.jobs[old] = GONE
        self._ask("status", self._server.status)

    def _ask(self, name: str, call: Callable[[], Any]) -> Any:
        begin = time.monotonic()
        try:
            answer = call()
            self._told.answers[f"{name}: OK"] += 1
        except grpc.RpcError as error:
            answer = self._refused(name, asking.Refusal(error))
        if name != "watch" and (took := time.monotonic() - begin) > answer_s():
            self.faults.append(f"{name} took {took:.1f} s")
        return answer

    def _refused(self, name: str, refusal: asking.Refusal) -> None:
        self._told.answers[f"{name}: {refusal.reason or refusal.code.name}"] += 1
        if name == "watch" and refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            # Importing torch took longer; the stream has told that it lives.
            return
        if refusal.info.domain != "deviceops" or refusal.reason == "INVARIANT_BROKEN":
            self.faults.append(f"{name}: {refusal.code.name} {refusal.reason} {refusal.message}")

    def _upload(self, tier: blob_pb2.BlobTier.ValueType, size: int) -> str:
        spec = blob_pb2.BlobSpec(size_bytes=size, tier=tier)
        # Other bytes each time: what is stored already is not stored again.
        chunk = blob_pb2.BlobChunk(data=self._seed.to_bytes(8, "big") * (size // 8))
        requests = [
            memory_service_pb2.UploadBlobRequest(blob_spec=spec),
            memory_service_pb2.UploadBlobRequest(chunk=chunk),
        ]
        return self._server.memory.UploadBlob(iter(requests), timeout=answer_s()).blob.id

    def _shown(self) -> generation_pb2.Generation:
        """A job that starts from a picture, which no job before has shown: it is decoded, kept, and read by the worker."""
        generation = asking.picture(seed=self._seed)
        generation.init_image.strength = 0.5
        generation.init_image.image.data = encode(np.full((64, 64, 3), self._seed % 256, np.uint8), "image/png")
        return generation

    def _guided(self) -> generation_pb2.Generation:
        """A job with files of other models beside its own, and a map that is made of its picture."""
        generation = self._shown()
        generation.loras.add(model_id="emoji-high-contrast", weight=1.0)
        canny = conditioning_pb2.ControlPreprocessing()
        canny.canny.SetInParent()
        generation.controls.add(model_id="emoji-canny", image=generation.init_image.image, preprocessing=canny)
        generation.ClearField("init_image")
        return generation

    def _submit(self, generation: generation_pb2.Generation) -> str:
        spec = job_pb2.JobSpec(generation=generation)
        return self._server.processing.SubmitJob(pb.SubmitJobRequest(spec=spec), timeout=answer_s()).job.id

    def _watch(self, job_id: str) -> None:
        """Follow the job, whose worker may have to start; a stream hangs whose heartbeat is so late."""
        request, last = pb.WatchJobRequest(job_id=job_id), time.monotonic()
        for update in self._server.processing.WatchJob(request, timeout=self._job_s):
            if (silent := time.monotonic() - last) > HEARTBEAT_S + answer_s():
                self.faults.append(f"the watch was silent for {silent:.1f} s")
            last = time.monotonic()
            if update.event.terminal:
                self._told.jobs[job_id] = asking.kind(update)
                self._told.answers[f"job {told_end(update)}"] += 1
                if "INVARIANT_BROKEN" in told_end(update):
                    self.faults.append(f"job {told_end(update)}")

    def _read(self, blob_id: str) -> int:
        request = memory_service_pb2.ReadBlobRequest(blob_id=blob_id)
        return len([*self._server.memory.ReadBlob(request, timeout=answer_s())])

    def _delete_blob(self, blob_id: str) -> Any:
        request = memory_service_pb2.DeleteBlobRequest(blob_id=blob_id)
        return self._server.memory.DeleteBlob(request, timeout=answer_s())

    def _delete(self, job_id: str) -> Any:
        return self._server.processing.DeleteJob(pb.DeleteJobRequest(job_id=job_id), timeout=answer_s())


def connected(address: str) -> None:
    """Make a call on a connection of its own."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        ProcessingServiceStub(channel).GetSystemStatus(pb.GetSystemStatusRequest(), timeout=answer_s())


def nursery_of(server: RunningServer) -> int | None:
    """The process that workers are forked from; None: there is none now."""
    workers = {one.process_id for one in server.status().workers}
    children = psutil.Process(server.process.pid).children()
    return next((one.pid for one in children if one.pid not in workers and "nursery" in _command(one)), None)


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
