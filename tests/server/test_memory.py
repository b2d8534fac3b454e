"""MemoryService through a whole server: what is used, promised, budgeted, freed and remembered, on simulated devices."""

import hashlib
import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from deviceops.common.v1 import error_pb2, job_event_pb2
from deviceops.device.v1 import device_service_pb2, device_work_pb2
from deviceops.memory.v1 import blob_pb2, memory_budget_pb2, memory_pool_pb2, reservation_pb2
from deviceops.memory.v1 import memory_service_pb2 as pb
from deviceops.model.v1 import model_service_pb2, model_work_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, LONG_STEPS, Refusal, kind, kinds, picture, refused
from tests.server.harness import RunningServer
from tests.server.sim import Events, Script, sim, simulated

MIB = 1024 * 1024
TOTAL = 512 * MIB
RUNTIME = 16 * MIB
MEMORY = f"memory_bytes = {TOTAL}\nruntime_bytes = {RUNTIME}"
LEAK = f'kind = "leak"\nbytes_per_job = {2 * MIB}'
HEALTHY = (sim(0, MEMORY), sim(1, MEMORY))
DEVICE, HOST, DISK = blob_pb2.BLOB_TIER_DEVICE, blob_pb2.BLOB_TIER_HOST, blob_pb2.BLOB_TIER_DISK
MODEL = "emoji-sd@sim-0"
LIMITS = (2**63 - 1, -(2**63), -1)
Budget = memory_budget_pb2.MemoryBudget
EMERGENCY = memory_pool_pb2.MEMORY_RECLAIM_LEVEL_EMERGENCY


class Machine:
    """A server with two simulated devices of 512 MiB, and what tests ask of it."""

    def __init__(self, server: RunningServer, script: Script, events: Events, root: Path) -> None:
        self.server, self.script, self.events, self.root = server, script, events, root
        self.memory = server.memory

    def pool(self, name: str = "sim-0") -> Any:
        request = pb.GetMemoryPoolRequest(memory_pool_id=name, include_owners=True)
        return self.memory.GetMemoryPool(request, timeout=CALL_S).memory_pool

    def budget(self, budget: Any = None, name: str = "sim-0", **more: Any) -> Any:
        request = pb.SetMemoryBudgetRequest(memory_pool_id=name, memory_budget=budget, **more)
        return self.memory.SetMemoryBudget(request, timeout=CALL_S)

    def reclaim(self, name: str = "sim-0", **more: Any) -> Any:
        return self.memory.ReclaimMemory(pb.ReclaimMemoryRequest(memory_pool_id=name, **more), timeout=CALL_S).report

    def reserve(self, size: int, name: str = "sim-0", **more: Any) -> Any:
        request = pb.CreateReservationRequest(memory_pool_id=name, size_bytes=size, **more)
        return self.memory.CreateReservation(request, timeout=CALL_S).reservation

    def reservation(self, reservation_id: str) -> reservation_pb2.Reservation:
        request = pb.GetReservationRequest(reservation_id=reservation_id)
        return self.memory.GetReservation(request, timeout=CALL_S).reservation

    def release(self, reservation_id: str) -> int:
        request = pb.DeleteReservationRequest(reservation_id=reservation_id)
        return self.memory.DeleteReservation(request, timeout=CALL_S).released_bytes

    def renew(self, reservation_id: str, **more: Any) -> Any:
        request = pb.RenewReservationRequest(reservation_id=reservation_id, **more)
        return self.memory.RenewReservation(request, timeout=CALL_S).reservation

    def reservations(self, *states: str, **more: Any) -> dict[str, Any]:
        numbers = [reservation_pb2.ReservationState.Value(f"RESERVATION_STATE_{state}") for state in states]
        wanted = reservation_pb2.ReservationFilter(states=numbers, **more)
        listed = self.memory.ListReservations(pb.ListReservationsRequest(filter=wanted, page_size=1000), timeout=CALL_S)
        return {one.id: one for one in listed.reservations}

    def create(self, size: int, tier: Any = DEVICE, **more: Any) -> Any:
        if tier == DEVICE:
            more.setdefault("device_id", "sim-0")
        request_id = more.pop("request_id", "")
        spec = blob_pb2.BlobSpec(tier=tier, size_bytes=size, **more)
        return self.memory.CreateBlob(pb.CreateBlobRequest(blob_spec=spec, request_id=request_id), timeout=CALL_S).blob

    def upload(self, data: bytes, tier: Any = DISK, **more: Any) -> Any:
        def parts() -> Iterator[Any]:
            yield pb.UploadBlobRequest(blob_spec=blob_pb2.BlobSpec(tier=tier, size_bytes=len(data), **more))
            for begin in range(0, len(data), MIB):
                chunk = blob_pb2.BlobChunk(offset_bytes=begin, data=data[begin : begin + MIB])
                yield pb.UploadBlobRequest(chunk=chunk)

        return self.memory.UploadBlob(parts(), timeout=CALL_S).blob

    def blob(self, blob_id: str) -> Any:
        return self.memory.GetBlob(pb.GetBlobRequest(blob_id=blob_id), timeout=CALL_S).blob

    def read(self, blob_id: str, **more: Any) -> bytes:
        call = self.memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob_id, **more), timeout=CALL_S)
        return b"".join(part.data for part in call)

    def delete(self, blob_id: str, **more: Any) -> Any:
        return self.memory.DeleteBlob(pb.DeleteBlobRequest(blob_id=blob_id, **more), timeout=CALL_S)

    def blobs(self, page_size: int = 1000, page_token: str = "", **wanted: Any) -> Any:
        request = pb.ListBlobsRequest(filter=blob_pb2.BlobFilter(**wanted), page_size=page_size, page_token=page_token)
        return self.memory.ListBlobs(request, timeout=CALL_S)

    def register(self, path: str, **more: Any) -> Any:
        file = blob_pb2.MappedFile(path=path)
        return self.memory.RegisterBlob(pb.RegisterBlobRequest(file=file, **more), timeout=CALL_S).blob

    def transfer(self, blob_id: str, **more: Any) -> Any:
        """TransferBlob, as a call to iterate or leave."""
        return self.memory.TransferBlob(pb.TransferBlobRequest(blob_transfer=moved(blob_id, **more)), timeout=CALL_S)

    def transferred(self, blob_id: str, **more: Any) -> Any:
        last = list(self.transfer(blob_id, **more))[-1]
        assert kind(last) == "succeeded", last
        return last.blob_transfer_report

    def submit(
        self, device: str = "sim-0", reservation_id: str = "", *, allow_offload: bool | None = None, **work: Any
    ) -> str:
        fallback = job_event_pb2.FallbackPolicy(allow_offload=allow_offload)
        options = job_event_pb2.JobOptions(reservation_id=reservation_id, fallback=fallback)
        options.devices.device_ids.extend([device] if device else [])
        return asking.submit(self.server, picture(**work), options)

    def job(self, device: str = "sim-0", reservation_id: str = "", **work: Any) -> Any:
        """The last word about a job."""
        return asking.watch(self.server, self.submit(device, reservation_id, **work))[-1]

    def history(self, name: str = "sim-0", **more: Any) -> Any:
        request = pb.QueryMemoryHistoryRequest(memory_pool_id=name, **more)
        return self.memory.QueryMemoryHistory(request, timeout=CALL_S).history

    def models(self) -> dict[str, Any]:
        listed = self.server.model.ListLoadedModels(model_service_pb2.ListLoadedModelsRequest(), timeout=CALL_S)
        return {one.id: one for one in listed.loaded_models}

    def load(self, device: str, *, pinned: bool) -> None:
        options = job_event_pb2.JobOptions()
        options.devices.device_ids.append(device)
        work = model_work_pb2.ModelLoad(model_id="emoji-sd", pinned=pinned)
        request = model_service_pb2.LoadModelRequest(model_load=work, options=options)
        assert kind(list(self.server.model.LoadModel(request, timeout=CALL_S))[-1]) == "succeeded"

    def unload(self, device: str) -> None:
        request = model_service_pb2.UnloadModelRequest(device_id=device)
        self.server.model.UnloadModel(request, timeout=CALL_S)

    def reset(self, device: str = "sim-0") -> None:
        request = device_service_pb2.ResetDeviceRequest(device_reset=device_work_pb2.DeviceReset(device_id=device))
        last = list(self.server.device.ResetDevice(request, timeout=CALL_S))[-1]
        assert kind(last) == "succeeded", last

    def rewrite(self, *devices: str) -> None:
        """Another script; answers when the server has read it."""
        if self.script.write(*devices):
            self.events.until(lambda event: event.kind in ("device.script_changed", "device.returned"))

    def told(self, wanted: Callable[[Any], bool]) -> Any:
        """The first event that is wanted, of those seen already or those to come."""
        return next(filter(wanted, self.events.seen), None) or self.events.until(wanted)

    def until(self, true: Callable[[], Any]) -> Any:
        """Look again at each sample of the pools, until something is so."""
        watching = pb.WatchMemoryPoolsRequest(memory_pool_ids=["disk"], interval=Duration(nanos=100_000_000))
        call = self.memory.WatchMemoryPools(watching, timeout=20)
        try:
            for _ in call:
                if found := true():
                    return found
        finally:
            call.cancel()
        raise AssertionError("never")

    def tidy(self) -> None:
        """As it was: no blobs on devices, nothing reserved, no budgets, both devices healthy."""
        self.budget()
        self.budget(name="sim-1")
        self.budget(name="host")
        for reservation_id in self.reservations():
            self.release(reservation_id)
        for blob in self.blobs(tiers=[DEVICE, HOST]).blobs:
            self.delete(blob.id)
        self.rewrite(*HEALTHY)


