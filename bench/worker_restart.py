"""Seconds from the SIGKILL of a worker until the next one is ready, as GetSystemStatus tells it.

No peer: the target is the design's limit, on every restart. Each round is a server of its own, since a worker that dies
again soon is started after a pause. In the same run, as a detail: the same without a nursery.

`python -m bench.worker_restart [--device cuda:0]`
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import psutil

from bench.measure import Spread, result, spread
from deviceops.processing.v1 import system_status_pb2
from tests.server import asking
from tests.server.harness import RunningServer

ROUNDS = 7
COLD_ROUNDS = 3
LIMIT_S = 1.0


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
        server = RunningServer(Path(folder) / "state", ["--device", device], dict(os.environ))
        try:
            worker = ready_worker(server)
            asking.watch(server, asking.submit(server))
            if cold:
                end_nursery(server, worker)
            begin = time.perf_counter()
            os.kill(worker, 9)
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


def main() -> int:
    """Print the slowest restart against the limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    device = parser.parse_known_args()[0].device
    forked = [restart_s(device, cold=False) for _ in range(ROUNDS)]
    cold = [restart_s(device, cold=True)[0] for _ in range(COLD_ROUNDS)]
    seconds = sorted(took for took, _ in forked)
    return result(
        "worker_restart",
        Spread(median=seconds[-1], low=seconds[0], high=seconds[-1]),
        target=LIMIT_S,
        better="lower",
        peer="none: seconds, against the design's limit",
        details={
            "device": device,
            "restarts": ROUNDS,
            "median s": seconds[ROUNDS // 2],
            "worst s": seconds[-1],
            "without a nursery s": spread(cold),
            **forked[-1][1],
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
