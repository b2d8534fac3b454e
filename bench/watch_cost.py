"""What WatchDeviceStatus at 1 Hz costs the front: its processor time while one client watches all devices, less that of the
same front unwatched, as a share of a core.

The peer is the target of 1 % of a core; the ratio is measured / that.
"""

import threading
import time

import grpc
import psutil

from bench.measure import result, spread
from bench.unary import wait_for_device
from deviceops.device.v1 import device_service_pb2
from domains.device.feed import LONGEST_S
from server import convert
from tests.server.harness import RunningServer, running_server

SPAN_S = 20.0
ROUNDS = 3
TARGET = 0.01


def processor_s(front: psutil.Process, seconds: float) -> float:
    """Processor time of the front alone (not of its workers) in so many seconds, as a share of a core."""
    before, begin = front.cpu_times(), time.perf_counter()
    time.sleep(seconds)
    after, took = front.cpu_times(), time.perf_counter() - begin
    return (after.user + after.system - before.user - before.system) / took


def watched(server: RunningServer, front: psutil.Process) -> tuple[float, int]:
    """The share while a client watches at 1 Hz, and how many rounds it got."""
    request = device_service_pb2.WatchDeviceStatusRequest(interval=convert.to_duration(1.0))
    call = server.device.WatchDeviceStatus(request, timeout=SPAN_S + LONGEST_S)
    next(call)
    counted = 0
    ends: list[grpc.StatusCode] = []

    def read() -> None:
        nonlocal counted
        try:
            for _ in call:
                counted += 1
        except grpc.RpcError as error:
            ends.append(error.code())  # pyright: ignore[reportAttributeAccessIssue]  # a Call as well

    reader = threading.Thread(target=read)
    reader.start()
    share = processor_s(front, SPAN_S)
    call.cancel()
    reader.join()
    assert ends == [grpc.StatusCode.CANCELLED], f"the watch ended by itself: {ends}"
    return share, counted


def main() -> int:
    """Print the share against the target."""
    alone: list[float] = []
    beside: list[float] = []
    counts: list[int] = []
    with running_server("--device", "cpu") as server:
        wait_for_device(server.device)
        front = psutil.Process(server.process.pid)
        for number in range(ROUNDS):
            for watching in (False, True) if number % 2 else (True, False):
                if watching:
                    share, count = watched(server, front)
                    beside.append(share)
                    counts.append(count)
                else:
                    alone.append(processor_s(front, SPAN_S))
    costs = [more - less for more, less in zip(beside, alone, strict=True)]
    return result(
        "watch_cost",
        spread([cost / TARGET for cost in costs]),
        target=1.0,
        better="lower",
        peer=f"{TARGET:.0%} of a core",
        conditions={"every round came": all(abs(count - SPAN_S) <= 2 for count in counts)},
        details={
            "seconds each": SPAN_S,
            "unwatched, share of a core": spread(alone),
            "watched, share of a core": spread(beside),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