def moved(blob_id: str, tier: Any = None, device_id: str = "", **more: Any) -> Any:
    if tier is not None:
        more["new_blob"] = blob_pb2.NewBlobDestination(tier=tier, device_id=device_id)
    return blob_pb2.BlobTransfer(blob_id=blob_id, **more)


def owned(pool: Any, *names: str) -> dict[tuple[str, str], int]:
    """Bytes by kind and id."""
    name = memory_pool_pb2.MemoryOwnerKind.Name
    held = {(name(one.kind).removeprefix("MEMORY_OWNER_KIND_"), one.id): one.live_bytes for one in pool.owners}
    return {key: size for key, size in held.items() if not names or key[0] in names}


def facts_of(failure: Any) -> dict[str, str]:
    return {fact.name: fact.value for fact in failure.facts}


def reason_of(update: Any) -> str:
    assert kind(update) == "failed", update
    return error_pb2.ErrorReason.Name(update.event.failed.failure.reason).removeprefix("ERROR_REASON_")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder, root = tmp_path_factory.mktemp("sim"), tmp_path_factory.mktemp("root")
    settings = {"DEVICEOPS_LEAK_WINDOW_S": "1", "DEVICEOPS_BLOB_ROOTS": json.dumps([str(root)])}
    with simulated(folder, *HEALTHY, environment=settings) as (server, script, events):
        yield Machine(server, script, events, root)


@pytest.fixture
def machine(shared: Machine) -> Iterator[Machine]:
    """With the model on sim-0, and tidied up afterwards."""
    assert kind(shared.job()) == "succeeded"
    yield shared
    shared.tidy()


# Pools


def test_the_pools_are_the_devices_the_host_and_the_disk(machine: Machine) -> None:
    listed = machine.memory.ListMemoryPools(pb.ListMemoryPoolsRequest(), timeout=CALL_S).memory_pools
    assert [pool.id for pool in listed] == ["sim-0", "sim-1", "host", "disk"]
    assert not any(pool.owners for pool in listed)
    assert machine.pool("cpu").id == "host"
    kinds_of = [memory_pool_pb2.MEMORY_POOL_KIND_DEVICE]
    only = machine.memory.ListMemoryPools(pb.ListMemoryPoolsRequest(kinds=kinds_of), timeout=CALL_S).memory_pools
    assert {pool.device_id for pool in only} == {"sim-0", "sim-1"}
    refusal = refused(lambda: machine.pool("gpu-7"))
    assert (refusal.reason, refusal.facts["known"]) == ("MEMORY_POOL_NOT_FOUND", "sim-0, sim-1, host, disk")


def test_owners_add_up_and_are_as_large_as_what_they_own(machine: Machine) -> None:
    blob = machine.create(40 * MIB, fill_byte=7)
    job_id = machine.submit(steps=LONG_STEPS)
    asking.wait_for_step(machine.server, job_id)
    pool = machine.pool()
    asking.cancel(machine.server, job_id)
    asking.watch(machine.server, job_id)
    held = owned(pool)
    assert sum(held.values()) == pool.live_bytes
    assert held["LOADED_MODEL", MODEL] == pytest.approx(machine.models()[MODEL].device_bytes, rel=0.02)
    assert held["BLOB", blob.id] == 40 * MIB
    assert held["RUNTIME", ""] == RUNTIME
    assert held["JOB", job_id] > 0
    assert held.get(("UNATTRIBUTED", ""), 0) == 0
    assert [one.live_bytes for one in pool.owners] == sorted((one.live_bytes for one in pool.owners), reverse=True)
    assert owned(machine.pool(), "JOB") == {}


def test_what_is_available_is_what_is_left(machine: Machine) -> None:
    pool = machine.pool()
    assert (pool.total_bytes, pool.reserved_bytes) == (TOTAL, 0)
    assert pool.used_bytes == pool.held_bytes == pool.live_bytes
    assert pool.available_bytes == TOTAL - pool.used_bytes
    machine.reserve(100 * MIB)
    after = machine.pool()
    assert (after.reserved_bytes, after.available_bytes) == (100 * MIB, pool.available_bytes - 100 * MIB)
    machine.budget(Budget(limit_bytes=300 * MIB, headroom_bytes=64 * MIB))
    assert machine.pool().available_bytes == 300 * MIB - pool.held_bytes - 100 * MIB
    machine.budget(Budget(headroom_bytes=64 * MIB))
    assert machine.pool().available_bytes == TOTAL - 64 * MIB - pool.used_bytes - 100 * MIB
    machine.create(10 * MIB, fill_byte=1)
    assert machine.pool().used_bytes == pool.used_bytes + 10 * MIB
    assert machine.pool().peak_live_bytes >= pool.live_bytes + 10 * MIB


def test_a_first_load_is_seen_by_the_next_look(machine: Machine) -> None:
    machine.unload("sim-0")
    before = machine.pool()
    assert owned(before, "LOADED_MODEL") == {}
    assert kind(machine.job()) == "succeeded"
    after = machine.pool()
    weights = owned(after)["LOADED_MODEL", MODEL]
    assert after.available_bytes <= before.available_bytes - weights


# Budgets


