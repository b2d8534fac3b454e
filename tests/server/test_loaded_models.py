"""Loaded models: watched, pinned, kept alive, evicted by cost, and gone without a trace."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration

from deviceops.common.v1 import error_pb2, image_pb2, job_event_pb2
from deviceops.inference.v1 import inference_service_pb2, reproduction_pb2
from deviceops.memory.v1 import memory_service_pb2
from deviceops.model.v1 import execution_pb2, loaded_model_pb2, model_service_pb2, model_work_pb2
from tests.server import asking
from tests.server.asking import CALL_S, exact_picture, kind, picture, refused
from tests.server.harness import RunningServer
from tests.server.model_folders import another
from tests.server.sim import Events, Script, sim, simulated

MIB = 1 << 20
ROOM = f"memory_bytes = {80 * MIB}\nruntime_bytes = {16 * MIB}"
"""Room for one of the models, and not for two."""
WIDE = f"memory_bytes = {256 * MIB}\nruntime_bytes = {16 * MIB}"
HEALTHY = sim(0, ROOM), sim(1, WIDE)
FIRST, SECOND = "emoji-sd", "second"
SIBLING = "sibling"
"""Has the VAE and the text encoder of the first."""
States = loaded_model_pb2.LoadedModelState
LOADING, READY = loaded_model_pb2.LOADED_MODEL_STATE_LOADING, loaded_model_pb2.LOADED_MODEL_STATE_READY
UNLOADED, FAILED = loaded_model_pb2.LOADED_MODEL_STATE_UNLOADED, loaded_model_pb2.LOADED_MODEL_STATE_FAILED


class Machine:
    """A server with two simulated devices and two models."""

    def __init__(self, server: RunningServer, script: Script, events: Events) -> None:
        self.server = server
        self.script = script
        self.events = events
        self.model = server.model

    def rewrite(self, *devices: str) -> None:
        """Another script; returns when the server has read it."""
        if self.script.write(*devices):
            self.events.until(lambda event: event.kind in ("device.script_changed", "device.returned"))

    def start_load(
        self, model_id: str = FIRST, device: str = "sim-0", *, allow_offload: bool | None = None, **more: Any
    ) -> Any:
        options = job_event_pb2.JobOptions(fallback=job_event_pb2.FallbackPolicy(allow_offload=allow_offload))
        options.devices.device_ids.append(device)
        work = model_work_pb2.ModelLoad(model_id=model_id, **more)
        request = model_service_pb2.LoadModelRequest(model_load=work, options=options)
        return self.model.LoadModel(request, timeout=CALL_S)

    def load(self, model_id: str = FIRST, device: str = "sim-0", **more: Any) -> Any:
        """The last word of a load."""
        return asking.journal_of(self.start_load(model_id, device, **more))[-1]

    def loaded(self, model_id: str = FIRST, device: str = "sim-0", **more: Any) -> loaded_model_pb2.LoadedModel:
        last = self.load(model_id, device, **more)
        assert kind(last) == "succeeded", last
        return last.loaded_model

    def unload(self) -> Any:
        everything = model_service_pb2.EveryLoadedModel()
        return self.model.UnloadModel(model_service_pb2.UnloadModelRequest(all=everything), timeout=CALL_S)

    def list(self, **conditions: Any) -> dict[str, loaded_model_pb2.LoadedModel]:
        wanted = model_service_pb2.LoadedModelFilter(**conditions)
        answer = self.model.ListLoadedModels(model_service_pb2.ListLoadedModelsRequest(filter=wanted), timeout=CALL_S)
        return {one.id: one for one in answer.loaded_models}

    def watch(self, **conditions: Any) -> Any:
        wanted = model_service_pb2.LoadedModelFilter(**conditions)
        return self.model.WatchLoadedModels(model_service_pb2.WatchLoadedModelsRequest(filter=wanted), timeout=CALL_S)

    def update(self, loaded_model_id: str, **more: Any) -> loaded_model_pb2.LoadedModel:
        request = model_service_pb2.UpdateLoadedModelRequest(loaded_model_id=loaded_model_id, **more)
        return self.model.UpdateLoadedModel(request, timeout=CALL_S).loaded_model

    def used(self, pool: str = "sim-0") -> int:
        """Bytes of the pool that are in use."""
        request = memory_service_pb2.GetMemoryPoolRequest(memory_pool_id=pool)
        return self.server.memory.GetMemoryPool(request, timeout=CALL_S).memory_pool.used_bytes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("loaded")
    another(folder / "models" / SECOND)
    another(folder / "models" / SIBLING, sharing=("vae", "text_encoder"))
    flags = ("--model-root", str(folder / "models"), "--model-poll-s", "0")
    with simulated(folder, *HEALTHY, flags=flags) as (server, script, events):
        list(server.model.ScanModels(model_service_pb2.ScanModelsRequest(), timeout=CALL_S))
        yield Machine(server, script, events)


@pytest.fixture
def machine(shared: Machine) -> Machine:
    """Nothing is loaded."""
    shared.rewrite(*HEALTHY)
    shared.unload()
    return shared


def in_sync(call: Any) -> list[loaded_model_pb2.LoadedModel]:
    """What a watch tells up to the mark."""
    told: list[loaded_model_pb2.LoadedModel] = []
    for message in call:
        if message.in_sync:
            return told
        told.append(message.loaded_model)
    raise AssertionError("the watch ended")


def next_of(call: Any, wanted: Callable[[Any], bool] = lambda message: True) -> Any:
    """The next change that is wanted, without heartbeats."""
    return asking.until(call, lambda message: message.HasField("loaded_model") and wanted(message))


# Watching


def test_a_watch_tells_all_there_is_and_then_each_step_of_a_load(machine: Machine) -> None:
    there = machine.loaded(SECOND, "sim-1")
    call = machine.watch()
    assert [one.id for one in in_sync(call)] == [there.id]
    job_id = machine.load()
    changes = [next_of(call), next_of(call, lambda message: message.loaded_model.state != LOADING)]
    assert [(one.loaded_model.id, one.loaded_model.state) for one in changes] == [
        ("emoji-sd@sim-0", LOADING),
        ("emoji-sd@sim-0", READY),
    ]
    assert {one.cause_job_id for one in changes} == {job_id.event.job_id}
    begun, ready = (one.loaded_model for one in changes)
    assert list(begun.active_job_ids) == [job_id.event.job_id]
    assert begun.device_bytes == 0
    assert ready.load_duration.ToNanoseconds() > 0
    machine.unload()
    gone = {(one.loaded_model.id, one.loaded_model.state) for one in (next_of(call), next_of(call))}
    assert gone == {("emoji-sd@sim-0", UNLOADED), ("second@sim-1", UNLOADED)}
    call.cancel()


def test_a_watch_tells_once_more_what_stops_fitting_and_then_leaves_it_out(machine: Machine) -> None:
    one = machine.loaded()
    call = machine.watch(pinned=False)
    assert [each.id for each in in_sync(call)] == [one.id]
    machine.update(one.id, pinned=True)
    machine.update(one.id, keep_alive=Duration(seconds=900))
    machine.update(one.id, pinned=False)
    seen = [next_of(call).loaded_model for _ in range(2)]
    assert [each.pinned for each in seen] == [True, False]
    assert seen[1].keep_alive.seconds == 900
    call.cancel()


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [({"device_ids": ["sim-7"]}, "DEVICE_NOT_FOUND"), ({"model_ids": ["nothing"]}, "MODEL_NOT_FOUND")],
)
def test_a_filter_by_what_is_not_there_is_refused(machine: Machine, conditions: Any, reason: str) -> None:
    refusal = refused(lambda: machine.watch(**conditions))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, reason)
    assert refused(lambda: machine.list(**conditions)).reason == reason


def test_loaded_models_are_found_by_each_condition(machine: Machine) -> None:
    one, other = machine.loaded(pinned=True), machine.loaded(SECOND, "sim-1")
    assert list(machine.list()) == [one.id, other.id]
    assert list(machine.list(device_ids=["sim-1"])) == [other.id]
    assert list(machine.list(device_ids=["sim:1"])) == [other.id], "an alias"
    assert list(machine.list(model_ids=[FIRST])) == [one.id]
    assert list(machine.list(pinned=False)) == [other.id]
    assert list(machine.list(states=[LOADING])) == []
    assert list(machine.list(states=[READY])) == [one.id, other.id]
    assert list(machine.list(states=[loaded_model_pb2.LOADED_MODEL_STATE_UNSPECIFIED])) == [one.id, other.id]
    machine.update(one.id, pinned=False)


# Pinning and keep-alive


def test_a_change_that_knows_an_older_state_is_refused(machine: Machine) -> None:
    one = machine.loaded()
    pinned = machine.update(one.id, pinned=True, etag=one.etag)
    assert pinned.pinned
    assert pinned.etag != one.etag
    refusal = refused(lambda: machine.update(one.id, pinned=False, etag=one.etag))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert machine.list()[one.id] == pinned
    machine.update(one.id, pinned=False, etag=pinned.etag)


@pytest.mark.parametrize("span", [Duration(seconds=-1), Duration(seconds=30 * 86400 + 1)])
def test_a_keep_alive_outside_its_range_is_refused(machine: Machine, span: Duration) -> None:
    one = machine.loaded()
    assert refused(lambda: machine.update(one.id, keep_alive=span)).fields == ["keep_alive"]
    assert refused(lambda: machine.load(keep_alive=span)).fields == ["model_load.keep_alive"]
    assert refused(lambda: machine.update("nothing", pinned=True)).reason == "LOADED_MODEL_NOT_FOUND"


def test_a_model_goes_by_itself_when_its_keep_alive_is_over(machine: Machine) -> None:
    before = machine.used()
    call = machine.watch()
    in_sync(call)
    one = machine.loaded(keep_alive=Duration(nanos=300_000_000))
    assert one.expire_time.ToNanoseconds() >= one.load_time.ToNanoseconds() + 299_000_000
    gone = next_of(call, lambda message: message.loaded_model.state == UNLOADED)
    assert gone.loaded_model.id == one.id
    assert gone.event_time.ToNanoseconds() >= one.expire_time.ToNanoseconds()
    assert machine.used() == before
    call.cancel()


def test_a_pinned_model_does_not_expire_and_an_unpinned_one_does(machine: Machine) -> None:
    one = machine.loaded(pinned=True, keep_alive=Duration(nanos=1))
    assert not one.HasField("expire_time")
    call = machine.watch()
    in_sync(call)
    machine.update(one.id, pinned=False)
    assert next_of(call, lambda message: message.loaded_model.state == UNLOADED).loaded_model.id == one.id
    call.cancel()


def test_a_model_in_use_outlives_its_keep_alive(machine: Machine) -> None:
    one = machine.loaded()
    options = job_event_pb2.JobOptions()
    options.devices.device_ids.append("sim-0")
    job_id = asking.submit(machine.server, picture(steps=asking.LONG_STEPS), options)
    asking.wait_for_step(machine.server, job_id)
    call = machine.watch()
    in_sync(call)
    kept = machine.update(one.id, keep_alive=Duration(nanos=1_000_000))
    assert list(kept.active_job_ids) == [job_id]
    asking.until(asking.follow(machine.server, job_id), asking.denoising)
    assert one.id in machine.list()
    asking.cancel(machine.server, job_id)
    assert next_of(call, lambda message: message.loaded_model.state == UNLOADED).loaded_model.id == one.id
    call.cancel()


def test_a_load_of_what_is_loaded_takes_over_what_it_asks_for(machine: Machine) -> None:
    one = machine.loaded()
    assert not one.reused
    again = machine.loaded(keep_alive=Duration(seconds=600), pinned=True)
    assert (again.reused, again.pinned, again.keep_alive.seconds) == (True, True, 600)
    assert again.load_time == one.load_time
    third = machine.loaded()
    assert (third.reused, third.pinned, third.keep_alive.seconds) == (True, True, 600), "it asked for nothing else"
    machine.update(one.id, pinned=False)


# Eviction


def test_a_load_takes_the_room_of_a_model_that_no_job_uses(machine: Machine) -> None:
    first = machine.loaded()
    second = machine.loaded(SECOND)
    assert list(machine.list()) == [second.id], f"{first.id} was used a moment ago, and had to go all the same"


@pytest.mark.parametrize("stay", [{"pinned": True}, {"keep_alive": Duration(seconds=600)}])
def test_a_load_takes_no_room_of_a_model_that_is_to_stay(machine: Machine, stay: Any) -> None:
    first = machine.loaded(**stay)
    last = machine.load(SECOND, allow_offload=False)
    assert last.event.failed.failure.reason == error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY
    assert list(machine.list()) == [first.id]
    machine.update(first.id, pinned=False, keep_alive=Duration())
    assert machine.loaded(SECOND).id in machine.list()


# Ends


def test_a_cancelled_load_gives_all_memory_back_and_is_told_as_gone(machine: Machine) -> None:
    before = machine.used()
    machine.rewrite(sim(0, ROOM, 'kind = "slow_load"\nbytes_per_second = 4000000'), sim(1, WIDE))
    watch = machine.watch(device_ids=["sim-0"])
    in_sync(watch)
    call = machine.start_load()
    asking.until(call, lambda update: update.event.progress.completed > 1_000_000)
    assert machine.used() > before
    assert machine.list()["emoji-sd@sim-0"].state == LOADING
    call.cancel()
    last = next_of(watch, lambda message: message.loaded_model.state != LOADING).loaded_model
    watch.cancel()
    machine.rewrite(*HEALTHY)
    assert last.state == UNLOADED
    assert machine.used() == before
    assert machine.list() == {}


def test_a_load_that_fails_tells_why_and_leaves_nothing(machine: Machine) -> None:
    before = machine.used()
    watch = machine.watch()
    in_sync(watch)
    machine.rewrite(sim(0, ROOM, 'kind = "out_of_memory"\nat_step = 0'), sim(1, WIDE))
    last = machine.load()
    machine.rewrite(*HEALTHY)
    assert kind(last) == "failed"
    failed = next_of(watch, lambda message: message.loaded_model.state == FAILED).loaded_model
    watch.cancel()
    assert failed.failure.reason == error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY
    assert machine.used() == before
    assert machine.list() == {}


def test_many_loads_leave_device_and_worker_as_they_were(machine: Machine) -> None:
    worker = psutil.Process(next(one.process_id for one in machine.server.status().workers if one.device_id == "sim-1"))

    def cycle() -> None:
        assert machine.loaded(device="sim-1").state == READY
        machine.unload()

    before = machine.used("sim-1")
    for _ in range(4):
        cycle()
    resident, files = worker.memory_info().rss, worker.num_fds()
    for _ in range(20):
        cycle()
    assert machine.used("sim-1") == before
    assert worker.num_fds() == files
    # A model has 52 MB: a leak of one in twenty would show.
    assert worker.memory_info().rss - resident < 45e6


# How it computes


def options(**precisions: str) -> execution_pb2.ExecutionOptions:
    numbers = {name: image_pb2.Precision.Value(f"PRECISION_{text}") for name, text in precisions.items()}
    return execution_pb2.ExecutionOptions(**numbers)  # pyright: ignore[reportArgumentType]  # by name


def test_each_part_is_loaded_in_the_precision_that_was_asked_for(machine: Machine) -> None:
    asked = options(precision="FLOAT16", text_encoder_precision="BFLOAT16", vae_precision="FLOAT32")
    before = machine.used("sim-1")
    one = machine.loaded(device="sim-1", execution=asked)
    assert {part.component_id: part.precision for part in one.components} == {
        "unet": image_pb2.PRECISION_FLOAT16,
        "text_encoder": image_pb2.PRECISION_BFLOAT16,
        "vae": image_pb2.PRECISION_FLOAT32,
    }
    told = (one.execution.precision, one.execution.text_encoder_precision, one.execution.vae_precision)
    assert told == (asked.precision, asked.text_encoder_precision, asked.vae_precision)
    assert machine.used("sim-1") - before == one.device_bytes
    job = job_event_pb2.JobOptions()
    job.devices.device_ids.append("sim-1")
    last = asking.watch(machine.server, asking.submit(machine.server, picture(), job))[-1]
    assert kind(last) == "succeeded"
    assert last.generation_result.resolved.execution.precision == asked.precision
    spec = asking.job_of(machine.server, machine.load(device="sim-1", execution=asked).event.job_id).spec
    assert spec.model_load.execution == asked
    other = machine.load(device="sim-1", execution=options(precision="FLOAT32"))
    assert other.event.failed.failure.reason == error_pb2.ERROR_REASON_ILLEGAL_STATE
    assert "text_encoder as bfloat16, not float32" in other.event.failed.failure.message


def in_bits(quantization: str, **precisions: str) -> execution_pb2.ExecutionOptions:
    asked = options(**precisions)
    asked.quantization = quantization
    return asked


@pytest.mark.parametrize("quantization", ["fp8_e4m3", "int8"])
def test_a_denoiser_takes_fewer_bytes_as_foretold_and_every_answer_names_the_quantization(
    machine: Machine, quantization: str
) -> None:
    asked = in_bits(quantization, precision="FLOAT32")
    plain = estimates(machine, FIRST, "sim-1", execution=options(precision="FLOAT32"))["sim-1"]
    forecast = estimates(machine, FIRST, "sim-1", execution=asked)["sim-1"]
    before = machine.used("sim-1")
    one = machine.loaded(device="sim-1", execution=asked)
    taken = machine.used("sim-1") - before
    assert taken == one.device_bytes < 0.6 * plain.weights_bytes
    assert forecast.weights_bytes == pytest.approx(taken, rel=0.1)
    assert forecast.execution.quantization == one.execution.quantization == quantization
    assert {part.precision for part in one.components} == {image_pb2.PRECISION_FLOAT32}, "it computes in that"
    assert machine.loaded(device="sim-1").reused, "a load that names none takes it as it is"
    again = estimates(machine, FIRST, "sim-1")["sim-1"]
    assert (again.weights_bytes, again.execution.quantization) == (0, quantization)
    (sibling,) = estimates(machine, SIBLING, "sim-1", execution=asked).values()
    assert {part.component_id for part in sibling.components if part.shared_with_loaded_model_ids} == {
        "vae",
        "text_encoder",
    }
    for other in ("none", "int8" if quantization == "fp8_e4m3" else "fp8_e4m3"):
        failed = machine.load(device="sim-1", execution=in_bits(other)).event.failed.failure
        assert failed.reason == error_pb2.ERROR_REASON_ILLEGAL_STATE
        assert f"quantized as {quantization}, not {other}" in failed.message
        assert estimates(machine, FIRST, "sim-1", execution=in_bits(other))["sim-1"].weights_bytes > 0
    machine.unload()
    learned = estimates(machine, FIRST, "sim-1", execution=asked)["sim-1"]
    assert learned.weights_bytes == taken
    wide = estimates(machine, FIRST, "sim-1", execution=options(precision="FLOAT32"))["sim-1"]
    # The other components were measured by the load, if by none before.
    denoisers = [[part.device_bytes for part in one.components if part.component_id == "unet"] for one in (wide, plain)]
    assert denoisers[0] == denoisers[1] != [], "what one takes says nothing of the other"


def test_a_picture_tells_the_quantization_and_is_not_taken_for_one_without(machine: Machine) -> None:
    job = job_event_pb2.JobOptions()
    job.devices.device_ids.append("sim-1")

    def made() -> Any:
        return asking.watch(machine.server, asking.submit(machine.server, exact_picture(), job))[-1].generation_result

    machine.loaded(device="sim-1")
    plain = made()
    assert plain.resolved.execution.quantization == "none"
    machine.unload()
    machine.loaded(device="sim-1", execution=in_bits("int8"))
    first, second = made(), made()
    assert first.resolved.execution.quantization == "int8"
    assert [one.file.sha256 for one in first.images] == [one.file.sha256 for one in second.images]
    assert first.images[0].file.sha256 != plain.images[0].file.sha256
    request = inference_service_pb2.ReproduceImageRequest(options=job)
    request.reproduction.image.blob_id = plain.images[0].file.blob_id
    report = list(machine.server.inference.ReproduceImage(request, timeout=CALL_S))[-1].report
    assert report.verdict == reproduction_pb2.REPRODUCTION_VERDICT_DIFFERENT
    assert report.present.execution.quantization == "int8"


def test_a_quantization_that_this_server_lacks_is_refused_with_those_it_has(machine: Machine) -> None:
    for word in ("nf4", "gguf"):
        refusal = refused(lambda word=word: machine.load(execution=in_bits(word)))
        assert refusal.reason == "NOT_SUPPORTED_ON_DEVICE"
        assert refusal.facts["field"] == "model_load.execution.quantization"
        assert refusal.facts["allowed"] == "none, fp8_e4m3, int8"
    refusal = refused(lambda: machine.load(execution=in_bits("int7")))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["model_load.execution.quantization"])
    assert "none, fp8_e4m3, int8" in refusal.message


WAYS = [
    ({"precision": image_pb2.PRECISION_INT8}, "precision"),
]


@pytest.mark.parametrize(("way", "field"), WAYS)
def test_a_way_of_computing_that_the_engine_does_not_have_is_refused_by_name(
    machine: Machine, way: Any, field: str
) -> None:
    refusal = refused(lambda: machine.load(execution=execution_pb2.ExecutionOptions(**way)))
    assert (refusal.reason, refusal.fields) == ("NOT_IMPLEMENTED", [f"model_load.execution.{field}"])


def test_the_way_in_which_the_engine_computes_may_be_said(machine: Machine) -> None:
    one = machine.loaded()
    assert machine.loaded(execution=one.execution).reused


def test_the_ways_in_which_a_load_computes_come_back_and_are_those_of_its_jobs(machine: Machine) -> None:
    asked = execution_pb2.ExecutionOptions(
        attention_kernel="math", attention_slicing=True, vae_slicing=False, vae_tiling=True, vae_tile_px=256
    )
    names = [field.name for field, _ in asked.ListFields()]

    def same(told: execution_pb2.ExecutionOptions) -> bool:
        return all(getattr(told, name) == getattr(asked, name) for name in names)

    usual = machine.loaded(device="sim-1").execution
    assert (usual.vae_slicing, usual.HasField("vae_tiling"), usual.vae_tile_px) == (True, False, 0)
    assert (usual.attention_kernel, usual.attention_slicing) == ("", False)
    other = machine.load(device="sim-1", execution=asked).event.failed.failure
    assert other.reason == error_pb2.ERROR_REASON_ILLEGAL_STATE
    assert "unload it first" in other.message
    machine.unload()
    forecast = model_service_pb2.EstimateModelRequest(
        model_load=model_work_pb2.ModelLoad(model_id=FIRST, execution=asked),
        devices=job_event_pb2.DeviceSelector(device_ids=["sim-1"]),
    )
    assert same(machine.model.EstimateModel(forecast, timeout=CALL_S).estimates[0].execution)
    first = machine.load(device="sim-1", execution=asked)
    assert same(first.loaded_model.execution)
    assert machine.loaded(device="sim-1", execution=first.loaded_model.execution).reused
    assert asking.job_of(machine.server, first.event.job_id).spec.model_load.execution == asked
    assert same(machine.list()["emoji-sd@sim-1"].execution)
    plan = inference_service_pb2.PlanGenerationRequest(generation=picture(), options=on("sim-1"))
    assert same(machine.server.inference.PlanGeneration(plan, timeout=CALL_S).resolved.execution)
    last = asking.watch(machine.server, asking.submit(machine.server, picture(), on("sim-1")))[-1]
    assert same(last.generation_result.resolved.execution)


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="the simulated devices compile with the C++ compiler of the machine"
)
def test_a_load_that_compiles_says_so_and_an_exact_job_tells_that_it_does_not(machine: Machine) -> None:
    asked = execution_pb2.ExecutionOptions(compile=True)
    plain = asking.watch(machine.server, asking.submit(machine.server, exact_picture(), on("sim-1")))[
        -1
    ].generation_result
    assert not plain.resolved.execution.compile
    other = machine.load(device="sim-1", execution=asked).event.failed.failure
    assert other.reason == error_pb2.ERROR_REASON_ILLEGAL_STATE
    assert "with compile false" in other.message
    machine.unload()
    forecast = model_service_pb2.EstimateModelRequest(
        model_load=model_work_pb2.ModelLoad(model_id=FIRST, execution=asked),
        devices=job_event_pb2.DeviceSelector(device_ids=["sim-1"]),
    )
    assert machine.model.EstimateModel(forecast, timeout=CALL_S).estimates[0].execution.compile
    loaded = machine.loaded(device="sim-1", execution=asked)
    assert loaded.execution.compile
    assert machine.loaded(device="sim-1", execution=loaded.execution).reused
    plan = inference_service_pb2.PlanGenerationRequest(generation=picture(), options=on("sim-1"))
    assert machine.server.inference.PlanGeneration(plan, timeout=CALL_S).resolved.execution.compile
    events = asking.watch(machine.server, asking.submit(machine.server, exact_picture(), on("sim-1")))
    told = [one.event.degraded for one in events if one.event.HasField("degraded")]
    assert [one.kind for one in told] == ["compile"]
    assert "an exact picture" in told[0].detail
    result = events[-1].generation_result
    assert result.resolved.execution.compile
    assert [one.file.sha256 for one in result.images] == [one.file.sha256 for one in plain.images]


def test_slices_of_attention_are_not_compiled(machine: Machine) -> None:
    both = execution_pb2.ExecutionOptions(compile=True, attention_slicing=True)
    told = refused(lambda: list(machine.start_load(execution=both)))
    assert (told.reason, told.fields) == ("INVALID_FIELD", ["model_load.execution.compile"])


@pytest.mark.parametrize(
    "how",
    [
        {"vae_tile_px": 256},
        {"vae_tiling": False, "vae_tile_px": 256},
        *({"vae_tiling": True, "vae_tile_px": px} for px in (-64, 192, 300, 4160)),
    ],
)
def test_an_edge_of_tiles_that_means_nothing_is_refused_by_name(machine: Machine, how: dict[str, Any]) -> None:
    told = refused(lambda: list(machine.start_load(execution=execution_pb2.ExecutionOptions(**how))))
    assert (told.reason, told.fields) == ("INVALID_FIELD", ["model_load.execution.vae_tile_px"])


def test_an_attention_kernel_that_the_device_lacks_is_refused_with_those_that_it_has(machine: Machine) -> None:
    # A CPU computes for simulated devices; torch has this kernel for CUDA alone.
    lacks = execution_pb2.ExecutionOptions(attention_kernel="memory_efficient")
    told = refused(lambda: list(machine.start_load(execution=lacks)))
    assert told.reason == "NOT_SUPPORTED_ON_DEVICE"
    assert "sim-0 lacks attention_kernel memory_efficient, and has attention_kernel flash, math" in told.message
    unknown = execution_pb2.ExecutionOptions(attention_kernel="xformers")
    told = refused(lambda: list(machine.start_load(execution=unknown)))
    assert (told.reason, told.fields) == ("INVALID_FIELD", ["model_load.execution.attention_kernel"])
    forecast = model_service_pb2.EstimateModelRequest(
        model_load=model_work_pb2.ModelLoad(model_id=FIRST, execution=lacks),
        devices=job_event_pb2.DeviceSelector(device_ids=["sim-1"]),
    )
    (one,) = machine.model.EstimateModel(forecast, timeout=CALL_S).estimates
    assert not one.fits
    assert [finding.reason for finding in one.findings] == [error_pb2.ERROR_REASON_NOT_SUPPORTED_ON_DEVICE]
    assert one.findings[0].message == "sim-1 lacks attention_kernel memory_efficient"


def test_a_load_tells_how_much_of_each_part_has_come(machine: Machine) -> None:
    machine.rewrite(sim(0, ROOM, 'kind = "slow_load"\nbytes_per_second = 20000000'), sim(1, WIDE))
    watch = machine.watch(device_ids=["sim-0"])
    in_sync(watch)
    last = machine.loaded()
    sizes: dict[str, list[int]] = {}
    states: list[int] = []
    while READY not in states:
        one = next_of(watch).loaded_model
        states.append(one.state)
        for part in one.components:
            sizes.setdefault(part.component_id, []).append(part.device_bytes)
    watch.cancel()
    whole = {part.component_id: part.device_bytes for part in last.components}
    assert {part: told[-1] for part, told in sizes.items()} == whole
    assert all(told == sorted(told) for told in sizes.values())
    assert len(sizes["unet"]) > 3, "18 MB of files at 20 MB/s, told ten times a second"


# What it would cost


def estimates(machine: Machine, model_id: str = FIRST, *devices: str, **more: Any) -> dict[str, Any]:
    """EstimateModel, by device."""
    work = model_work_pb2.ModelLoad(model_id=model_id, **more)
    request = model_service_pb2.EstimateModelRequest(model_load=work)
    request.devices.device_ids.extend(devices)
    return {one.device_id: one for one in machine.model.EstimateModel(request, timeout=CALL_S).estimates}


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
def test_an_estimate_is_what_the_load_then_takes(machine: Machine, precision: str) -> None:
    asked = options(precision=precision)
    forecast = estimates(machine, SECOND, "sim-1", execution=asked)["sim-1"]
    assert forecast.fits
    before = machine.used("sim-1")
    one = machine.loaded(SECOND, "sim-1", execution=asked)
    taken = machine.used("sim-1") - before
    assert forecast.weights_bytes == pytest.approx(taken, rel=0.1)
    parts = {part.component_id: part.device_bytes for part in one.components}
    assert {part.component_id for part in forecast.components} == set(parts)
    machine.unload()
    learned = estimates(machine, SECOND, "sim-1", execution=asked)["sim-1"]
    assert learned.weights_bytes == taken
    assert {part.component_id: part.device_bytes for part in learned.components} == parts
    assert learned.sample_count > forecast.sample_count
    assert learned.load_time.ToNanoseconds() > 0


def test_an_estimate_names_what_would_go_and_the_load_takes_exactly_that(machine: Machine) -> None:
    first = machine.loaded()
    forecast = estimates(machine, SECOND)
    assert set(forecast) == {"sim-0", "sim-1"}
    assert list(forecast["sim-1"].evictions) == []
    (gone,) = forecast["sim-0"].evictions
    assert (gone.loaded_model_id, gone.freed_bytes) == (first.id, first.device_bytes)
    assert forecast["sim-0"].fits
    assert list(machine.list()) == [first.id], "an estimate changes nothing"
    machine.loaded(SECOND)
    assert list(machine.list()) == ["second@sim-0"]


def test_an_estimate_says_what_is_missing_and_the_load_agrees(machine: Machine) -> None:
    first = machine.loaded(pinned=True)
    forecast = estimates(machine, SECOND, "sim-0")["sim-0"]
    assert not forecast.fits
    assert forecast.shortfall_bytes == forecast.weights_bytes - forecast.available_device_bytes > 0
    assert [one.reason for one in forecast.findings] == [error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY]
    last = machine.load(SECOND, allow_offload=False)
    assert last.event.failed.failure.reason == error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY
    machine.update(first.id, pinned=False)


def test_what_is_loaded_already_costs_nothing_more(machine: Machine) -> None:
    one = machine.loaded()
    forecast = estimates(machine, FIRST, "sim-0")["sim-0"]
    assert (forecast.weights_bytes, forecast.fits) == (0, True)
    assert all(list(part.shared_with_loaded_model_ids) == [one.id] for part in forecast.components)


def test_a_step_is_forecast_from_those_that_were_measured(machine: Machine) -> None:
    request = model_service_pb2.EstimateModelRequest(model_load=model_work_pb2.ModelLoad(model_id=FIRST), batch_size=2)
    request.devices.device_ids.append("sim-1")
    request.size.width_px = request.size.height_px = 64
    job = job_event_pb2.JobOptions()
    job.devices.device_ids.append("sim-1")
    assert kind(asking.watch(machine.server, asking.submit(machine.server, picture(steps=4), job))[-1]) == "succeeded"
    both = machine.model.EstimateModel(request, timeout=CALL_S).estimates[0].step_time.ToNanoseconds()
    request.batch_size = 1
    single = machine.model.EstimateModel(request, timeout=CALL_S).estimates[0].step_time.ToNanoseconds()
    assert both == pytest.approx(2 * single, rel=1e-6)
    assert single > 0


def test_an_estimate_refuses_what_is_out_of_range(machine: Machine) -> None:
    request = model_service_pb2.EstimateModelRequest(model_load=model_work_pb2.ModelLoad(model_id=FIRST), batch_size=65)
    request.size.width_px = 63
    refusal = refused(lambda: machine.model.EstimateModel(request))
    assert set(refusal.fields) == {"batch_size", "size.width_px", "size.height_px"}
    assert refused(lambda: estimates(machine, "nothing")).reason == "MODEL_NOT_FOUND"
    assert refused(lambda: estimates(machine, FIRST, "sim-7")).reason == "DEVICE_NOT_FOUND"


def test_a_part_that_another_model_has_already_costs_nothing_more(machine: Machine) -> None:
    first = machine.loaded(device="sim-1")
    forecast = estimates(machine, SIBLING, "sim-1")["sim-1"]
    shared = {one.component_id for one in forecast.components if one.shared_with_loaded_model_ids == [first.id]}
    assert shared == {"vae", "text_encoder"}
    before = machine.used("sim-1")
    machine.loaded(SIBLING, "sim-1")
    assert forecast.weights_bytes == pytest.approx(machine.used("sim-1") - before, rel=0.1)


# The RAM tier


def prefetched(machine: Machine, *hints: model_service_pb2.PrefetchHint) -> model_service_pb2.PrefetchModelsResponse:
    return machine.model.PrefetchModels(model_service_pb2.PrefetchModelsRequest(hints=hints), timeout=CALL_S)


def hint(model_id: str, *devices: str) -> model_service_pb2.PrefetchHint:
    one = model_service_pb2.PrefetchHint(model_id=model_id)
    one.devices.device_ids.extend(devices)
    return one


def to_host(machine: Machine, model_id: str, **more: Any) -> Any:
    work = model_work_pb2.ModelLoad(model_id=model_id, tier=loaded_model_pb2.MODEL_TIER_HOST, **more)
    call = machine.model.LoadModel(model_service_pb2.LoadModelRequest(model_load=work), timeout=CALL_S)
    return asking.journal_of(call)[-1]


def test_a_hint_brings_a_model_into_memory_where_the_lists_tell_it(machine: Machine) -> None:
    call = machine.watch()
    in_sync(call)
    assert list(prefetched(machine, hint(SECOND, "sim-0")).accepted_model_ids) == [SECOND]
    found = next_of(call, lambda message: message.loaded_model.state == READY).loaded_model
    call.cancel()
    assert (found.id, found.device_id, found.tier) == ("second@host", "", loaded_model_pb2.MODEL_TIER_HOST)
    assert found.host_bytes + found.mapped_bytes == sum(
        part.host_bytes + part.mapped_bytes for part in found.components
    )
    assert machine.list()[found.id].etag == found.etag
    request = memory_service_pb2.GetMemoryPoolRequest(memory_pool_id="host", include_owners=True)
    pool = machine.server.memory.GetMemoryPool(request, timeout=CALL_S).memory_pool
    assert pool.pinned_bytes >= found.host_bytes
    # It is loaded on no device, so it is not ready there.
    assert machine.loaded(SECOND, "sim-1").reused is False
    assert list(prefetched(machine, hint(SECOND)).ready_model_ids) == [SECOND]
    assert list(prefetched(machine, hint(SECOND, "sim-0")).accepted_model_ids) == [SECOND]
    prefetched(machine)


def test_a_model_is_loaded_into_host_memory_once_and_unloaded_like_others(machine: Machine) -> None:
    first = to_host(machine, FIRST, pinned=True)
    assert kind(first) == "succeeded", first
    assert first.loaded_model.pinned
    assert to_host(machine, FIRST).loaded_model.reused
    estimate = model_service_pb2.EstimateModelRequest(
        model_load=model_work_pb2.ModelLoad(model_id=SECOND, tier=loaded_model_pb2.MODEL_TIER_HOST)
    )
    (told,) = machine.model.EstimateModel(estimate, timeout=CALL_S).estimates
    assert told.fits
    assert (told.device_id, told.weights_bytes) == ("", 0)
    second = to_host(machine, SECOND).loaded_model
    assert second.host_bytes + second.mapped_bytes == told.host_bytes
    gone = machine.unload()
    assert {"emoji-sd@host", "second@host"} <= set(gone.loaded_model_ids)
    assert gone.freed_host_bytes == first.loaded_model.host_bytes + second.host_bytes
    assert machine.list() == {}


def test_what_makes_no_sense_in_host_memory_is_refused_by_name(machine: Machine) -> None:
    work = model_work_pb2.ModelLoad(model_id=FIRST, tier=loaded_model_pb2.MODEL_TIER_HOST)
    request = model_service_pb2.LoadModelRequest(model_load=work)
    request.options.devices.device_ids.append("sim-0")
    told = refused(lambda: asking.journal_of(machine.model.LoadModel(request, timeout=CALL_S)))
    assert told.reason == "INVALID_FIELD"
    bfloat16 = execution_pb2.ExecutionOptions(precision=image_pb2.PRECISION_BFLOAT16)
    told = refused(lambda: to_host(machine, FIRST, execution=bfloat16))
    assert told.reason == "INVALID_FIELD"
    late = model_service_pb2.PrefetchHint(model_id=FIRST, need_in=Duration(seconds=25 * 3600))
    for hints in ([hint("")], [hint(FIRST)] * 33, [late]):
        told = refused(lambda hints=hints: prefetched(machine, *hints))
        assert told.reason == "INVALID_FIELD"


# Components that take turns

TIGHT = f"memory_bytes = {60 * MIB}\nruntime_bytes = {16 * MIB}"
"""Room for the largest component of a model, and not for all of them."""
IN_TURNS = execution_pb2.ExecutionOptions(offload=execution_pb2.OFFLOAD_MODE_COMPONENT)
MAPPED = loaded_model_pb2.COMPONENT_RESIDENCY_MAPPED


def on(device: str, **fallback: Any) -> job_event_pb2.JobOptions:
    options = job_event_pb2.JobOptions(fallback=job_event_pb2.FallbackPolicy(**fallback))
    options.devices.device_ids.append(device)
    return options


def test_components_take_turns_on_request_and_the_loaded_model_says_so(machine: Machine) -> None:
    before = machine.used("sim-1")
    one = machine.loaded(device="sim-1", execution=IN_TURNS)
    assert one.execution.offload == execution_pb2.OFFLOAD_MODE_COMPONENT
    assert (one.device_bytes, one.host_bytes) == (0, 0)
    assert one.mapped_bytes == sum(part.mapped_bytes for part in one.components) > 0
    assert {part.residency for part in one.components} == {MAPPED}
    job_id = asking.submit(machine.server, picture(), on("sim-1"))
    last = asking.watch(machine.server, job_id)[-1]
    assert kind(last) == "succeeded"
    assert last.generation_result.resolved.execution.offload == execution_pb2.OFFLOAD_MODE_COMPONENT
    assert machine.used("sim-1") - before < MIB, "between jobs no component is on the device"
    assert machine.loaded(device="sim-1", execution=IN_TURNS).reused
    spec = asking.job_of(machine.server, machine.load(device="sim-1", execution=IN_TURNS).event.job_id).spec
    assert spec.model_load.execution == IN_TURNS


def test_an_estimate_of_components_that_take_turns_is_the_largest_of_them(machine: Machine) -> None:
    def forecast(**how: Any) -> Any:
        request = model_service_pb2.EstimateModelRequest(
            model_load=model_work_pb2.ModelLoad(model_id=FIRST, execution=execution_pb2.ExecutionOptions(**how)),
            devices=job_event_pb2.DeviceSelector(device_ids=["sim-0"]),
        )
        (one,) = machine.model.EstimateModel(request, timeout=CALL_S).estimates
        return one

    machine.rewrite(sim(0, TIGHT), sim(1, WIDE))
    whole, turns = forecast(), forecast(offload=execution_pb2.OFFLOAD_MODE_COMPONENT)
    assert (whole.fits, turns.fits) == (False, True)
    assert whole.weights_bytes == sum(part.device_bytes for part in turns.components)
    assert turns.weights_bytes == max(part.device_bytes for part in turns.components)
    assert turns.execution.offload == execution_pb2.OFFLOAD_MODE_COMPONENT


def test_a_model_that_has_no_room_as_a_whole_is_used_all_the_same_unless_the_request_forbids_it(
    machine: Machine,
) -> None:
    machine.rewrite(sim(0, TIGHT), sim(1, WIDE))
    for permitted in (True, False):
        asked = inference_service_pb2.PlanGenerationRequest(
            generation=picture(), options=on("sim-0", allow_offload=permitted)
        )
        plan = machine.server.inference.PlanGeneration(asked, timeout=CALL_S)
        told = " ".join(one.message for one in plan.findings)
        assert ("take turns on sim-0" in told, "lacks" in told) == (permitted, not permitted)
        offload = execution_pb2.OFFLOAD_MODE_COMPONENT if permitted else execution_pb2.OFFLOAD_MODE_NONE
        assert plan.resolved.execution.offload == offload
    forbidden = asking.watch(
        machine.server, asking.submit(machine.server, picture(), on("sim-0", allow_offload=False))
    )[-1]
    failure = forbidden.event.failed.failure
    assert failure.reason == error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY
    assert "allow_offload" in {fact.name: fact.value for fact in failure.facts}["would_help"]

    seen = asking.watch(machine.server, asking.submit(machine.server, picture(), on("sim-0")))
    assert kind(seen[-1]) == "succeeded"
    (told,) = [update.event.degraded for update in seen if kind(update) == "degraded"]
    assert (told.kind, told.reason) == ("offload", error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY)
    assert list(seen[-1].event.succeeded.receipt.degradations) == [told]
    assert seen[-1].generation_result.resolved.execution.offload == execution_pb2.OFFLOAD_MODE_COMPONENT
    machine.unload()
    assert machine.loaded().execution.offload == execution_pb2.OFFLOAD_MODE_COMPONENT, "a load does the same"


# Denoisers whose layers pass through the device

SCANT = f"memory_bytes = {46 * MIB}\nruntime_bytes = {16 * MIB}"
"""Less room than the denoiser takes."""
BY_LAYER = execution_pb2.OFFLOAD_MODE_LAYER


def peak_of(seen: Any) -> int:
    """Most bytes on the device during a generation that has succeeded."""
    assert kind(seen[-1]) == "succeeded", seen[-1]
    return seen[-1].event.succeeded.receipt.peak_device_bytes


def beside_weights(machine: Machine) -> int:
    """Bytes that a picture takes beside the weights of its model, as measured with the whole model on a device."""
    one = machine.loaded(device="sim-1")
    peak = peak_of(asking.watch(machine.server, asking.submit(machine.server, exact_picture(), on("sim-1"))))
    return peak - one.device_bytes


def test_a_denoiser_in_layers_takes_what_was_estimated_and_leaves_nothing(machine: Machine) -> None:
    beside, before = beside_weights(machine), machine.used("sim-1")
    for budget in (0, 20 * MIB):
        machine.unload()
        how = execution_pb2.ExecutionOptions(offload=BY_LAYER, offload_budget_bytes=budget)
        request = model_service_pb2.EstimateModelRequest(
            model_load=model_work_pb2.ModelLoad(model_id=FIRST, execution=how),
            devices=job_event_pb2.DeviceSelector(device_ids=["sim-1"]),
        )
        (forecast,) = machine.model.EstimateModel(request, timeout=CALL_S).estimates
        assert forecast.execution.offload_budget_bytes == budget
        assert not budget or 0.9 * budget < forecast.weights_bytes <= budget
        one = machine.loaded(device="sim-1", execution=how)
        assert (one.execution.offload, one.execution.offload_budget_bytes) == (BY_LAYER, budget)
        assert (one.device_bytes, {part.residency for part in one.components}) == (0, {MAPPED})
        assert machine.used("sim-1") < before - 40 * MIB, "all of it waits in its files"
        seen = asking.watch(machine.server, asking.submit(machine.server, picture(), on("sim-1")))
        # A job has given up a part of what it had beside the denoiser before its picture is decoded.
        assert forecast.weights_bytes <= peak_of(seen) <= 1.01 * (forecast.weights_bytes + beside)
        assert machine.used("sim-1") < before - 40 * MIB


def test_a_denoiser_that_alone_is_larger_than_the_device_is_used_all_the_same_unless_the_request_forbids_it(
    machine: Machine,
) -> None:
    beside = beside_weights(machine)
    whole = asking.watch(machine.server, asking.submit(machine.server, exact_picture(), on("sim-1")))
    machine.rewrite(sim(0, SCANT), sim(1, WIDE))
    refusal = asking.watch(machine.server, asking.submit(machine.server, picture(), on("sim-0", allow_offload=False)))[
        -1
    ]
    failure = refusal.event.failed.failure
    assert failure.reason == error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY
    assert "allow_offload" in {fact.name: fact.value for fact in failure.facts}["would_help"]

    asked = inference_service_pb2.PlanGenerationRequest(generation=exact_picture(), options=on("sim-0"))
    plan = machine.server.inference.PlanGeneration(asked, timeout=CALL_S)
    assert plan.resolved.execution.offload == BY_LAYER
    assert "layers of them" in " ".join(one.message for one in plan.findings)
    seen = asking.watch(machine.server, asking.submit(machine.server, exact_picture(), on("sim-0")))
    (told,) = [update.event.degraded for update in seen if kind(update) == "degraded"]
    assert told.kind == "offload"
    assert "layers of them pass through it" in told.detail
    (load,) = plan.estimate.loads
    assert load.device_bytes <= peak_of(seen) <= 1.01 * (load.device_bytes + beside)
    resolved = seen[-1].generation_result.resolved.execution
    assert (resolved.offload, resolved.offload_budget_bytes > 0) == (BY_LAYER, True)
    files = [[image.file.sha256 for image in each[-1].generation_result.images] for each in (whole, seen)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "how", [{"offload_budget_bytes": MIB}, {"offload": BY_LAYER, "offload_budget_bytes": -1}], ids=["alone", "negative"]
)
def test_a_budget_that_means_nothing_is_refused_by_name(machine: Machine, how: dict[str, Any]) -> None:
    told = refused(lambda: list(machine.start_load(execution=execution_pb2.ExecutionOptions(**how))))
    assert (told.reason, told.fields) == ("INVALID_FIELD", ["model_load.execution.offload_budget_bytes"])


# Models that leave their device and stay in host memory

OFFLOADED = loaded_model_pb2.LOADED_MODEL_STATE_OFFLOADED


def kept(machine: Machine, **target: Any) -> model_service_pb2.UnloadModelResponse:
    request = model_service_pb2.UnloadModelRequest(keep_on_host=True, **target)
    return machine.model.UnloadModel(request, timeout=CALL_S)


def test_a_model_that_is_kept_on_the_host_leaves_its_device_and_comes_back_under_its_id(machine: Machine) -> None:
    one = machine.loaded(device="sim-1")
    watch = machine.watch(device_ids=["sim-1"])
    in_sync(watch)
    gone = kept(machine, loaded_model_id=one.id)
    assert (list(gone.loaded_model_ids), gone.freed_device_bytes) == ([one.id], one.device_bytes)
    told = next_of(watch, lambda message: message.loaded_model.state == OFFLOADED).loaded_model
    there = machine.list()
    assert there[one.id].state == told.state == OFFLOADED
    assert (there[one.id].device_bytes, there[one.id].mapped_bytes) == (0, one.device_bytes)
    assert there["emoji-sd@host"].tier == loaded_model_pb2.MODEL_TIER_HOST
    request = model_service_pb2.GetLoadedModelRequest(loaded_model_id=one.id)
    assert machine.model.GetLoadedModel(request).loaded_model == there[one.id]
    assert list(machine.list(states=[OFFLOADED])) == [one.id]

    job_id = asking.submit(machine.server, picture(), on("sim-1"))
    assert kind(asking.watch(machine.server, job_id)[-1]) == "succeeded"
    back = next_of(watch, lambda message: message.loaded_model.state == READY).loaded_model
    watch.cancel()
    assert (back.id, back.device_bytes) == (one.id, one.device_bytes)
    assert machine.list()[one.id].state == READY


@pytest.mark.parametrize("by", ["a generation", "a load"])
def test_a_model_comes_back_from_the_host_as_it_was_unless_a_load_names_another_way(machine: Machine, by: str) -> None:
    asked = options(precision="BFLOAT16", vae_precision="FLOAT32")
    asked.MergeFrom(execution_pb2.ExecutionOptions(vae_tiling=True, attention_kernel="math"))
    one = machine.loaded(device="sim-1", execution=asked)
    kept(machine, loaded_model_id=one.id)
    assert machine.list()[one.id].execution == one.execution
    plan = inference_service_pb2.PlanGenerationRequest(generation=picture(), options=on("sim-1"))
    assert machine.server.inference.PlanGeneration(plan, timeout=CALL_S).resolved.execution == one.execution
    if by == "a load":
        back = machine.loaded(device="sim-1")
    else:
        assert (
            kind(asking.watch(machine.server, asking.submit(machine.server, picture(), on("sim-1")))[-1]) == "succeeded"
        )
        back = machine.list()[one.id]
    assert (back.state, back.execution, back.device_bytes) == (READY, one.execution, one.device_bytes)
    kept(machine, loaded_model_id=one.id)
    named = machine.loaded(device="sim-1", execution=options(precision="FLOAT32")).execution
    assert (named.precision, named.HasField("vae_tiling")) == (image_pb2.PRECISION_FLOAT32, False)


def test_a_model_that_waits_on_the_host_is_let_go_of_like_a_loaded_one(machine: Machine) -> None:
    one = machine.loaded(device="sim-1")
    kept(machine, device_id="sim-1")
    tier = machine.list()["emoji-sd@host"]
    assert list(kept(machine, model_id=FIRST).loaded_model_ids) == [one.id], "once more changes nothing"
    request = model_service_pb2.UnloadModelRequest(loaded_model_id=one.id)
    gone = machine.model.UnloadModel(request, timeout=CALL_S)
    assert (list(gone.loaded_model_ids), gone.freed_host_bytes) == ([one.id], tier.host_bytes)
    assert machine.list() == {}


def test_a_model_that_a_caller_has_brought_to_the_host_stays_there(machine: Machine) -> None:
    to_host(machine, FIRST)
    machine.loaded(device="sim-1")
    kept(machine, device_id="sim-1")
    machine.model.UnloadModel(model_service_pb2.UnloadModelRequest(device_id="sim-1"), timeout=CALL_S)
    assert list(machine.list()) == ["emoji-sd@host"]
    machine.unload()
    assert machine.list() == {}


def test_what_leaves_the_host_waits_there_no_more(machine: Machine) -> None:
    one = machine.loaded(device="sim-1")
    kept(machine, loaded_model_id=one.id)
    machine.model.UnloadModel(model_service_pb2.UnloadModelRequest(loaded_model_id="emoji-sd@host"), timeout=CALL_S)
    assert machine.list() == {}
