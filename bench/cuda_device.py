"""On a machine with a CUDA device: does Device and Memory tell the truth of real hardware?

Telemetry at rest and under load, the cost of watching it, pools against what is known to lie there, copies, a reset of a
device whose context was poisoned by a real CUDA error inside its worker, and the time until it works again.
`--out FOLDER` keeps the answers. Not part of the CPU set. The peer of the ratio is a pageable copy to the device.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from bench.cuda_picture import cuda_device
from bench.measure import result, spread
from bench.serve_overhead import PROMPT, SEED
from deviceops.device.v1 import device_health_pb2, device_service_pb2, device_work_pb2
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.memory.v1 import blob_pb2, memory_pool_pb2, memory_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.server.harness import RunningServer, running_server

FAULT_FOLDER = Path(__file__).parent / "cuda_fault"
DEVICE_BLOB_BYTES = 256 * 1024 * 1024


def generate(server: RunningServer, steps: int, count: int = 1) -> Any:
    """The last response of a generation."""
    generation = generation_pb2.Generation(
        prompt=PROMPT, image_count=count, sampling=sampling_pb2.Sampling(seed=SEED, steps=steps)
    )
    return list(server.inference.Generate(inference_service_pb2.GenerateRequest(generation=generation)))


def status(server: RunningServer, device_id: str) -> dict[str, Any]:
    """GetDeviceStatus, as JSON would have it, and how long it took."""
    begin = time.monotonic()
    answer = server.device.GetDeviceStatus(device_service_pb2.GetDeviceStatusRequest(device_id=device_id)).status
    return {**MessageToDict(answer, preserving_proto_field_name=True), "answered in s": time.monotonic() - begin}


def under_load(server: RunningServer, device_id: str) -> dict[str, Any]:
    """A sample while a picture is made."""
    work = threading.Thread(target=generate, args=(server, 400, 8))
    work.start()
    time.sleep(2.0)
    sample = status(server, device_id)
    work.join()
    return sample


def pool(server: RunningServer, device_id: str) -> Any:
    """The device's pool with its owners."""
    request = memory_service_pb2.GetMemoryPoolRequest(memory_pool_id=device_id, include_owners=True)
    return server.memory.GetMemoryPool(request).memory_pool


def blob_counts(server: RunningServer, device_id: str) -> dict[str, Any]:
    """A device blob of known size: what the pool says before, with it, and after."""
    spec = blob_pb2.BlobSpec(
        tier=blob_pb2.BLOB_TIER_DEVICE, size_bytes=DEVICE_BLOB_BYTES, device_id=device_id, fill_byte=7
    )
    before = pool(server, device_id)
    blob = server.memory.CreateBlob(memory_service_pb2.CreateBlobRequest(blob_spec=spec)).blob
    held = pool(server, device_id)
    server.memory.DeleteBlob(memory_service_pb2.DeleteBlobRequest(blob_id=blob.id))
    owners = sum(owner.live_bytes for owner in held.owners)
    nobody = memory_pool_pb2.MEMORY_OWNER_KIND_UNATTRIBUTED
    unknown = sum(owner.live_bytes for owner in held.owners if owner.kind == nobody)
    return {
        "blob bytes": DEVICE_BLOB_BYTES,
        "live bytes more": held.live_bytes - before.live_bytes,
        "owners": owners,
        "live": held.live_bytes,
        "owners / live": owners / held.live_bytes,
        "unattributed / live": unknown / held.live_bytes,
        "pool": MessageToDict(held, preserving_proto_field_name=True),
    }


def benchmark(server: RunningServer, device_id: str) -> dict[str, tuple[float, str, str]]:
    """Medians by name."""
    work = device_work_pb2.DeviceBenchmark(device_id=device_id)
    request = device_service_pb2.BenchmarkDeviceRequest(device_benchmark=work)
    last = list(server.device.BenchmarkDevice(request))[-1]
    report = last.device_benchmark_report
    return {one.median.name: (one.median.value, one.median.unit, one.workload) for one in report.results}


def check(server: RunningServer, device_id: str, depth: int = 0) -> Any:
    """CheckDeviceHealth."""
    request = device_service_pb2.CheckDeviceHealthRequest(
        device_id=device_id, depth=device_health_pb2.DeviceHealthDepth.ValueType(depth)
    )
    return server.device.CheckDeviceHealth(request).report


