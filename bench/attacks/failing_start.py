"""A server whose calls of the system fail while it starts: see `nth_fails`."""

import collections
import contextlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import psutil

from bench.attacks.failing_calls import KINDS, Fault, Kind, Victim, faults, most_calls, paths_below, started_with
from bench.attacks.failing_scenario import answer_s, end_of
from deviceops.processing.v1 import processing_service_pb2 as pb
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from tests.faults.processes import eventually, gone
from tests.server import asking, nursery_source
from tests.server.harness import RunningServer
from tests.server.nursery_source import Process

SERVING = "deviceops: serving on "


class StartAttack:
    """Starts servers whose calls fail, each on a folder of its own; then those that must recover."""

    def __init__(self, folder: Path, flags: Sequence[str], environment: Mapping[str, str], job_id: str) -> None:
        """`folder/template`: the state of a server that has the job."""
        self._template, self._state = folder / "template", folder / "state"
        self._flags, self._environment, self._job_id = flags, environment, job_id
        self._traces = folder / "traces"
        self._traces.mkdir()
        self._count = 0
        self._paths: dict[Victim, list[Path]] = {}
        self.answers: collections.Counter[str] = collections.Counter()
        self.accepts = True
        """Whether a server that serves must accept a connection; see `Scenario`."""

    def moments(self, kind: str, victim: Victim) -> list[Fault]:
        """All faults of a kind that a start can have."""
        if victim not in self._paths:
            # All that names files, so that the folder's own are known: those of Python's modules are not ours.
            self._run(Kind("openat,/^rename,/^mkdir,/^unlink", ()), None, victim, ())
            self._paths[victim] = paths_below(self._state, self._trace)
        self._run(KINDS[kind], None, victim, self._only(KINDS[kind], victim))
        return faults(kind, victim, most_calls(self._trace))

    @property
    def _trace(self) -> Path:
        """Of the last start. The trace of the one before may still be written."""
        return self._traces / str(self._count)

    def once(self, fault: Fault) -> list[str]:
        """Start a server with one fault, and then one without on the same folder."""
        kind = KINDS[fault.kind]
        found, told = self._run(kind, fault, fault.victim, self._only(kind, fault.victim))
        return [*found, *self._recovered(fault.victim, told)]

    def _only(self, kind: Kind, victim: Victim) -> Sequence[Path]:
        return () if kind.starts_processes else self._paths[victim]

    def _run(self, kind: Kind, fault: Fault | None, victim: Victim, paths: Sequence[Path]) -> tuple[list[str], str]:
        """Start a server with the fault and submit a job. What was wrong, and the id that was told."""
        self._count += 1
        shutil.rmtree(self._state, ignore_errors=True)
        if victim is Victim.START:
            shutil.copytree(self._template, self._state)
        serve = [sys.executable, "-m", "server", "serve", "--port", "0", "--state", str(self._state), *self._flags]
        log = self._state.with_suffix(".log")
        with log.open("wb") as stderr:
            process = self._begun([*self._traced(kind, fault, paths), *serve], stderr.fileno())
        try:
            return self._served(process, log)
        finally:
            _end(process)

    def _traced(self, kind: Kind, fault: Fault | None, paths: Sequence[Path]) -> list[str]:
        """What stands before the command."""
        return started_with(kind, fault, self._trace if fault is None else Path(os.devnull), paths)

    def _begun(self, command: Sequence[str], stderr: int) -> Process:
        environment = {**os.environ, **self._environment}
        if source := nursery_source.present():
            return source.start(command, environment, stderr)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True)

    def _served(self, process: Process, log: Path) -> tuple[list[str], str]:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], answer_s())
        line = process.stdout.readline() if ready else ""
        if not ready:
            self.answers["start: silent"] += 1
            return [f"says nothing for {answer_s():.0f} s: {log.read_text()[-2000:]}"], ""
        if not line.startswith(SERVING):
            status = process.wait(answer_s())
            self.answers[f"start: ends with {status}"] += 1
            text = log.read_text(errors="replace")
            plain = status > 0 and text and not any(word in text for word in ("Traceback", "a fault of deviceops"))
            return [] if plain else [f"ends with {status}: {text[-2000:]}"], ""
        self.answers["start: serves"] += 1
        if not self.accepts:
            return [], ""
        found, told = self._asked(line.removeprefix(SERVING).split()[0])
        return [f"{one}: {log.read_text(errors='replace')[-2000:]}" for one in found], told

    def _asked(self, address: str) -> tuple[list[str], str]:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = ProcessingServiceStub(channel)
            try:
                stub.GetSystemStatus(pb.GetSystemStatusRequest(), timeout=answer_s())
                request = pb.SubmitJobRequest()
                request.spec.generation.CopyFrom(asking.picture())
                job_id = stub.SubmitJob(request, timeout=answer_s()).job.id
                self.answers["submit: OK"] += 1
                return [], job_id
            except grpc.RpcError as error:
                refusal = asking.Refusal(error)
        self.answers[f"submit: {refusal.reason or refusal.code.name}"] += 1
        typed = refusal.info.domain == "deviceops" and refusal.reason != "INVARIANT_BROKEN"
        return [] if typed else [f"{refusal.code.name} {refusal.reason} {refusal.message}"], ""

    def _recovered(self, victim: Victim, told: str) -> list[str]:
        """Faults of the next server on the folder, of which nothing fails."""
        try:
            server = RunningServer(self._state, self._flags, self._environment)
        except AssertionError as error:
            return [f"the next does not start: {error}"]
        try:
            found = []
            if victim is Victim.START and (end := end_of(server, self._job_id)) != "succeeded":
                found.append(f"the job of before is {end}")
            if told and not _there(server, told):
                found.append("the job that was told is gone")
            return found
        finally:
            server.close()


def _there(server: RunningServer, job_id: str) -> bool:
    with contextlib.suppress(grpc.RpcError):
        return asking.job_of(server, job_id).id == job_id
    return False


def _end(process: Process) -> None:
    """Kill a server and its processes: a nursery that has just been started does not end with it yet.

    Returns when strace, which is no child of this process, has written the whole trace.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        tracer = _tracer_of(process.pid)
        process.kill()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        eventually(lambda: gone(tracer))
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _tracer_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("TracerPid:")[1].split()[0])
