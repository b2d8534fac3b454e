"""Seconds from the SIGKILL of a worker until the next one is ready, as GetSystemStatus tells it.

No peer: the target is the design's limit, on every restart. Each round is a server of its own, since a worker that dies
again soon is started after a pause. In the same run, as a detail: the same without a nursery. Linux only.

`python -m bench.worker_restart [--device cuda:0] [--rounds 7] [--cold-rounds 3]`
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import grpc
import psutil

from bench.measure import Spread, result, spread
from deviceops.processing.v1 import processing_service_pb2, system_status_pb2
from tests.server import asking
from tests.server.harness import RunningServer

LIMIT_S = 1.0
STEP_S = 120.0
"""No step of a round takes longer, even where torch comes from a slow disk: the bench then ends, and says why."""
TOLD_S = 5.0
LOG_TAIL = 4000


@contextmanager
def within(limit_s: float, what: str, server: RunningServer | None, log: Path) -> Generator[None]:
    """End the bench where a step takes longer or fails, with what the server tells of its workers and its log."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not within {limit_s:g} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    except (AssertionError, OSError, grpc.RpcError, psutil.Error) as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if server is None:
            for child in psutil.Process().children():
                child.kill()
        tail = log.read_text()[-LOG_TAIL:] if log.exists() else "there is none"
        why = str(error) or type(error).__name__
        raise SystemExit(f"{what}: {why}\nworkers: {workers_of(server)}\nlog:\n{tail}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def workers_of(server: RunningServer | None) -> str:
    """As the server tells of them, or why it does not."""
    if server is None:
        return "the server does not serve"
    if (status := server.process.poll()) is not None:
        return f"the server has ended with {status}"
    try:
        request = processing_service_pb2.GetSystemStatusRequest()
        told = server.processing.GetSystemStatus(request, timeout=TOLD_S).status.workers
    except grpc.RpcError as error:
        return f"the server does not tell: {error}"
    return "; ".join(str(worker).replace("\n", " ") for worker in told) or "none"


def ready_worker(server: RunningServer, but: int = 0) -> int:
    """Wait until a worker other than this is ready; its process id."""
    while True:
        for worker in server.status().workers:
            if worker.state == system_status_pb2.WORKER_STATE_READY and worker.process_id not in (0, but):
                return worker.process_id
        time.sleep(0.005)


def end_nursery(server: RunningServer, worker: int) -> None:
    """Leave only the worker: another nursery needs seconds, and none is there at once."""
    for child in psutil.Process(server.process.pid).children():
        if child.pid != worker:
            child.kill()


def restart_s(device: str, *, cold: bool) -> tuple[float, dict[str, int]]:
    """Seconds, and what the processes then have in memory."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        log = state.with_suffix(".log")
        with within(STEP_S, "the server's start", None, log):
            server = RunningServer(state, ["--device", device], dict(os.environ))
        try:
            with within(STEP_S, f"the first worker of {device}", server, log):
                worker = ready_worker(server)
            with within(STEP_S, "a picture", server, log):
                last = asking.kind(asking.watch(server, asking.submit(server))[-1])
                assert last == "succeeded", f"it has {last}"
            if cold:
                end_nursery(server, worker)
            with within(STEP_S, f"the next worker of {device}", server, log):
                begin = time.perf_counter()
                os.kill(worker, signal.SIGKILL)
                again = ready_worker(server, but=worker)
                took = time.perf_counter() - begin
                return took, memory(server, again)
        finally:
            server.close()


def memory(server: RunningServer, worker: int) -> dict[str, int]:
    """Bytes: of the worker alone, and proportional shares of all processes that the server started."""
    every = psutil.Process(server.process.pid).children(recursive=True)
    return {
        "worker alone bytes": psutil.Process(worker).memory_full_info().uss,
        "all proportional bytes": sum(one.memory_full_info().pss for one in every),
    }


def rounds(device: str, count: int, *, cold: bool) -> list[tuple[float, dict[str, int]]]:
    """As `restart_s`, so many times; each is told on stderr."""
    found: list[tuple[float, dict[str, int]]] = []
    for number in range(count):
        begin = time.perf_counter()
        found.append(restart_s(device, cold=cold))
        how = "without a nursery" if cold else "forked"
        whole = time.perf_counter() - begin
        print(f"{how} {number + 1} of {count}: {found[-1][0]:.3f} s, the round {whole:.1f} s", file=sys.stderr)
    return found


def main() -> int:
    """Print the slowest restart against the limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold-rounds", type=int, default=3)
    asked = parser.parse_known_args()[0]
    forked = rounds(asked.device, asked.rounds, cold=False)
    cold = [took for took, _ in rounds(asked.device, asked.cold_rounds, cold=True)]
    seconds = sorted(took for took, _ in forked)
    return result(
        "worker_restart" if asked.device == "cpu" else f"worker_restart_{asked.device.partition(':')[0]}",
        Spread(median=seconds[-1], low=seconds[0], high=seconds[-1]),
        target=LIMIT_S,
        better="lower",
        peer="none: seconds, against the design's limit",
        details={
            "device": asked.device,
            "restarts": asked.rounds,
            "median s": seconds[asked.rounds // 2],
            "worst s": seconds[-1],
            "without a nursery s": spread(cold),
            **forked[-1][1],
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