def test_a_budget_below_use_evicts_the_idle_model(machine: Machine) -> None:
    tight = Budget(limit_bytes=32 * MIB, idle_after=Duration(seconds=1))
    before = machine.pool()

    def idle() -> Any:
        impact = machine.budget(tight, validate_only=True).impact
        return impact if impact.evicted_loaded_model_ids else None

    impact = machine.until(idle)
    assert list(impact.evicted_loaded_model_ids) == [MODEL]
    assert impact.excess_bytes == before.held_bytes - 32 * MIB
    assert impact.reclaimable_bytes >= impact.excess_bytes
    assert (machine.pool().etag, machine.pool().budget) == (before.etag, before.budget)
    assert MODEL in machine.models()
    answer = machine.budget(tight, etag=before.etag)
    assert list(answer.impact.evicted_loaded_model_ids) == [MODEL]
    assert MODEL not in machine.models()
    assert answer.memory_pool.held_bytes <= 32 * MIB
    assert answer.memory_pool.etag != before.etag
    assert refused(lambda: machine.budget(Budget(), etag=before.etag)).reason == "ETAG_MISMATCH"
    assert machine.budget(tight).impact == memory_budget_pb2.MemoryBudgetImpact()


def test_a_budget_that_cannot_fit_is_refused_and_costs_nothing(machine: Machine) -> None:
    before = machine.pool()
    refusal = refused(lambda: machine.budget(Budget(limit_bytes=RUNTIME // 2, idle_after=Duration(seconds=1))))
    assert refusal.reason == "BUDGET_EXCEEDED"
    assert int(refusal.facts["excess_bytes"]) > int(refusal.facts["reclaimable_bytes"])
    impact = machine.budget(Budget(limit_bytes=RUNTIME // 2), validate_only=True).impact
    assert impact.reclaimable_bytes < impact.excess_bytes
    job_id = machine.submit(steps=LONG_STEPS)
    asking.wait_for_step(machine.server, job_id)
    busy = Budget(limit_bytes=32 * MIB, idle_after=Duration(seconds=1))
    assert refused(lambda: machine.budget(busy)).reason == "BUDGET_EXCEEDED"
    asking.cancel(machine.server, job_id)
    assert kind(asking.watch(machine.server, job_id)[-1]) == "cancelled"
    assert MODEL in machine.models()
    assert (machine.pool().etag, machine.pool().budget) == (before.etag, before.budget)


def test_a_job_that_does_not_fit_ends_typed_and_the_next_one_works(machine: Machine) -> None:
    machine.unload("sim-0")
    machine.budget(Budget(limit_bytes=40 * MIB))
    last = machine.job(allow_offload=False)
    assert reason_of(last) == "BUDGET_EXCEEDED"
    facts = facts_of(last.event.failed.failure)
    assert int(facts["needed_bytes"]) > int(facts["available_bytes"])
    assert int(facts["available_bytes"]) == 40 * MIB - RUNTIME
    machine.budget()
    machine.create(TOTAL - RUNTIME - 8 * MIB, fill_byte=0)
    last = machine.job()
    assert reason_of(last) == "DEVICE_OUT_OF_MEMORY"
    facts = facts_of(last.event.failed.failure)
    assert int(facts["needed_bytes"]) > int(facts["available_bytes"])
    machine.tidy()
    assert kind(machine.job()) == "succeeded"


def test_one_request_id_changes_a_budget_once(machine: Machine) -> None:
    first = machine.budget(Budget(limit_bytes=400 * MIB), request_id="budget-1")
    machine.budget(Budget(limit_bytes=300 * MIB))
    again = machine.budget(Budget(limit_bytes=400 * MIB), request_id="budget-1")
    assert again == first
    assert machine.pool().budget.limit_bytes == 300 * MIB
    other = refused(lambda: machine.budget(Budget(limit_bytes=1), request_id="budget-1"))
    assert other.reason == "REQUEST_ID_REUSED"


# Pressure


def test_each_level_of_pressure_is_told_once_and_falls_late(machine: Machine) -> None:
    machine.budget(Budget(automatic_reclaim=False))
    told: list[str] = []
    begin_s = time.time()
    watching = pb.WatchMemoryPoolsRequest(memory_pool_ids=["sim-0"], interval=Duration(seconds=60))
    call = machine.memory.WatchMemoryPools(watching, timeout=CALL_S)
    next(call)

    def collect() -> None:
        try:
            for update in call:
                told.extend(level(change.current) for change in update.pressure_changes)
                if told and told[-1] == "LOW":
                    return
        except grpc.RpcError:
            return

    watcher = threading.Thread(target=collect)
    watcher.start()
    steps: list[str] = []
    seen: list[str] = []
    for share in (0.82, 0.92, 0.96):
        size = int(share * TOTAL) - machine.pool().used_bytes
        steps.append(machine.create(size, fill_byte=0).id)
        seen.append(level(machine.pool().pressure))
    # At 0.92 it is still above 0.95 - 0.05, at 0.82 below 0.90 - 0.05.
    for blob_id in reversed(steps):
        machine.delete(blob_id)
        seen.append(level(machine.pool().pressure))
    assert seen == ["WARNING", "CRITICAL", "EMERGENCY", "EMERGENCY", "WARNING", "LOW"]
    watcher.join(10)
    call.cancel()
    assert told == ["WARNING", "CRITICAL", "EMERGENCY", "WARNING", "LOW"]
    events = [
        machine.events.until(
            lambda event: (
                (event.kind, event.resource_id) == ("memory.pressure_changed", "sim-0")
                and event.event_time.seconds + event.event_time.nanos / 1e9 > begin_s
            )
        )
        for _ in told
    ]
    assert [event.message.split()[-1] for event in events] == told


def test_a_device_that_gets_full_unloads_what_is_idle_by_itself(machine: Machine) -> None:
    machine.load("sim-1", pinned=False)
    machine.budget(Budget(idle_after=Duration(seconds=1)), "sim-1")
    used = machine.models()["emoji-sd@sim-1"].last_use_time
    machine.until(lambda: time.time() - used.seconds - used.nanos / 1e9 > 1.1)
    begin_ns, size = time.time_ns(), int(0.93 * TOTAL) - machine.pool("sim-1").used_bytes
    blob = machine.create(size, device_id="sim-1")

    def about_sim_1(kind: str, end: str = "") -> Any:
        return machine.told(
            lambda event: (
                event.kind == kind
                and event.resource_id.endswith("sim-1")
                and event.event_time.ToNanoseconds() > begin_ns
                and event.message.endswith(end)
            )
        )

    risen = about_sim_1("memory.pressure_changed", "CRITICAL")
    unloaded, reclaimed = about_sim_1("loaded_model.unloaded"), about_sim_1("memory.reclaimed")
    assert (unloaded.cause_sequence, reclaimed.cause_sequence) == (risen.sequence, risen.sequence)
    assert "emoji-sd@sim-1" not in machine.models()
    machine.delete(blob.id)


def test_what_ends_by_itself_is_told_with_its_cause(machine: Machine) -> None:
    begin_ns = time.time_ns()
    expires = machine.reserve(MIB, time_to_live=Duration(seconds=1))
    gives_way = machine.reserve(256 * MIB)
    device_blob = machine.create(MIB, device_id="sim-0")
    disk_blob = machine.upload(b"x", keep_for=Duration(nanos=1))

    def about(kind: str, name: str) -> Any:
        return machine.told(
            lambda event: (
                (event.kind, event.resource_id) == (kind, name) and event.event_time.ToNanoseconds() > begin_ns
            )
        )

    impact = machine.budget(Budget(limit_bytes=128 * MIB)).impact
    assert list(impact.preempted_reservation_ids) == [gives_way.id]
    budget = about("memory.budget_changed", "sim-0")
    assert budget.memory_pool.budget.limit_bytes == 128 * MIB
    assert about("reservation.preempted", gives_way.id).cause_sequence == budget.sequence
    machine.reclaim("disk")
    assert about("blob.expired", disk_blob.id).message
    machine.until(lambda: expires.id not in machine.reservations())
    about("reservation.expired", expires.id)
    machine.reset()
    assert about("blob.lost", device_blob.id).blob.state == blob_pb2.BLOB_STATE_LOST


def level(number: memory_pool_pb2.MemoryPressure.ValueType) -> str:
    return memory_pool_pb2.MemoryPressure.Name(number).removeprefix("MEMORY_PRESSURE_")


# Reservations


def test_a_reservation_is_held_renewed_and_given_back(machine: Machine) -> None:
    one = machine.reserve(64 * MIB, purpose="warm up", time_to_live=Duration(seconds=30))
    assert (one.memory_pool_id, one.size_bytes, one.purpose) == ("sim-0", 64 * MIB, "warm up")
    assert one.id in machine.reservations(memory_pool_ids=["sim-0"])
    assert one.id not in machine.reservations(memory_pool_ids=["sim-1"])
    assert machine.reservation(one.id) == one
    larger = machine.renew(one.id, size_bytes=96 * MIB, time_to_live=Duration(seconds=3600), etag=one.etag)
    assert larger.size_bytes == 96 * MIB == machine.pool().reserved_bytes
    assert machine.reservation(one.id) == larger
    assert larger.expire_time.seconds > one.expire_time.seconds + 3000
    assert refused(lambda: machine.renew(one.id, etag=one.etag)).reason == "ETAG_MISMATCH"
    too_large = refused(lambda: machine.renew(one.id, size_bytes=TOTAL * 2))
    assert too_large.reason == "DEVICE_OUT_OF_MEMORY"
    assert machine.reservations()[one.id].size_bytes == 96 * MIB
    assert machine.release(one.id) == 96 * MIB
    assert machine.pool().reserved_bytes == 0
    for again in (lambda: machine.release(one.id), lambda: machine.renew(one.id), lambda: machine.reservation(one.id)):
        assert refused(again).reason == "RESERVATION_NOT_FOUND"


def test_a_reservation_ends_by_itself(machine: Machine) -> None:
    one = machine.reserve(32 * MIB, time_to_live=Duration(seconds=1))
    ended = machine.until(lambda: machine.reservations("EXPIRED").get(one.id))
    assert ended.HasField("end_time")
    assert machine.reservation(one.id) == ended
    assert machine.pool().reserved_bytes == 0
    assert refused(lambda: machine.renew(one.id)).reason == "RESERVATION_EXPIRED"
    assert refused(lambda: machine.create(MIB, fill_byte=0, reservation_id=one.id)).reason == "RESERVATION_EXPIRED"
    assert machine.release(one.id) == 0


def test_jobs_and_blobs_use_reservations_up(machine: Machine) -> None:
    machine.unload("sim-0")
    weights = machine.reserve(100 * MIB)
    job_id = machine.submit(reservation_id=weights.id)
    assert kind(asking.watch(machine.server, job_id)[-1]) == "succeeded"
    assert machine.reservations("COMMITTED")[weights.id].consumer_id == job_id
    assert refused(lambda: machine.release(weights.id)).reason == "ILLEGAL_STATE"
    tensors = machine.reserve(64 * MIB)
    job_id = machine.submit(reservation_id=tensors.id, steps=30)
    asking.wait_for_step(machine.server, job_id)
    pool = machine.pool()
    # What it has not allocated yet stays its own.
    assert pool.reserved_bytes + owned(pool, "JOB")["JOB", job_id] == 64 * MIB
    assert kind(asking.watch(machine.server, job_id)[-1]) == "succeeded"
    assert machine.reservations("COMMITTED")[tensors.id].consumer_id == job_id
    assert machine.pool().reserved_bytes == 0
    bytes_ = machine.reserve(machine.pool().available_bytes)
    assert refused(lambda: machine.create(MIB, fill_byte=0)).reason == "DEVICE_OUT_OF_MEMORY"
    blob = machine.create(64 * MIB, fill_byte=0, reservation_id=bytes_.id)
    assert machine.reservations("COMMITTED")[bytes_.id].consumer_id == blob.id
    assert machine.pool().reserved_bytes == 0
    unknown = refused(lambda: machine.create(MIB, reservation_id="r-0"))
    assert unknown.reason == "RESERVATION_NOT_FOUND"
    elsewhere = machine.reserve(MIB, "sim-1")
    assert refused(lambda: machine.create(MIB, reservation_id=elsewhere.id)).fields == ["reservation_id"]


def test_a_job_runs_where_its_memory_is_kept(machine: Machine) -> None:
    kept = machine.reserve(MIB, "sim-1")
    ended = machine.job(device="", reservation_id=kept.id)
    assert ended.event.succeeded.receipt.device_id == "sim-1"
    kept = machine.reserve(MIB, "sim-1")
    refusal = refused(lambda: machine.submit(device="sim:0", reservation_id=kept.id))
    assert refusal.fields == ["options.reservation_id"]
    assert "pool sim-1" in refusal.bad_request.field_violations[0].description
    disk = machine.reserve(MIB, "disk")
    assert refused(lambda: machine.submit(device="", reservation_id=disk.id)).fields == ["options.reservation_id"]


def test_two_clients_that_race_are_never_promised_more_than_there_is(machine: Machine) -> None:
    room = machine.pool().available_bytes
    size = room // 7
    refusals: list[str] = []

    def greedy() -> int:
        return sum(one_more() for _ in range(10))

    def one_more() -> bool:
        try:
            machine.reserve(size)
        except grpc.RpcError as error:
            refusals.append(Refusal(error).reason)
            return False
        return True

    assert sum(asking.together(greedy, greedy)) == 7
    assert refusals == ["DEVICE_OUT_OF_MEMORY"] * 13
    assert sum(one.size_bytes for one in machine.reservations().values()) == 7 * size
    refusal = refused(lambda: machine.reserve(size))
    assert (int(refusal.facts["needed_bytes"]), int(refusal.facts["available_bytes"])) == (size, room - 7 * size)


def test_who_waits_gets_room_when_it_comes_or_hears_that_it_did_not(machine: Machine) -> None:
    all_of_it = machine.reserve(machine.pool().available_bytes)
    waits = pb.CreateReservationRequest(
        memory_pool_id="sim-0", size_bytes=8 * MIB, wait_timeout=Duration(seconds=30), request_id="wait-1"
    )
    waiting = machine.memory.CreateReservation.future(waits, timeout=CALL_S)
    short = refused(lambda: machine.reserve(8 * MIB, wait_timeout=Duration(nanos=300_000_000)))
    assert short.reason == "DEVICE_OUT_OF_MEMORY"
    machine.release(all_of_it.id)
    granted = waiting.result().reservation
    assert machine.memory.CreateReservation(waits, timeout=CALL_S).reservation == granted
    hopeless = refused(lambda: machine.reserve(2 * TOTAL, wait_timeout=Duration(seconds=600)))
    assert hopeless.reason == "DEVICE_OUT_OF_MEMORY"


def test_a_device_that_is_pulled_out_takes_its_promises_and_blobs_with_it(machine: Machine) -> None:
    one = machine.reserve(64 * MIB, "sim-1")
    blob = machine.create(8 * MIB, device_id="sim-1", fill_byte=3)
    rest = machine.reserve(machine.pool("sim-1").available_bytes, "sim-1")
    waits = pb.CreateReservationRequest(memory_pool_id="sim-1", size_bytes=MIB, wait_timeout=Duration(seconds=60))
    waiting = machine.memory.CreateReservation.future(waits, timeout=CALL_S)
    # Renewing needs room too: by the time of its answer the one that waits stands in line.
    assert refused(lambda: machine.renew(rest.id, size_bytes=rest.size_bytes + 1)).reason == "DEVICE_OUT_OF_MEMORY"
    machine.script.write(sim(0, MEMORY), sim(1, f"{MEMORY}\npresent = false"))
    machine.events.until(lambda event: event.kind == "device.lost")
    assert refused(waiting.result).reason == "DEVICE_LOST"
    lost = machine.reservations("LOST")
    assert {one.id, rest.id} <= set(lost)
    assert refused(lambda: machine.reserve(MIB, "sim-1")).reason == "DEVICE_LOST"
    assert refused(lambda: machine.create(MIB, device_id="sim-1")).reason == "DEVICE_LOST"
    assert machine.blob(blob.id).state == blob_pb2.BLOB_STATE_LOST
    assert refused(lambda: machine.read(blob.id)).reason in ("ILLEGAL_STATE", "DEVICE_LOST")
    gone = machine.pool("sim-1")
    assert not gone.HasField("live_bytes")
    assert not gone.HasField("available_bytes")
    assert gone.pressure == memory_pool_pb2.MEMORY_PRESSURE_UNSPECIFIED
    assert refused(lambda: machine.reclaim("sim-1")).reason == "DEVICE_LOST"
    assert machine.delete(blob.id).deferred is False
    machine.script.write(*HEALTHY)
    machine.events.until(lambda event: event.kind == "device.returned")
    machine.events.until_state("sim-1", "AVAILABLE")
    assert machine.pool("sim-1").reserved_bytes == 0
    machine.release(machine.reserve(400 * MIB, "sim-1").id)
    assert kind(machine.job("sim-1")) == "succeeded"


def test_two_jobs_that_load_the_same_model_need_it_once(machine: Machine) -> None:
    weights = machine.models()[MODEL].device_bytes
    machine.unload("sim-0")
    machine.budget(Budget(limit_bytes=RUNTIME + weights + weights // 2))
    endings = asking.together(machine.job, lambda: machine.job(seed=2))
    assert [kind(last) for last in endings] == ["succeeded", "succeeded"]


def test_room_is_made_for_the_more_important(machine: Machine) -> None:
    free = machine.pool().available_bytes
    low = machine.reserve(free - 64 * MIB, priority=job_event_pb2.PRIORITY_LOW)
    high = machine.reserve(32 * MIB, priority=job_event_pb2.PRIORITY_HIGH)
    assert refused(lambda: machine.reserve(64 * MIB)).reason == "DEVICE_OUT_OF_MEMORY"
    critical = machine.reserve(64 * MIB, priority=job_event_pb2.PRIORITY_CRITICAL)
    assert set(machine.reservations()) == {high.id, critical.id}
    assert low.id in machine.reservations("PREEMPTED")
    machine.release(critical.id)
    machine.budget(Budget(idle_after=Duration(seconds=1)))
    everything = TOTAL - RUNTIME - high.size_bytes - MIB
    assert refused(lambda: machine.reserve(everything)).reason == "DEVICE_OUT_OF_MEMORY"

    def granted() -> Any:
        request = pb.CreateReservationRequest(memory_pool_id="sim-0", size_bytes=everything, allow_eviction=True)
        try:
            return machine.memory.CreateReservation(request, timeout=CALL_S)
        except grpc.RpcError:
            return None

    assert list(machine.until(granted).evicted_loaded_model_ids) == [MODEL]
    assert MODEL not in machine.models()


def test_a_transfer_pays_with_a_reservation(machine: Machine) -> None:
    blob = machine.create(4 * MIB, HOST, fill_byte=1)
    one = machine.reserve(machine.pool().available_bytes)
    work = moved(blob.id, tier=DEVICE, device_id="sim-0")
    full = list(machine.transfer(blob.id, tier=DEVICE, device_id="sim-0"))[-1]
    assert reason_of(full) == "DEVICE_OUT_OF_MEMORY"
    options = job_event_pb2.JobOptions(reservation_id=one.id)
    paid = list(machine.memory.TransferBlob(pb.TransferBlobRequest(blob_transfer=work, options=options)))[-1]
    assert kind(paid) == "succeeded"
    used = machine.reservations("COMMITTED")[one.id]
    assert used.consumer_id == paid.blob_transfer_report.blob.id


def test_a_job_with_a_reservation_that_is_none_is_told_so(machine: Machine) -> None:
    spent = machine.reserve(MIB)
    machine.release(spent.id)
    try:
        reason = reason_of(machine.job(reservation_id=spent.id))
    except grpc.RpcError as error:
        reason = Refusal(error).reason
    assert reason == "RESERVATION_NOT_FOUND"
    elsewhere = machine.reserve(MIB, "sim-1")
    assert refused(lambda: machine.submit("sim-0", reservation_id=elsewhere.id)).reason == "INVALID_FIELD"
    assert machine.reservations()[elsewhere.id].size_bytes == MIB


def test_reservations_come_in_pages(machine: Machine) -> None:
    made = [machine.reserve(MIB).id for _ in range(5)]
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListReservationsRequest(page_size=2, page_token=token)
        page = machine.memory.ListReservations(request, timeout=CALL_S)
        found += [one.id for one in page.reservations]
        token = page.next_page_token
        if not token:
            break
    assert found == made[::-1]


# Clean-ups


def test_a_clean_up_goes_as_far_as_its_level_and_says_what_it_did(machine: Machine) -> None:
    machine.load("sim-1", pinned=True)
    machine.job()
    quick = Budget(idle_after=Duration(seconds=1))
    machine.budget(quick)
    machine.budget(quick, "sim-1")
    levels = memory_pool_pb2
    caches = machine.reclaim(max_level=levels.MEMORY_RECLAIM_LEVEL_CACHES)
    assert {step.level for step in caches.steps} <= {levels.MEMORY_RECLAIM_LEVEL_CACHES}
    assert MODEL in machine.models()

    def planned(name: str) -> list[str]:
        return [step.owner.id for step in machine.reclaim(name, validate_only=True).steps if step.action == "unload"]

    machine.until(lambda: planned("sim-0"))
    plan = machine.reclaim(validate_only=True)
    assert [step.owner.id for step in plan.steps if step.action == "unload"] == [MODEL]
    assert not plan.HasField("after")
    kept = machine.reclaim(keep_ids=[MODEL], free_bytes=MIB)
    assert (kept.target_met, MODEL in machine.models()) == (False, True)
    report = machine.reclaim(free_bytes=MIB, request_id="clean-1")
    assert report.target_met
    (unload,) = [step for step in report.steps if step.action == "unload"]
    assert unload.freed_bytes == pytest.approx(plan.steps[-1].freed_bytes, rel=0.02)
    assert report.before.used_bytes - report.after.used_bytes >= MIB
    assert MODEL not in machine.models()
    assert machine.reclaim(free_bytes=MIB, request_id="clean-1") == report
    other = refused(lambda: machine.reclaim(free_bytes=2 * MIB, request_id="clean-1"))
    assert other.reason == "REQUEST_ID_REUSED"
    pinned = machine.reclaim("sim-1", max_level=levels.MEMORY_RECLAIM_LEVEL_COMPACT, free_bytes=TOTAL)
    assert (pinned.target_met, "emoji-sd@sim-1" in machine.models()) == (False, True)
    assert pinned.steps[-1].action == "compact"
    assert not [step for step in pinned.steps if step.HasField("failure")]
    machine.unload("sim-1")


def test_an_emergency_interrupts_the_running_job_which_goes_on_afterwards(machine: Machine) -> None:
    job_id = machine.submit(steps=30)
    asking.wait_for_step(machine.server, job_id)
    kept = machine.reclaim(max_level=EMERGENCY, keep_ids=[job_id])
    assert "interrupt" not in [step.action for step in kept.steps]
    report = machine.reclaim(max_level=EMERGENCY)
    assert [step.owner.id for step in report.steps if step.action == "interrupt"] == [job_id]
    seen = asking.watch(machine.server, job_id)
    assert kinds(seen).count("interrupted") == 1
    (interrupted,) = [update.event.interrupted for update in seen if kind(update) == "interrupted"]
    assert interrupted.reason == error_pb2.ERROR_REASON_PREEMPTED
    assert kind(seen[-1]) == "succeeded"


def test_the_host_is_cleaned_too(machine: Machine) -> None:
    report = machine.reclaim("host", max_level=memory_pool_pb2.MEMORY_RECLAIM_LEVEL_COMPACT)
    assert not [step for step in report.steps if step.HasField("failure")]
    machine.upload(b"x" * MIB, keep_for=Duration(nanos=1))
    disk = machine.reclaim("disk", max_level=memory_pool_pb2.MEMORY_RECLAIM_LEVEL_COMPACT)
    assert [(step.action, step.HasField("failure")) for step in disk.steps] == [("collect", False)]
    assert disk.target_met
    assert disk.after.held_bytes <= disk.before.held_bytes - MIB // 2
    assert machine.reclaim("disk", free_bytes=2**62).target_met is False


# Histories


def test_the_leaking_device_is_named_and_the_steady_one_is_not(machine: Machine) -> None:
    machine.rewrite(sim(0, MEMORY, LEAK), sim(1, MEMORY))
    machine.job("sim-1")
    history = machine.history()
    assert list(history.leak_suspects) == []
    for _ in range(150):
        asking.together(machine.job, lambda: machine.job("sim-1"))
        history = machine.history()
        if history.leak_suspects:
            break
    (suspect,) = history.leak_suspects
    assert suspect.owner.kind == memory_pool_pb2.MEMORY_OWNER_KIND_UNATTRIBUTED
    assert suspect.window_count >= 4
    assert suspect.growth_bytes_per_second > MIB
    assert history.recommendations
    assert list(machine.history("sim-1").leak_suspects) == []
    assert len(history.samples) >= 4
    assert [sample.live_bytes for sample in history.samples[-4:]] == sorted(
        sample.live_bytes for sample in history.samples[-4:]
    )
    leaked = owned(machine.pool())["UNATTRIBUTED", ""]
    assert leaked >= 8 * MIB
    machine.rewrite(*HEALTHY)
    machine.reset()
    assert owned(machine.pool(), "UNATTRIBUTED") == {}
    assert list(machine.history().leak_suspects) == []


def test_history_has_samples_and_refuses_times_that_cannot_be(machine: Machine) -> None:
    history = machine.history(step=Duration(seconds=2))
    assert history.step.seconds == 2
    assert history.samples[-1].used_bytes > 0
    begin, end = Timestamp(seconds=2000), Timestamp(seconds=1000)
    assert refused(lambda: machine.history(start_time=begin, end_time=end)).fields == ["end_time"]
    for step in (Duration(nanos=1), Duration(seconds=-5)):
        assert refused(lambda step=step: machine.history(step=step)).fields == ["step"]
    assert refused(lambda: machine.history("nothing")).reason == "MEMORY_POOL_NOT_FOUND"


# Blobs


def test_bytes_go_through_every_tier_unchanged(machine: Machine) -> None:
    data = os.urandom(3 * MIB + 17)
    blob = machine.upload(data)
    here = blob
    for tier, device_id in ((DEVICE, "sim-0"), (DEVICE, "sim-1"), (HOST, ""), (DISK, "")):
        report = machine.transferred(here.id, tier=tier, device_id=device_id)
        assert (report.verified, report.transferred_bytes, report.source_deleted) == (True, len(data), False)
        here = report.blob
        assert (here.tier, here.device_id, here.sha256) == (tier, device_id, hashlib.sha256(data).hexdigest())
        assert here.state == blob_pb2.BLOB_STATE_READY
        assert machine.read(here.id, offset_bytes=MIB - 3, length_bytes=9) == data[MIB - 3 : MIB + 6]
    assert machine.read(here.id) == data
    part = machine.transferred(blob.id, tier=DEVICE, device_id="sim-0", offset_bytes=5, length_bytes=100).blob
    assert machine.read(part.id) == data[5:105]
    away = machine.transferred(blob.id, tier=HOST, move=True)
    assert away.source_deleted
    assert refused(lambda: machine.blob(blob.id)).reason == "BLOB_NOT_FOUND"
    assert machine.read(away.blob.id) == data


def test_a_device_blob_is_written_chunk_by_chunk(machine: Machine) -> None:
    before = machine.pool().used_bytes
    blob = machine.create(2 * MIB, alignment_bytes=4096)
    assert blob.state == blob_pb2.BLOB_STATE_WRITING
    data = os.urandom(2 * MIB)
    for begin in (0, MIB):
        chunk = blob_pb2.BlobChunk(offset_bytes=begin, data=data[begin : begin + MIB])
        answer = machine.memory.WriteBlobChunk(pb.WriteBlobChunkRequest(blob_id=blob.id, chunk=chunk), timeout=CALL_S)
    assert answer.blob.state == blob_pb2.BLOB_STATE_READY
    assert answer.blob.sha256 == hashlib.sha256(data).hexdigest()
    assert machine.read(blob.id) == data
    # With what an aligned start costs.
    assert machine.pool().used_bytes == before + 2 * MIB + 4095 == before + owned(machine.pool())["BLOB", blob.id]
    machine.delete(blob.id)
    assert machine.pool().used_bytes == before
    filled = machine.create(MIB, fill_byte=0xAB, request_id="fill-1")
    assert machine.read(filled.id) == b"\xab" * MIB
    assert machine.create(MIB, fill_byte=0xAB, request_id="fill-1").id == filled.id
    assert machine.pool().used_bytes == before + MIB


def test_a_cancelled_transfer_leaves_the_source_and_nothing_new(machine: Machine) -> None:
    blob = machine.create(192 * MIB, tier=DISK, fill_byte=9)
    before = {one.id for one in machine.blobs().blobs}
    for tier, device_id in ((DEVICE, "sim-0"), (HOST, "")):
        call = machine.transfer(blob.id, tier=tier, device_id=device_id)
        job_id = next(call).event.job_id
        asking.until(call, lambda update: kind(update) == "progress")
        asking.cancel(machine.server, job_id)
        assert kind(asking.watch(machine.server, job_id)[-1]) == "cancelled"
        assert {one.id for one in machine.blobs().blobs} == before
    assert owned(machine.pool(), "BLOB") == {}
    assert machine.blob(blob.id).state == blob_pb2.BLOB_STATE_READY
    assert machine.blob(blob.id).reader_count == 0
    call = machine.transfer(blob.id, tier=HOST, move=True)
    job_id = next(call).event.job_id
    call.cancel()
    asking.watch(machine.server, job_id)
    assert asking.job_of(machine.server, job_id).state == job_event_pb2.JOB_STATE_CANCELLED
    assert {one.id for one in machine.blobs().blobs} == before
    machine.delete(blob.id)


def test_a_transfer_is_a_job_like_others(machine: Machine) -> None:
    data = os.urandom(MIB)
    blob = machine.upload(data, DEVICE, device_id="sim-0")
    spec = job_pb2.JobSpec(blob_transfer=moved(blob.id, tier=DISK))
    request = processing_service_pb2.SubmitJobRequest(spec=spec)
    job_id = machine.server.processing.SubmitJob(request, timeout=CALL_S).job.id
    last = asking.watch(machine.server, job_id)[-1]
    assert kind(last) == "succeeded"
    assert machine.read(last.blob_transfer_report.blob.id) == data
    existing = machine.create(2 * MIB)
    place = blob_pb2.ExistingBlobDestination(blob_id=existing.id)
    machine.transferred(blob.id, existing_blob=place)
    assert machine.blob(existing.id).written_bytes == MIB
    place.offset_bytes = MIB
    assert machine.transferred(blob.id, existing_blob=place).blob.state == blob_pb2.BLOB_STATE_READY
    assert machine.read(existing.id) == data * 2


def test_a_device_without_page_locked_memory_says_so(machine: Machine) -> None:
    pinned = blob_pb2.BLOB_TIER_PINNED_HOST
    refusal = refused(lambda: machine.create(MIB, pinned, device_id="sim-0"))
    assert refusal.reason == "NOT_SUPPORTED_ON_DEVICE"
    assert not machine.blobs(tiers=[pinned]).blobs
    assert refused(lambda: machine.create(MIB, pinned)).fields == ["blob_spec.device_id"]
    assert refused(lambda: machine.create(MIB, device_id="sim-9")).reason == "DEVICE_NOT_FOUND"
    assert refused(lambda: machine.create(MIB, DISK, device_id="sim-0")).fields == ["blob_spec.device_id"]


def test_a_reset_loses_the_blobs_of_its_device(machine: Machine) -> None:
    blob = machine.create(4 * MIB, fill_byte=1)
    other = machine.create(4 * MIB, fill_byte=1, device_id="sim-1")
    machine.reset()
    assert machine.blob(blob.id).state == blob_pb2.BLOB_STATE_LOST
    assert machine.blob(other.id).state == blob_pb2.BLOB_STATE_READY
    assert refused(lambda: machine.read(blob.id)).reason in ("ILLEGAL_STATE", "DEVICE_LOST")
    last = refused(lambda: machine.transfer(blob.id, tier=DISK))
    assert last.reason in ("ILLEGAL_STATE", "DEVICE_LOST")
    assert owned(machine.pool(), "BLOB") == {}
    machine.delete(blob.id)
    assert refused(lambda: machine.blob(blob.id)).reason == "BLOB_NOT_FOUND"
    assert kind(machine.job()) == "succeeded"


def test_a_delete_waits_for_an_open_read_on_a_device(machine: Machine) -> None:
    blob = machine.create(64 * MIB, fill_byte=5)
    call = machine.memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob.id), timeout=CALL_S)
    next(call)
    assert refused(lambda: machine.delete(blob.id, only_if_unused=True)).reason == "BLOB_IN_USE"
    assert machine.delete(blob.id).deferred
    assert machine.delete(blob.id).deferred
    assert machine.blob(blob.id).state == blob_pb2.BLOB_STATE_DELETING
    assert refused(lambda: machine.read(blob.id)).reason == "ILLEGAL_STATE"
    assert owned(machine.pool(), "BLOB") == {("BLOB", blob.id): 64 * MIB}
    call.cancel()

    def gone() -> bool:
        try:
            machine.blob(blob.id)
        except grpc.RpcError as error:
            return Refusal(error).reason == "BLOB_NOT_FOUND"
        return False

    machine.until(gone)
    assert owned(machine.pool(), "BLOB") == {}


def test_a_jobs_picture_is_needed_until_the_job_is_deleted(machine: Machine) -> None:
    job_id = machine.submit(seed=4711)
    last = asking.watch(machine.server, job_id)[-1]
    (image,) = last.generation_result.images
    deleted = machine.delete(image.file.blob_id)
    assert (deleted.deferred, list(deleted.holder_ids)) == (True, [job_id])
    assert machine.blob(image.file.blob_id).state == blob_pb2.BLOB_STATE_DELETING
    assert asking.delete(machine.server, job_id) > 0
    assert refused(lambda: machine.blob(image.file.blob_id)).reason == "BLOB_NOT_FOUND"


def test_blobs_are_found_by_what_they_are(machine: Machine) -> None:
    made = [machine.create(n + 1, HOST, fill_byte=0, media_type="x/y").id for n in range(5)]
    on_device = machine.create(7, fill_byte=0, media_type="x/z").id
    first = machine.blobs(2, media_type="x/*")
    assert first.total_bytes == 1 + 2 + 3 + 4 + 5 + 7
    found = list(first.blobs)
    while first.next_page_token:
        first = machine.blobs(2, first.next_page_token, media_type="x/*")
        found += first.blobs
    assert [one.id for one in found] == [on_device, *reversed(made)]
    assert [one.id for one in machine.blobs(device_id="sim-0").blobs] == [on_device]
    assert refused(lambda: machine.blobs(page_size=-1)).reason == "INVALID_FIELD"
    assert refused(lambda: machine.blobs(page_token="nonsense")).reason == "INVALID_FIELD"
    assert refused(lambda: machine.blobs(tiers=[99])).fields == ["filter.tiers"]


def test_who_leaves_while_a_blob_is_made_leaves_nothing_behind(machine: Machine) -> None:
    before = machine.pool().used_bytes
    known = {one.id for one in machine.blobs().blobs}
    spec = blob_pb2.BlobSpec(tier=DEVICE, device_id="sim-0", size_bytes=256 * MIB, fill_byte=1)
    for timeout in (0.005, 0.02, 0.05):
        call = machine.memory.CreateBlob.future(pb.CreateBlobRequest(blob_spec=spec), timeout=timeout)
        if call.code() == grpc.StatusCode.OK:
            machine.delete(call.result().blob.id)
            assert timeout > 0.005, "nobody fills so much memory in this time"
        machine.until(lambda: machine.pool().used_bytes == before)
    assert {one.id for one in machine.blobs().blobs} == known
    assert machine.pool().reserved_bytes == 0


def test_a_blob_with_other_bytes_than_announced_is_gone_and_its_memory_free(machine: Machine) -> None:
    before = machine.pool().used_bytes
    wrong = refused(lambda: machine.upload(b"x" * MIB, DEVICE, device_id="sim-0", sha256="0" * 64))
    assert wrong.reason == "BLOB_CORRUPT"
    assert machine.pool().used_bytes == before
    assert not machine.blobs(tiers=[DEVICE]).blobs


# Bad input


def test_what_no_blob_can_be_is_refused(machine: Machine) -> None:
    for wrong, field in (
        ({"fill_byte": 256}, "fill_byte"),
        ({"fill_byte": -1}, "fill_byte"),
        ({"alignment_bytes": 3}, "alignment_bytes"),
        ({"alignment_bytes": 1 << 40}, "alignment_bytes"),
        ({"alignment_bytes": -1}, "alignment_bytes"),
        ({"sha256": "zz"}, "sha256"),
        ({"keep_for": Duration(seconds=-1)}, "keep_for"),
    ):
        told = refused(lambda wrong=wrong: machine.create(MIB, **wrong))
        assert told.fields == [f"blob_spec.{field}"], wrong
    assert refused(lambda: machine.create(MIB, blob_pb2.BLOB_TIER_MAPPED, device_id="")).reason == "INVALID_FIELD"
    assert refused(lambda: machine.create(MIB, session_id="s")).reason == "SESSION_NOT_FOUND"
    assert owned(machine.pool(), "BLOB") == {}


def test_spans_and_times_beyond_all_bounds_are_refused_or_harmless(machine: Machine) -> None:
    for span in (Duration(seconds=2**62), Duration(seconds=-(2**62))):
        for call in (
            lambda span=span: machine.budget(Budget(idle_after=span)),
            lambda span=span: machine.reserve(1, time_to_live=span),
            lambda span=span: machine.reserve(1, wait_timeout=span),
            lambda span=span: machine.reclaim(max_duration=span),
            lambda span=span: machine.create(1, keep_for=span),
        ):
            assert refused(call).reason == "INVALID_FIELD"
    for seconds in (2**62, -(2**62), 0):
        stamp = Timestamp(seconds=seconds)
        try:
            machine.history(end_time=stamp)
            machine.history(start_time=stamp)
        except grpc.RpcError as error:
            refusals = [Refusal(error).reason]
        else:
            refusals = []
        assert set(refusals) <= {"INVALID_FIELD"}
    assert refused(lambda: machine.history(step=Duration(seconds=-(2**62)))).reason == "INVALID_FIELD"


@pytest.mark.parametrize("name", ["", "nothing", "../../etc/passwd", "b-\x00", "x" * 255, "é" * 70])
def test_unknown_ids_are_not_found(machine: Machine, name: str) -> None:
    for call in (
        lambda: machine.blob(name),
        lambda: machine.read(name),
        lambda: machine.delete(name),
        lambda: machine.transfer(name, tier=HOST),
    ):
        assert refused(call).reason == "BLOB_NOT_FOUND"
    for call in (lambda: machine.release(name), lambda: machine.renew(name)):
        assert refused(call).reason == "RESERVATION_NOT_FOUND"
    for call in (lambda: machine.reserve(1, name), lambda: machine.reclaim(name), lambda: machine.budget(name=name)):
        assert refused(call).reason == "MEMORY_POOL_NOT_FOUND"


@pytest.mark.parametrize("size", LIMITS)
def test_sizes_that_cannot_be_are_refused(machine: Machine, size: int) -> None:
    blob = machine.create(10, HOST, fill_byte=0)
    for pool, reason in (("sim-0", "DEVICE"), ("host", "HOST"), ("disk", "STORAGE_FULL")):
        full = reason if "_" in reason else f"{reason}_OUT_OF_MEMORY"
        assert refused(lambda pool=pool: machine.reserve(size, pool)).reason == ("INVALID_FIELD" if size < 0 else full)
    for tier, reason in ((DEVICE, "DEVICE_OUT_OF_MEMORY"), (HOST, "HOST_OUT_OF_MEMORY"), (DISK, "STORAGE_FULL")):
        expected = "INVALID_FIELD" if size < 0 else reason
        assert refused(lambda tier=tier: machine.create(size, tier)).reason == expected
    assert refused(lambda: machine.read(blob.id, offset_bytes=size)).reason == "INVALID_FIELD"
    assert refused(lambda: machine.transfer(blob.id, tier=HOST, offset_bytes=size)).reason == "INVALID_FIELD"
    assert refused(lambda: machine.transfer(blob.id, tier=HOST, length_bytes=size)).reason == "INVALID_FIELD"
    assert refused(lambda: machine.read(blob.id, chunk_bytes=size)).reason == "INVALID_FIELD"
    if size < 0:
        assert refused(lambda: machine.budget(Budget(limit_bytes=size))).reason == "INVALID_FIELD"
        assert refused(lambda: machine.reclaim(free_bytes=size)).reason == "INVALID_FIELD"
    else:
        assert machine.budget(Budget(limit_bytes=size)).impact.excess_bytes == 0
        assert machine.reclaim(free_bytes=size, validate_only=True).target_met is False


@pytest.mark.parametrize("ratio", [math.nan, math.inf, -math.inf, -0.1, 1.1])
def test_ratios_that_are_none_are_refused(machine: Machine, ratio: float) -> None:
    for wrong, field in (
        (Budget(warning_ratio=ratio), "warning_ratio"),
        (Budget(critical_ratio=ratio), "critical_ratio"),
        (Budget(emergency_ratio=ratio), "emergency_ratio"),
    ):
        assert refused(lambda wrong=wrong: machine.budget(wrong)).fields == [f"memory_budget.{field}"]
    assert refused(lambda: machine.reclaim(used_ratio=ratio)).fields == ["used_ratio"]


def test_paths_lead_nowhere_but_into_the_roots(machine: Machine, tmp_path: Path) -> None:
    inside, outside = machine.root / "inside", tmp_path / "outside"
    inside.write_bytes(b"inside")
    outside.write_bytes(b"outside")
    link = machine.root / "link"
    link.symlink_to(outside)
    folder = machine.root / "folder"
    folder.mkdir()
    for path in (str(outside), str(link), f"{machine.root}/../{outside.name}", f"{machine.root}/../../etc/passwd"):
        refusal = refused(lambda path=path: machine.register(path))
        assert refusal.reason == "PATH_OUTSIDE_ROOTS", path
        assert "outside" not in refusal.facts.get("content", "")
    for path in (f"{inside}\x00.png", "relative", "", str(machine.root / ("n" * 300))):
        assert refused(lambda path=path: machine.register(path)).reason in ("INVALID_FIELD", "ILLEGAL_STATE"), path
    assert refused(lambda: machine.register(str(folder))).reason in ("INVALID_FIELD", "ILLEGAL_STATE")
    assert refused(lambda: machine.register(str(machine.root / "missing"))).reason == "PATH_NOT_FOUND"
    blob = machine.register(f"{machine.root}/folder/../inside")
    assert machine.read(blob.id) == b"inside"
    for wrong in ({"size_bytes": 7}, {"size_bytes": 2**63 - 1}):
        assert refused(lambda wrong=wrong: machine.register(str(inside), **wrong)).reason == "ILLEGAL_STATE"
    for wrong in ({"size_bytes": -1}, {"generation": -1}, {"blob_id": "b-mine"}, {"blob_id": "../x"}):
        assert refused(lambda wrong=wrong: machine.register(str(inside), **wrong)).reason == "INVALID_FIELD"


def test_a_registered_file_is_nowhere_in_the_server_a_second_time(machine: Machine) -> None:
    size = 64 * MIB
    path = machine.root / "large"
    path.write_bytes(os.urandom(MIB) * (size // MIB))
    server = psutil.Process(machine.server.process.pid)
    # The first read brings in what every read needs.
    small = machine.upload(b"x" * 4 * MIB)
    machine.read(small.id)
    before = server.memory_info().rss
    blob = machine.register(str(path))
    chunks = machine.memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob.id), timeout=CALL_S)
    digest, most = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk.data)
        most = max(most, server.memory_info().rss)
    assert digest.hexdigest() == blob.sha256
    assert most - before < size // 4
    machine.delete(blob.id)
    assert path.stat().st_size == size


def test_a_mapped_file_that_shrinks_or_changes_is_noticed(machine: Machine) -> None:
    path = machine.root / "shrinks"
    path.write_bytes(b"a" * 8 * MIB)
    blob = machine.register(str(path), blob_id="shrinks")
    call = machine.memory.ReadBlob(pb.ReadBlobRequest(blob_id=blob.id), timeout=CALL_S)
    next(call)
    os.truncate(path, 100)
    told = refused(lambda: call)
    assert told.reason in ("ILLEGAL_STATE", "BLOB_CORRUPT")
    assert machine.blob(blob.id).state == blob_pb2.BLOB_STATE_LOST
    assert refused(lambda: machine.read(blob.id)).reason == "ILLEGAL_STATE"
    changes = machine.root / "changes"
    changes.write_bytes(b"b" * MIB)
    other = machine.register(str(changes), blob_id="changes")
    changes.write_bytes(b"c" * MIB)
    last = list_or_refusal(machine, other.id)
    assert last == "BLOB_CORRUPT"
    assert kind(machine.job()) == "succeeded"


def list_or_refusal(machine: Machine, blob_id: str) -> str:
    """The reason for which a blob cannot be copied, told by the call or by its job."""
    try:
        return reason_of(list(machine.transfer(blob_id, tier=HOST))[-1])
    except grpc.RpcError as error:
        return Refusal(error).reason


def test_nothing_was_lost_on_the_way(machine: Machine) -> None:
    """The last: after all of this no claim is left, and the workers are those of the beginning or were reset."""
    pool = machine.pool()
    assert sum(owned(pool).values()) == pool.live_bytes
    assert pool.reserved_bytes == 0
    assert Counter(key[0] for key in owned(pool))["BLOB"] == 0
    assert machine.server.process.poll() is None
    assert "Traceback" not in machine.server.log.read_text()
