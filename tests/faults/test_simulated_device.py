"""Everything that can happen to a device, on simulated ones: a real server, real worker processes, real faults in them."""

from collections.abc import Iterator
from typing import Any

import pytest

from deviceops.common.v1 import error_pb2, job_event_pb2
from deviceops.device.v1 import device_health_pb2, device_service_pb2, device_work_pb2
from deviceops.model.v1 import execution_pb2, model_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, kind, kinds, picture
from tests.server.harness import RunningServer
from tests.server.sim import Events, Script, device, sim, simulated, state

QUICK = {"DEVICEOPS_STALL_TIMEOUT_S": "2", "DEVICEOPS_RECHECK_S": "0.5"}
HEALTH = device_health_pb2
Machine = tuple[RunningServer, Script, Events]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One server for all; starting one takes longer than any of these tests."""
    with simulated(tmp_path_factory.mktemp("sim"), sim(0), environment=QUICK) as machine:
        yield machine


@pytest.fixture
def machine(shared: Machine) -> Machine:
    """The server with one healthy device that has done a job."""
    server, script, events = shared
    if script.write(sim(0)):
        events.until(lambda event: event.kind == "device.script_changed")
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
    return shared


def break_it(machine: Machine, *faults: str) -> None:
    """From now on the device has these faults; answers when its worker knows."""
    _, script, events = machine
    script.write(sim(0, "", *faults))
    events.until(lambda event: event.kind == "device.script_changed")


def check(server: RunningServer, device_id: str = "sim-0", **fields: Any) -> Any:
    request = device_service_pb2.CheckDeviceHealthRequest(device_id=device_id, **fields)
    return server.device.CheckDeviceHealth(request, timeout=CALL_S).report


def failure_of(update: Any) -> error_pb2.Failure:
    assert kind(update) == "failed", update
    return update.event.failed.failure


def test_out_of_memory_ends_one_job_typed_and_the_next_works(machine: Machine) -> None:
    server, _, _ = machine
    break_it(machine, 'kind = "out_of_memory"\nat_step = 2')
    failure = failure_of(tell(server, picture(steps=4), allow_smaller_batch=False, allow_offload=False)[-1])
    assert failure.reason == error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY
    facts = {fact.name: fact.value for fact in failure.facts}
    assert {"needed_bytes", "available_bytes"} <= set(facts)
    assert kind(asking.watch(server, asking.submit(server, picture(steps=4)))[-1]) == "succeeded"
    # The request was at fault, or the memory: not the device.
    assert state(server, "sim-0") == "AVAILABLE"
    status = server.device.GetDeviceStatus(device_service_pb2.GetDeviceStatusRequest(device_id="sim-0")).status
    assert status.error_count == 0


def tell(server: RunningServer, generation: Any, **permits: Any) -> list[asking.Update]:
    """The whole journal of a job that permits this to be given up."""
    options = job_event_pb2.JobOptions(fallback=job_event_pb2.FallbackPolicy(**permits))
    return asking.watch(server, asking.submit(server, generation, options))


def wide_picture() -> Any:
    """One whose latents are longer than the smallest tile."""
    generation = picture()
    generation.width_px = 320
    return generation


def unguided_picture() -> Any:
    """One whose forward has one row."""
    generation = picture(steps=3)
    generation.sampling.guidance_scale = 1.0
    return generation


GIVEN_UP: dict[str, tuple[list[str], str, Any]] = {
    "smaller_batch": (["smaller_batch", "offload"], "at_step = 2", lambda: picture(steps=3, count=2)),
    "vae_tiling": (["tiling", "offload"], 'stage = "decoding"', wide_picture),
    # Without guidance, one picture has nothing smaller.
    "offload": (["offload"], "at_step = 2", unguided_picture),
}


@pytest.mark.parametrize("rung", GIVEN_UP)
def test_out_of_memory_costs_what_the_request_permits_and_fails_what_it_forbids(machine: Machine, rung: str) -> None:
    server, _, _ = machine
    needed, where, asked = GIVEN_UP[rung]
    fields = [f"allow_{one}" for one in needed]
    break_it(machine, f'kind = "out_of_memory"\n{where}\ntimes = 2')
    seen = tell(server, asked(), **dict.fromkeys(fields, False))
    failure = failure_of(seen[-1])
    facts = {fact.name: fact.value for fact in failure.facts}
    assert failure.reason == error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY
    assert facts["would_help"] == ", ".join(f"options.fallback.{field}" for field in fields)
    assert "degraded" not in kinds(seen)
    assert asking.job_of(server, seen[-1].event.job_id).HasField("checkpoint_time")

    seen = tell(server, asked(), max_attempts=1)
    assert kind(seen[-1]) == "succeeded"
    (told,) = [update.event.degraded for update in seen if kind(update) == "degraded"]
    assert (told.kind, told.reason) == (rung, error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY)
    assert list(seen[-1].event.succeeded.receipt.degradations) == [told]
    assert seen[-1].event.succeeded.receipt.attempts == 1
    (there,) = server.model.ListLoadedModels(model_service_pb2.ListLoadedModelsRequest()).loaded_models
    told_way = execution_pb2.OFFLOAD_MODE_COMPONENT if rung == "offload" else execution_pb2.OFFLOAD_MODE_NONE
    assert seen[-1].generation_result.resolved.execution.offload == told_way
    if rung == "offload":
        assert there.execution.offload == told_way
        # The next job has it as a whole again.
        server.model.UnloadModel(model_service_pb2.UnloadModelRequest(loaded_model_id=there.id), timeout=CALL_S)


def test_a_hung_step_is_noticed_and_the_job_runs_again(machine: Machine) -> None:
    server, _, events = machine
    break_it(machine, 'kind = "hung_step"\nat_step = 2')
    seen = asking.watch(server, asking.submit(server, picture(steps=4)))
    assert [name for name in kinds(seen) if name in ("started", "interrupted", "succeeded")] == [
        "started",
        "interrupted",
        "started",
        "succeeded",
    ]
    recovering = events.until_state("sim-0", "RECOVERING")
    interrupted = events.until(lambda event: event.job.state == job_event_pb2.JOB_STATE_INTERRUPTED)
    assert interrupted.cause_sequence == recovering.sequence
    status = server.device.GetDeviceStatus(device_service_pb2.GetDeviceStatusRequest(device_id="sim-0")).status
    assert status.error_count == 1
    assert status.worker_restart_count == 1


def test_a_crash_is_survived_and_counted(machine: Machine) -> None:
    server, _, _ = machine
    break_it(machine, 'kind = "crash"\nat_step = 1')
    seen = asking.watch(server, asking.submit(server, picture(steps=4)))
    assert kinds(seen).count("interrupted") == 1
    assert kind(seen[-1]) == "succeeded"
    assert seen[-1].event.succeeded.receipt.attempts == 2


def test_a_wrong_result_quarantines_the_device_until_a_check_passes(machine: Machine) -> None:
    server, script, events = machine
    break_it(machine, 'kind = "wrong_result"\ntimes = 0')
    report = check(server)
    assert report.verdict == HEALTH.DEVICE_HEALTH_VERDICT_UNHEALTHY
    failed = [one for one in report.checks if one.verdict == HEALTH.DEVICE_HEALTH_VERDICT_UNHEALTHY]
    assert len(failed) == 1
    assert failed[0].message
    assert report.recommendations
    events.until_state("sim-0", "QUARANTINED")
    job_id = asking.submit(server)
    script.write(sim(0))
    # It comes back by itself, and the job that waited runs.
    back = events.until_state("sim-0", "AVAILABLE")
    assert back.cause_sequence
    assert kind(asking.watch(server, job_id)[-1]) == "succeeded"


def test_repeated_errors_degrade_the_device_until_a_job_goes_well(machine: Machine) -> None:
    server, _, events = machine
    break_it(machine, 'kind = "driver_error"\nat_step = 1\ntimes = 2')
    for _ in range(2):
        failure = failure_of(asking.watch(server, asking.submit(server))[-1])
        assert failure.reason == error_pb2.ERROR_REASON_DRIVER_ERROR
    degraded = events.until_state("sim-0", "DEGRADED")
    assert degraded.device.state_failure.reason == error_pb2.ERROR_REASON_DRIVER_ERROR
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
    events.until_state("sim-0", "AVAILABLE")


def test_a_driver_error_fails_its_job_and_no_other(machine: Machine) -> None:
    server, _, _ = machine
    break_it(machine, 'kind = "driver_error"\nat_step = 3')
    first, second = asking.submit(server, picture(steps=6)), asking.submit(server, picture(steps=24, seed=2))
    ends = [asking.watch(server, job_id)[-1] for job_id in (first, second)]
    # Which of the two is struck is their turn's business; the process is not trusted, so the other runs again elsewhere.
    assert sorted(map(kind, ends)) == ["failed", "succeeded"]
    assert failure_of(min(ends, key=kind)).reason == error_pb2.ERROR_REASON_DRIVER_ERROR


def test_a_device_that_vanishes_in_mid_job_and_returns(machine: Machine) -> None:
    server, script, events = machine
    asking.watch(server, asking.submit(server))
    job_id = asking.submit(server, picture(steps=300))
    watching = asking.follow(server, job_id)
    asking.until(watching, asking.denoising)
    script.write(sim(0, "present = false"))
    lost = events.until(lambda event: event.kind == "device.lost")
    assert lost.failure.reason == error_pb2.ERROR_REASON_DEVICE_LOST
    caused: set[str] = set()
    while caused != {"loaded_model.unloaded", "job.state_changed"}:
        event = events.until(lambda event: event.cause_sequence == lost.sequence)
        caused.add(event.kind)
    assert state(server, "sim-0") == "LOST"
    listed = server.device.ListDevices(device_service_pb2.ListDevicesRequest()).devices
    assert "sim-0" not in [one.id for one in listed]
    asking.cancel(server, job_id)
    script.write(sim(0))
    events.until(lambda event: event.kind == "device.returned")
    events.until_state("sim-0", "AVAILABLE")
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"


def test_a_job_of_a_lost_device_goes_on_when_it_is_back(machine: Machine) -> None:
    server, script, events = machine
    job_id = asking.submit(server, picture(steps=24))
    watching = asking.follow(server, job_id)
    asking.until(watching, asking.denoising)
    script.write(sim(0, "present = false"))
    events.until(lambda event: event.kind == "device.lost")
    events.until(lambda event: event.job.state == job_event_pb2.JOB_STATE_INTERRUPTED)
    script.write(sim(0))
    rest = asking.journal_of(watching)
    assert kind(rest[-1]) == "succeeded"
    reasons = [update.event.interrupted.reason for update in rest if kind(update) == "interrupted"]
    assert reasons == [error_pb2.ERROR_REASON_DEVICE_LOST]


def test_a_device_is_plugged_in_while_the_server_runs(machine: Machine) -> None:
    server, script, events = machine
    script.write(sim(0), sim(1, 'name = "A second one"'))
    events.until_state("sim-1", "AVAILABLE")
    assert device(server, "sim-1").display_name == "A second one"
    assert device(server, "sim:1").id == "sim-1"
    options = job_event_pb2.JobOptions(devices=job_event_pb2.DeviceSelector(device_ids=["sim:1"]))
    ended = asking.watch(server, asking.submit(server, options=options))[-1]
    assert ended.event.succeeded.receipt.device_id == "sim-1"
    script.write(sim(0))
    events.until(lambda event: event.kind == "device.lost" and event.resource_id == "sim-1")


def reset(server: RunningServer, device_id: str = "sim-0", **fields: Any) -> list[Any]:
    work = device_work_pb2.DeviceReset(device_id=device_id, **fields)
    request = device_service_pb2.ResetDeviceRequest(device_reset=work)
    return list(server.device.ResetDevice(request, timeout=CALL_S))


def test_a_reset_gives_a_new_process_and_its_jobs_go_on(machine: Machine) -> None:
    server, _, _ = machine
    asking.watch(server, asking.submit(server))
    job_id = asking.submit(server, picture(steps=24))
    watching = asking.follow(server, job_id)
    asking.until(watching, asking.denoising)
    worker = server.worker_pid
    refused = reset(server, drain_timeout={"nanos": 1})[-1]
    assert refused.event.failed.failure.reason == error_pb2.ERROR_REASON_ILLEGAL_STATE
    ended = reset(server, drain_timeout={"nanos": 1}, force=True)[-1]
    report = ended.device_reset_report
    assert kind(ended) == "succeeded"
    assert report.interrupted_job_ids == [job_id]
    assert report.ended_loaded_model_ids == ["emoji-sd@sim-0"]
    assert report.HasField("freed_bytes")
    assert report.device.id == "sim-0"
    assert server.worker_pid != worker
    rest = asking.journal_of(watching)
    assert kind(rest[-1]) == "succeeded"
    # A process that is ended leaves no words of its libraries in the log.
    assert all(line.startswith("{") for line in server.log.read_text().split("\n")[:-1])


def test_a_reset_of_the_content_keeps_the_process(machine: Machine) -> None:
    server, _, _ = machine
    asking.watch(server, asking.submit(server))
    worker = server.worker_pid
    ended = reset(server, level=device_work_pb2.DEVICE_RESET_LEVEL_CONTENT)[-1]
    assert ended.device_reset_report.ended_loaded_model_ids == ["emoji-sd@sim-0"]
    assert ended.device_reset_report.freed_bytes > 0
    assert server.worker_pid == worker


def test_a_check_during_a_long_load_disturbs_nobody(machine: Machine) -> None:
    server, _, _ = machine
    break_it(machine, 'kind = "slow_load"\nbytes_per_second = 6000000')
    reset(server, level=device_work_pb2.DEVICE_RESET_LEVEL_CONTENT)
    worker, job_id = server.worker_pid, asking.submit(server)
    watching = asking.follow(server, job_id)
    asking.until(watching, lambda update: update.event.stage_started.stage == "loading")
    check(server, timeout={"seconds": 30})  # A load is done piece by piece, so the check has its turn beside it.
    assert kind(asking.journal_of(watching)[-1]) == "succeeded"
    assert server.worker_pid == worker
    assert state(server, "sim-0") == "AVAILABLE"
