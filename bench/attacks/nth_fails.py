"""Calls of the system that fail: the n-th of each kind, once or from then on, while a scenario runs (strace's inject).

python -m bench.attacks.nth_fails [SECONDS] [SEED] [KIND…]      600 seconds and all kinds where nothing is given

Every call must be answered within 10 s, with its result or a typed error. Afterwards the same server must make a picture, or
the next server on its folder, which must have every job that was told. Needs strace and the right to attach it.
"""

import collections
import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import msgspec
import psutil

from bench.attacks.harness import tell
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.processing.v1 import job_pb2
from deviceops.processing.v1 import processing_service_pb2 as pb
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from domains.storage import DATABASE
from tests.faults.processes import eventually, kill
from tests.server import asking
from tests.server.harness import RunningServer, running_server

ANSWER_S = 10.0
_JOB_S = 90.0
"""Longest time of a job: a new worker imports torch."""
FLAGS = ("--device", "sim", "--durability", "power")
QUICK = {"DEVICEOPS_RECHECK_S": "0.5", "OMP_NUM_THREADS": "1"}


class Kind(msgspec.Struct, frozen=True):
    """A kind of fault."""

    calls: str
    """Names of the system's calls, as strace takes them."""
    error: str
    nursery: bool = False
    """Whether the calls of the nursery fail, from which workers are forked, and not those of the server."""


KINDS = {
    "write: full": Kind("pwrite64", "ENOSPC"),
    "write: failed": Kind("pwrite64", "EIO"),
    "sync: full": Kind("fsync,fdatasync", "ENOSPC"),
    "sync: failed": Kind("fsync,fdatasync", "EIO"),
    "rename: full": Kind("/^rename", "ENOSPC"),
    "rename: failed": Kind("/^rename", "EIO"),
    "open: no descriptors": Kind("openat", "EMFILE"),
    "open: failed": Kind("openat", "EIO"),
    "room: full": Kind("fallocate,ftruncate", "ENOSPC"),
    "room: failed": Kind("fallocate,ftruncate", "EIO"),
    "unlink: failed": Kind("/^unlink", "EIO"),
    "pipe: no descriptors": Kind("pipe2,socketpair,socket,accept4,accept,dup", "EMFILE"),
    "memory: none": Kind("mmap", "ENOMEM"),
    "fork and thread: none": Kind("/^v?fork$|^clone", "EAGAIN"),
    "fork and thread: no memory": Kind("/^v?fork$|^clone", "ENOMEM"),
    "fork of a worker: none": Kind("/^v?fork$|^clone", "EAGAIN", nursery=True),
}


@contextlib.contextmanager
def traced(pid: int, kind: Kind, when: str, trace: Path) -> Generator[None]:
    """Attach strace to a process and all that it starts. `when`: `3`, `3+`; empty: nothing fails."""
    inject = [f"--inject={kind.calls}:error={kind.error}:when={when}"] if when else []
    command = ["strace", "-f", "-p", str(pid), "-o", str(trace), f"--trace={kind.calls}", "--signal=none", *inject]
    strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    first = strace.stderr.readline()
    assert "attached" in first, first
    try:
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            strace.communicate(timeout=10)
        strace.kill()
        strace.wait()


def most_calls(trace: Path) -> int:
    """The most calls that one thread made: strace counts by thread."""
    threads = collections.Counter(re.findall(r"^(\d+) +\w+\(", trace.read_text(), re.MULTILINE))
    return max(threads.values(), default=0)