def poison_and_recover(server: RunningServer, device_id: str, fault: Path) -> dict[str, Any]:
    """A real sticky error in mid-job: how the job ends, what the device says, and how soon a new picture is there."""
    began: list[float] = []
    kinds: list[str] = []
    generation = generation_pb2.Generation(
        prompt=PROMPT, sampling=sampling_pb2.Sampling(seed=SEED, steps=1000), width_px=256, height_px=256
    )
    last = None
    for response in server.inference.Generate(inference_service_pb2.GenerateRequest(generation=generation)):
        kind = str(response.event.WhichOneof("kind"))
        if kind == "progress" and response.event.progress.completed and not began:
            fault.touch()
            began.append(time.monotonic())
        if kind not in ("progress", "preview", "heartbeat"):
            kinds.append(kind)
        last = response
    failed_s = time.monotonic() - began[0] if began else None
    events = server.processing.WatchEvents(processing_service_pb2.WatchEventsRequest(after_sequence=0))
    next(iter(events))
    state_after = status(server, device_id)
    picture = generate(server, 20)[-1]
    working_s = time.monotonic() - began[0] if began else None
    told: list[str] = []
    for update in events:
        event = update.event
        told.append(f"{event.sequence}<-{event.cause_sequence} {event.kind} {event.resource_id} {event.message}"[:160])
        if event.sequence >= update.last_sequence:
            break
    events.cancel()
    return {
        "job's events": kinds,
        "failure": MessageToDict(last.event.failed.failure) if last is not None else None,
        "failed after s": failed_s,
        "state after": state_after.get("state"),
        "errors": state_after.get("error_count"),
        "next picture after s": working_s,
        "next picture": picture.event.WhichOneof("kind"),
        "events": told[-25:],
    }


def reset(server: RunningServer, device_id: str) -> dict[str, Any]:
    """ResetDevice with its process."""
    begin = time.monotonic()
    work = device_work_pb2.DeviceReset(device_id=device_id)
    request = device_service_pb2.ResetDeviceRequest(device_reset=work)
    last = list(server.device.ResetDevice(request))[-1]
    report = MessageToDict(last.device_reset_report, preserving_proto_field_name=True)
    report.pop("device", None)
    failure = MessageToDict(last.event.failed.failure) if last.event.HasField("failed") else None
    kind = str(last.event.WhichOneof("kind"))
    return {"ended": kind, "seconds": time.monotonic() - begin, "report": report, "failure": failure}


def main() -> int:
    """Print what was found; the ratio is pinned against pageable copies to the device."""
    out = Path(sys.argv[sys.argv.index("--out") + 1]) if "--out" in sys.argv else None
    with tempfile.TemporaryDirectory() as folder:
        fault = Path(folder) / "break"
        paths = os.pathsep.join(filter(None, (str(FAULT_FOLDER), os.environ.get("PYTHONPATH", ""))))
        environment = {"DEVICEOPS_BENCH_FAULT": str(fault), "PYTHONPATH": paths}
        with running_server("--device", "auto", environment=environment) as server:
            try:
                found = _measure(server, fault)
            finally:
                if out is not None:
                    (out / "server.log").write_text(server.log.read_text())
    figures = found["benchmark"]
    pinned = next(value for name, (value, *_) in figures.items() if "host_to_device_pinned" in name)
    pageable = next(value for name, (value, *_) in figures.items() if "host_to_device_pageable" in name)
    poison = found["sticky CUDA error"]
    return result(
        "cuda_device",
        spread([pinned / pageable]),
        target=1.0,
        peer="a pageable copy of the same bytes to the device",
        conditions={
            "telemetry has temperature, power and clocks": {"temperature_celsius", "power_watts", "clock_mhz"}
            <= set(found["status at rest"]),
            "utilization rises under load": found["status under load"].get("utilization_ratio", 0) > 0,
            # The owners add up by what is UNATTRIBUTED: that is what must be small.
            "owners add up within 2 %": found["a device blob"]["owners / live"] == 1.0
            and found["a device blob"]["unattributed / live"] <= 0.02,
            "a blob is counted to the byte within 2 %": abs(
                found["a device blob"]["live bytes more"] / DEVICE_BLOB_BYTES - 1
            )
            <= 0.02,
            "health checks pass": found["quick check"] == 1 and found["full check"] == 1,
            "a sticky error ends its job as DRIVER_ERROR": "DRIVER_ERROR" in str(poison["failure"]),
            "the next picture is made": poison["next picture"] == "succeeded",
            "a reset ends well": found["reset"]["ended"] == "succeeded",
        },
        details=found,
    )


def _measure(server: RunningServer, fault: Path) -> dict[str, Any]:
    device = cuda_device(server)
    found: dict[str, Any] = {"device": MessageToDict(device, preserving_proto_field_name=True)}
    found["status at rest"] = status(server, device.id)
    generate(server, 20)
    found["status under load"] = under_load(server, device.id)
    found["a device blob"] = blob_counts(server, device.id)
    found["quick check"] = check(server, device.id).verdict
    full = check(server, device.id, device_health_pb2.DEVICE_HEALTH_DEPTH_FULL)
    found["full check"] = full.verdict
    found["full checks"] = {one.name: one.message for one in full.checks}
    found["benchmark"] = benchmark(server, device.id)
    found["reset"] = reset(server, device.id)
    found["sticky CUDA error"] = poison_and_recover(server, device.id, fault)
    found["reset after it"] = reset(server, device.id)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
