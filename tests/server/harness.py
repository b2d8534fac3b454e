"""A real server for tests: its own process, its own state folder, port 0, a real worker."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc

from deviceops.device.v1.device_service_pb2_grpc import DeviceServiceStub
from deviceops.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from deviceops.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from deviceops.model.v1.model_service_pb2_grpc import ModelServiceStub
from deviceops.processing.v1 import processing_service_pb2, system_status_pb2
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from tests.server import nursery_source
from tests.server.nursery_source import Process

START_S = 60.0


class RunningServer:
    """A server process and stubs to talk to it."""

    def __init__(
        self,
        state: Path,
        flags: Sequence[str],
        environment: Mapping[str, str],
        stderr: int | None = None,
        *,
        own_nursery: bool = False,
        held: bool = False,
    ) -> None:
        """`stderr`: a descriptor that takes the place of the log file."""
        self.own_nursery = own_nursery
        """Whether the server starts its nursery itself, as outside of tests; it then imports torch for seconds."""
        self.held = held
        """Whether no worker is ready before `release`; without a source, for as long as torch is imported."""
        self._release: int | None = None
        self.state = state
        self._stderr = stderr
        self._flags = flags
        self._environment = environment
        self.log = state.with_suffix(".log")
        self.start()

    def start(self, *more: str) -> None:
        """Start the process (again), on the same state folder, with more flags; waits until it serves."""
        command = [
            sys.executable,
            "-m",
            "server",
            "serve",
            "--port",
            "0",
            "--state",
            str(self.state),
            *self._flags,
            *more,
        ]
        with self.log.open("ab") as log:
            self.process = self._started(command, log.fileno() if self._stderr is None else self._stderr)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("deviceops: serving on "), f"did not start:\n{self.log.read_text()[-4000:]}"
        self.addresses = line.removeprefix("deviceops: serving on ").split()
        self.address = self.addresses[0]
        self.channel = grpc.insecure_channel(self.address, options=[("grpc.max_receive_message_length", 16 << 20)])
        self.processing = ProcessingServiceStub(self.channel)
        self.inference = InferenceServiceStub(self.channel)
        self.memory = MemoryServiceStub(self.channel)
        self.model = ModelServiceStub(self.channel)
        self.device = DeviceServiceStub(self.channel)

    def _started(self, command: Sequence[str], stderr: int) -> Process:
        environment = {**os.environ, **self._environment}
        source = None if self.own_nursery else nursery_source.present()
        if source is not None and source.fits(environment):
            self.release()
            hold, self._release = os.pipe() if self.held else (None, None)
            try:
                return source.start(command, environment, stderr, hold)
            finally:
                if hold is not None:
                    os.close(hold)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)

    def release(self) -> None:
        """Let a held server have its workers."""
        if self._release is not None:
            os.close(self._release)
            self._release = None

    def status(self) -> system_status_pb2.SystemStatus:
        """GetSystemStatus, now."""
        return self.processing.GetSystemStatus(processing_service_pb2.GetSystemStatusRequest()).status

    @property
    def worker_pid(self) -> int:
        """The process that owns the (first) device."""
        return self.status().workers[0].process_id

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        self.channel.close()
        return status

    def close(self) -> None:
        """Whatever state it is in, end it."""
        self.release()
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def running_server(
    *flags: str, environment: Mapping[str, str] | None = None, own_nursery: bool = False, held: bool = False
) -> Generator[RunningServer]:
    """A server on a fresh state folder; killed and swept at the end. The drain is short unless told otherwise,
    and waits for no pictures to be read. `own_nursery`, `held`: see `RunningServer`."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"DEVICEOPS_DRAIN_S": "20", "DEVICEOPS_DRAIN_READS_S": "0", **(environment or {})}
        server = RunningServer(Path(folder) / "state", flags, settings, own_nursery=own_nursery, held=held)
        try:
            yield server
        finally:
            server.close()


class Refusal(NamedTuple):
    """How a server that does not start ends."""

    status: int
    """Its exit status."""
    stdout: str
    stderr: str


def refused_start(*flags: str, environment: Mapping[str, str] | None = None, forks: bool = True) -> Refusal:
    """Start a server that is expected to give up within a minute, and wait for its end. `forks` False: it imports itself, as
    outside of tests."""
    command, whole = [sys.executable, "-m", "server", "serve", *flags], {**os.environ, **(environment or {})}
    source = nursery_source.present() if forks else None
    with tempfile.TemporaryFile("w+") as stderr:
        if source is not None and source.fits(whole):
            process: Process = source.start(command, whole, stderr.fileno())
        else:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=whole)
        assert process.stdout is not None
        with process.stdout:
            try:
                status = process.wait(START_S)
            finally:
                process.kill()
            said = process.stdout.read()
        stderr.seek(0)
        return Refusal(status, said, stderr.read())