class Scenario:
    """What a caller does with a server, and how each call was answered."""

    def __init__(self, server: RunningServer, seed: int) -> None:
        self._server, self._seed = server, seed
        self.answers: list[str] = []
        """`call: OK` or the reason of its refusal."""
        self.faults: list[str] = []
        self.ended: dict[str, str] = {}
        """The end that was told, by job."""

    def run(self, *, hurt: bool) -> None:
        """Make and use a picture and two blobs, then delete what was made. `hurt`: kill the nursery and the worker."""
        if hurt and (nursery := nursery_of(self._server)):
            kill(nursery)
        self._ask("connect", self._connected)
        self._ask("upload to memory", lambda: self._upload(blob_pb2.BLOB_TIER_HOST, 1 << 20))
        blob_id = self._ask("upload", lambda: self._upload(blob_pb2.BLOB_TIER_DISK, 1 << 16)) or ""
        job_id = self._ask("submit", lambda: self._submit(self._seed)) or ""
        if hurt and (pid := self._ask("status", lambda: self._server.worker_pid)):
            kill(pid)
        if job_id:
            self._ask("watch", lambda: self._watch(job_id))
        if blob_id:
            self._ask("read", lambda: self._read(blob_id))
        self._ask("list", lambda: self._server.processing.ListJobs(pb.ListJobsRequest(), timeout=ANSWER_S))
        if job_id and self._seed % 2:
            # If the deletion is refused, the job may be gone, and the truncation of the log have failed.
            self.ended.pop(job_id, None)
            self._ask("delete", lambda: self._delete(job_id))
        self._ask("status", self._server.status)

    def _ask(self, name: str, call: Callable[[], Any]) -> Any:
        begin = time.monotonic()
        try:
            answer = call()
            self.answers.append(f"{name}: OK")
        except grpc.RpcError as error:
            answer, refusal = None, asking.Refusal(error)
            self.answers.append(f"{name}: {refusal.reason or refusal.code.name}")
            if name == "watch" and refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                # A nursery that is traced imports torch for minutes. The stream has told that it lives.
                return None
            if refusal.info.domain != "deviceops" or refusal.reason == "INVARIANT_BROKEN":
                self.faults.append(f"{name}: {refusal.code.name} {refusal.reason} {refusal.message}")
        if name != "watch" and (took := time.monotonic() - begin) > ANSWER_S + 1:
            self.faults.append(f"{name} took {took:.1f} s")
        return answer

    def _connected(self) -> None:
        """A call on a connection of its own."""
        with grpc.insecure_channel(self._server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            ProcessingServiceStub(channel).GetSystemStatus(pb.GetSystemStatusRequest(), timeout=ANSWER_S)

    def _upload(self, tier: blob_pb2.BlobTier.ValueType, size: int) -> str:
        spec = blob_pb2.BlobSpec(size_bytes=size, tier=tier)
        chunk = blob_pb2.BlobChunk(data=bytes(size))
        requests = [
            memory_service_pb2.UploadBlobRequest(blob_spec=spec),
            memory_service_pb2.UploadBlobRequest(chunk=chunk),
        ]
        return self._server.memory.UploadBlob(iter(requests), timeout=ANSWER_S).blob.id

    def _submit(self, seed: int) -> str:
        spec = job_pb2.JobSpec(generation=asking.picture(seed=seed))
        return self._server.processing.SubmitJob(pb.SubmitJobRequest(spec=spec), timeout=ANSWER_S).job.id

    def _watch(self, job_id: str) -> str:
        """Follow the job, whose worker may have to start; a stream that says nothing for so long hangs."""
        request, last = pb.WatchJobRequest(job_id=job_id), time.monotonic()
        for update in self._server.processing.WatchJob(request, timeout=_JOB_S):
            if (silent := time.monotonic() - last) > ANSWER_S + 1:
                self.faults.append(f"the watch was silent for {silent:.1f} s")
            last = time.monotonic()
            if update.event.terminal:
                self.ended[job_id] = asking.kind(update)
        return self.ended[job_id]

    def _read(self, blob_id: str) -> int:
        request = memory_service_pb2.ReadBlobRequest(blob_id=blob_id)
        return len([*self._server.memory.ReadBlob(request, timeout=ANSWER_S)])

    def _delete(self, job_id: str) -> Any:
        return self._server.processing.DeleteJob(pb.DeleteJobRequest(job_id=job_id), timeout=ANSWER_S)


def nursery_of(server: RunningServer) -> int | None:
    """The process that workers are forked from; None: there is none now."""
    workers = {one.process_id for one in server.status().workers}
    children = psutil.Process(server.process.pid).children()
    return next((one.pid for one in children if one.pid not in workers and "nursery" in " ".join(one.cmdline())), None)


class Attack:
    """Injects faults into one server after the other."""

    def __init__(self, server: RunningServer, seed: int) -> None:
        self._server = server
        self.chance = random.Random(seed)
        self.done: collections.Counter[str] = collections.Counter()
        self.answers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.findings: list[str] = []
        self.restarts = 0
        self._told: dict[str, str] = {}
        self._seed = 0

    def moments(self, kind: Kind) -> list[str]:
        """All `when`s of a kind: each of the calls that the scenario makes, once and from then on."""
        with tempfile.NamedTemporaryFile() as trace:
            with traced(self._pid(kind), kind, "", Path(trace.name)):
                self._scenario(kind)
            most = most_calls(Path(trace.name))
        return [f"{number}{forever}" for number in range(1, most + 1) for forever in ("", "+")]

    def once(self, name: str, when: str) -> None:
        """Inject one fault, and see that the server or the next one is well."""
        kind = KINDS[name]
        with traced(self._pid(kind), kind, when, Path(os.devnull)):
            scenario = self._scenario(kind)
        self.done[name] += 1
        self.answers[name].update(scenario.answers)
        found = list(scenario.faults)
        if (status := self._server.process.poll()) is not None:
            found.append(f"the server ended with {status}: {self._server.log.read_text()[-600:]}")
        elif not self._makes_a_picture():
            found.append(f"no picture afterwards: {self._server.log.read_text()[-600:]}")
        if found or self.done[name] % 10 == 0:
            found += self._restarted()
        self.findings += [f"{name}, {kind.error} at {when}: {one}" for one in found]

    def _pid(self, kind: Kind) -> int:
        if not kind.nursery:
            return self._server.process.pid
        eventually(lambda: nursery_of(self._server) is not None)
        return nursery_of(self._server) or 0

    def _scenario(self, kind: Kind) -> Scenario:
        self._seed += 1
        scenario = Scenario(self._server, self._seed)
        scenario.run(hurt="fork" in kind.calls and not kind.nursery)
        self._told |= scenario.ended
        return scenario

    def _makes_a_picture(self) -> bool:
        self._seed += 1
        try:
            call = self._server.processing.WatchJob(
                pb.WatchJobRequest(job_id=asking.submit(self._server, asking.picture(seed=self._seed))), timeout=60
            )
            return asking.kind(asking.journal_of(call)[-1]) == "succeeded"
        except grpc.RpcError:
            return False

    def _restarted(self) -> list[str]:
        """Faults of the next server on the same folder."""
        self._server.kill()
        self.restarts += 1
        with closing(sqlite3.connect(self._server.state / DATABASE)) as database:
            (check,) = database.execute("PRAGMA integrity_check").fetchone()
        found = [] if check == "ok" else [f"the database after the fault: {check}"]
        self._server.start()
        for job_id, end in self._told.items():
            try:
                told = asking.kind(asking.watch(self._server, job_id)[-1])
            except grpc.RpcError as error:
                told = asking.Refusal(error).reason
            found += [] if told == end else [f"{job_id} ended {end}, and after the restart {told}"]
        self._told.clear()
        return [*found, *([] if self._makes_a_picture() else ["no picture after a restart"])]


def main() -> int:
    """Print what was injected and found; the status is 1 if anything was."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32)
    names = [name for name in KINDS if not sys.argv[3:] or any(part in name for part in sys.argv[3:])]
    with running_server(*FLAGS, environment=QUICK) as server:
        asking.watch(server, asking.submit(server))
        attack, until_s = Attack(server, seed), time.monotonic() + seconds
        moments = [(name, when) for name in names for when in attack.moments(KINDS[name])]
        possible = collections.Counter(name for name, _ in moments)
        attack.chance.shuffle(moments)
        for name, when in moments:
            if time.monotonic() > until_s:
                break
            attack.once(name, when)
    tell(
        "nth_fails",
        seed=seed,
        injected={name: f"{attack.done[name]} of {possible[name]}" for name in names},
        restarts=attack.restarts,
        answers=attack.answers,
        findings=attack.findings,
    )
    return 1 if attack.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
