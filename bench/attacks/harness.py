"""What the attacks share: a victim, its memory, and a well-behaved neighbour whose calls are timed meanwhile."""

import contextlib
import json
import resource
import statistics
import threading
import time
from collections.abc import Generator

import grpc
import psutil

from bench.measure import environment
from deviceops.processing.v1 import processing_service_pb2
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub

STATUS = "/deviceops.processing.v1.ProcessingService/GetSystemStatus"
WATCH = "/deviceops.processing.v1.ProcessingService/WatchEvents"


class Neighbour:
    """Calls GetSystemStatus again and again on a connection of its own."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = ProcessingServiceStub(self._channel)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []
        """Of each answered call."""
        self.failures: list[str] = []
        """Code and text of each call that was not answered."""

    def call(self) -> None:
        """One call."""
        begin = time.perf_counter()
        try:
            self._stub.GetSystemStatus(processing_service_pb2.GetSystemStatusRequest(), timeout=10)
        except grpc.RpcError as error:
            self.failures.append(_told(error))
        else:
            self.seconds.append(time.perf_counter() - begin)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.call()

    def __enter__(self) -> "Neighbour":
        self.call()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.call()
        self._channel.close()

    def figures(self) -> dict[str, object]:
        """How its calls went."""
        return {
            "answered": len(self.seconds),
            "failed": len(self.failures),
            "first failure": next(iter(self.failures), ""),
            "median s": statistics.median(self.seconds),
            "slowest s": max(self.seconds),
        }


def _told(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call)
    return f"{error.code().name}: {error.details()}"


class Peak:
    """The largest resident memory of a process while a block runs, looked at 50 times a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.bytes = self.last_bytes = 0
        self._look()
        self.before_bytes = self.bytes

    @property
    def growth_bytes(self) -> int:
        """How much more than before it was at most."""
        return self.bytes - self.before_bytes

    def _look(self) -> None:
        self.last_bytes = int(self._process.memory_info().rss)
        self.bytes = max(self.bytes, self.last_bytes)

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Look while the block runs."""
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.02):
                self._look()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._look()

    def figures(self) -> dict[str, float]:
        """In MiB."""
        looks = {"before MiB": self.before_bytes, "peak MiB": self.bytes, "after MiB": self.last_bytes}
        return {name: size / 2**20 for name, size in looks.items()}


def allow_descriptors(count: int) -> None:
    """Raise this process's limit of open files, as far as the system lets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def tell(name: str, **figures: object) -> int:
    """Print the figures as one JSON object; the exit status."""
    text = json.dumps({"name": name, **figures, "environment": environment()}, indent=2, default=str)
    print(text)
    return 0
