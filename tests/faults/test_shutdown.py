"""SIGTERM or Ctrl-C: health first, then the jobs, then the process, and nothing left behind."""

import os
import signal
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deviceops.device.v1 import device_service_pb2, device_work_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.faults.processes import eventually, gone
from tests.server import asking
from tests.server.asking import ENDINGS, kind, kinds, picture
from tests.server.harness import running_server

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_job_that_ends_soon_is_brought_to_its_end() -> None:
    with running_server("--device", "cpu", environment={"DEVICEOPS_DRAIN_S": "100"}) as server:
        job_id = asking.submit(server, picture(steps=30))
        call = asking.follow(server, job_id)
        asking.until(call, asking.denoising)
        worker = server.worker_pid
        stub: Any = health_pb2_grpc.HealthStub(server.channel)
        health = stub.Watch(health_pb2.HealthCheckRequest(), timeout=asking.CALL_S)
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        # A terminal tells Ctrl-C to every process in it, and systemd the end to every process of a service.
        os.kill(worker, signal.SIGTERM)
        for pid in (worker, server.process.pid):
            os.kill(pid, signal.SIGINT)
        assert next(health).status == NOT_SERVING
        refusal = asking.refused(lambda: asking.submit(server))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        rest = asking.journal_of(call)
        assert [name for name in kinds(rest) if name in ENDINGS] == ["succeeded"]
        assert server.process.wait(60) == 0
        eventually(lambda: gone(worker))


def test_a_client_gets_the_picture_that_was_made_during_the_drain() -> None:
    environment = {"DEVICEOPS_DRAIN_S": "100", "DEVICEOPS_DRAIN_READS_S": "100"}
    with running_server("--device", "cpu", environment=environment) as server:
        call = asking.generate(server, picture(steps=24))
        asking.until(call, asking.denoising)
        server.process.send_signal(signal.SIGTERM)
        last = asking.journal_of(call)[-1]
        assert kind(last) == "succeeded"
        # The server waits for this read, however long the client takes; then it goes at once.
        (image,) = asking.job_of(server, last.event.job_id).generation_result.images
        assert asking.blob(server, image.file.blob_id).startswith(b"\x89PNG")
        assert server.process.wait(60) == 0


def test_a_client_that_reads_nothing_holds_the_server_up_for_a_bounded_time() -> None:
    with running_server("--device", "cpu", environment={"DEVICEOPS_DRAIN_READS_S": "1"}) as server:
        last = asking.watch(server, asking.submit(server))[-1]
        (image,) = asking.job_of(server, last.event.job_id).generation_result.images
        # A read of which the client takes no message, and another follower that reads nothing at all.
        spec = blob_pb2.BlobSpec(tier=blob_pb2.BLOB_TIER_DISK, size_bytes=64 << 20, fill_byte=0)
        large = server.memory.CreateBlob(memory_service_pb2.CreateBlobRequest(blob_spec=spec)).blob
        stalled = server.memory.ReadBlob(memory_service_pb2.ReadBlobRequest(blob_id=large.id), timeout=asking.CALL_S)
        assert next(stalled).data
        assert server.stop() == 0
        assert image.file.blob_id


def test_a_stream_that_the_shutdown_cuts_is_told_why() -> None:
    with running_server("--device", "cpu", environment={"DEVICEOPS_DRAIN_S": "0"}) as server:
        call = asking.generate(server, picture(steps=asking.LONG_STEPS))
        asking.until(call, asking.denoising)
        events = server.processing.WatchEvents(processing_service_pb2.WatchEventsRequest(), timeout=asking.CALL_S)
        devices = server.device.WatchDeviceStatus(device_service_pb2.WatchDeviceStatusRequest(), timeout=asking.CALL_S)
        for stream in (events, devices):
            next(stream)
        server.process.send_signal(signal.SIGTERM)
        for stream in (call, events, devices):
            refusal = asking.refused(lambda stream=stream: stream)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert server.process.wait(60) == 0


def test_a_job_that_takes_longer_is_left_to_the_next_start() -> None:
    with running_server("--device", "cpu", environment={"DEVICEOPS_DRAIN_S": "0.2"}) as server:
        job_id = asking.submit(server, picture(steps=24))
        last_seen = asking.wait_for_step(server, job_id)
        door = asking.generate(server, picture(steps=24, seed=2))
        attached = next(door).event.job_id
        worker = server.worker_pid
        assert server.stop() == 0
        eventually(lambda: gone(worker))
        server.start()
        rest = asking.watch(server, job_id, last_seen)
        assert [name for name in kinds(rest) if name in ENDINGS] == ["succeeded"]
        assert all(update.event.sequence > last_seen for update in rest)
        # A server that goes is not a caller that leaves.
        assert kind(asking.watch(server, attached)[-1]) == "succeeded"


def test_a_reset_that_waits_for_its_worker_is_left_to_the_next_start() -> None:
    with running_server("--device", "sim", environment={"DEVICEOPS_DRAIN_S": "0"}) as server:
        assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
        request = device_service_pb2.ResetDeviceRequest(
            device_reset=device_work_pb2.DeviceReset(device_id="sim-0"), detached=True
        )
        door = server.device.ResetDevice(request, timeout=asking.CALL_S)
        update = asking.until(door, lambda update: update.event.stage_started.stage == "resetting")
        job_id = update.event.job_id
        # Two minutes are what a reset waits for a new worker.
        assert server.stop() == 0
        server.start()
        ends = [name for name in kinds(asking.watch(server, job_id)) if name in ENDINGS]
        assert ends == ["succeeded"]


def test_an_idle_server_goes_at_once() -> None:
    with running_server("--device", "cpu") as server:
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
