"""A quiet stream can be told from a dead one: every stream that follows something says so at once, and again and again."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from pydantic import ValidationError

from deviceops.common.v1 import job_event_pb2
from deviceops.device.v1 import device_service_pb2, device_work_pb2
from deviceops.inference.v1 import inference_service_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.model.v1 import model_service_pb2, model_work_pb2
from deviceops.processing.v1 import processing_service_pb2
from server.heartbeat import FINITE
from server.heartbeat import HEARTBEAT_S as CONTRACT_S
from server.settings import Settings
from tests.domains.model.folders import UNET_TENSORS, write_model
from tests.server import asking, remade
from tests.server.asking import CALL_S, picture
from tests.server.harness import RunningServer
from tests.server.sim import sim, simulated
from tests.server.test_unimplemented import METHODS, NAMES

HEARTBEAT_S = 0.05
_HANGS = 'kind = "hung_step"\nat_step = 1\ntimes = 0'
_MIB = 1024 * 1024
_ROOTS: list[Path] = []
"""The model root of the server."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that is never silent for longer than 0.05 s, with a device that two jobs hold without an end."""
    folder = tmp_path_factory.mktemp("heartbeat")
    roots = folder / "models"
    big_model(roots)
    _ROOTS[:] = [roots]
    flags = ("--heartbeat-s", str(HEARTBEAT_S), "--model-root", str(roots), "--model-poll-s", "0")
    flags = (*flags, "--jobs-per-device", "2")
    with simulated(folder, sim(0, "", _HANGS), flags=flags) as (server, _, _):
        hanging = [asking.submit(server, picture(seed=seed)) for seed in range(2)]
        for job_id in hanging:
            asking.until(asking.follow(server, job_id), lambda update: asking.kind(update) == "started")
        yield server


def big_model(folder: Path) -> None:
    """A model whose weights take a while to hash: one tensor of 4 GiB that the disk does not really hold."""
    weights = write_model(folder / "big") / "unet" / "diffusion_pytorch_model.safetensors"
    size = 4096 * _MIB
    small = {
        name: {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [place, place + 1]}
        for place, name in enumerate(UNET_TENSORS)
    }
    begin = len(small)
    large = {"dtype": "F8_E4M3", "shape": [size - begin], "data_offsets": [begin, size]}
    header = json.dumps({**small, "up_blocks.0.weight": large}).encode()
    with weights.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)


def long_interval() -> Duration:
    return Duration(seconds=60)


def watch_devices(server: RunningServer) -> Any:
    return server.device.WatchDeviceStatus(
        device_service_pb2.WatchDeviceStatusRequest(interval=long_interval()), timeout=CALL_S
    )


def watch_pools(server: RunningServer) -> Any:
    """Pools that move too little to be told, for ever."""
    every = Duration(nanos=100_000_000)
    request = memory_service_pb2.WatchMemoryPoolsRequest(interval=every, min_change_bytes=1 << 60)
    return server.memory.WatchMemoryPools(request, timeout=CALL_S)


def watch_events(server: RunningServer) -> Any:
    request = processing_service_pb2.WatchEventsRequest()
    request.filter.kinds.append("nothing.like_this")
    return server.processing.WatchEvents(request, timeout=CALL_S)


def watch_job(server: RunningServer) -> Any:
    """From the job's newest event on, so that there is nothing to tell at first."""
    job_id = asking.submit(server, picture())
    asking.until(asking.follow(server, job_id), is_heartbeat)
    return asking.follow(server, job_id, asking.job_of(server, job_id).last_sequence)


def watch_session(server: RunningServer) -> Any:
    """From the session's only event on."""
    opened = server.processing.OpenSession(processing_service_pb2.OpenSessionRequest(), timeout=CALL_S).session
    request = processing_service_pb2.WatchSessionRequest(session_id=opened.id, after_sequence=opened.last_sequence)
    return server.processing.WatchSession(request, timeout=CALL_S)


def generate(server: RunningServer) -> Any:
    return server.inference.Generate(inference_service_pb2.GenerateRequest(generation=picture()), timeout=CALL_S)


def reproduce(server: RunningServer) -> Any:
    """Waits for a device that hangs."""
    request = inference_service_pb2.ReproduceImageRequest(reproduction=remade.work())
    return server.inference.ReproduceImage(request, timeout=CALL_S)


def load(server: RunningServer) -> Any:
    """Waits for a device that hangs."""
    load = model_work_pb2.ModelLoad(model_id="emoji-sd")
    return server.model.LoadModel(model_service_pb2.LoadModelRequest(model_load=load), timeout=CALL_S)


def watch_loaded(server: RunningServer) -> Any:
    """Nothing is loaded, and nothing will be: the device hangs."""
    return server.model.WatchLoadedModels(model_service_pb2.WatchLoadedModelsRequest(), timeout=CALL_S)


def scan(server: RunningServer) -> Any:
    return server.model.ScanModels(model_service_pb2.ScanModelsRequest(), timeout=CALL_S)


def validate(server: RunningServer) -> Any:
    """Reads a file of 4 GiB in silence: progress that nothing has read yet is replaced by the newest."""
    asking.journal_of(scan(server))
    work = model_work_pb2.ModelValidation(model_id="big")
    return server.model.ValidateModel(model_service_pb2.ValidateModelRequest(model_validation=work), timeout=CALL_S)


def convert(server: RunningServer) -> Any:
    """Starts a process, which imports torch in silence."""
    work = model_work_pb2.ModelConversion(model_id="emoji-sd", destination_path=str(_ROOTS[0] / "copy"))
    return server.model.ConvertModel(model_service_pb2.ConvertModelRequest(model_conversion=work), timeout=CALL_S)


def benchmark(server: RunningServer) -> Any:
    """Waits for a device that hangs."""
    work = device_work_pb2.DeviceBenchmark(device_id="sim-0")
    return server.device.BenchmarkDevice(
        device_service_pb2.BenchmarkDeviceRequest(device_benchmark=work), timeout=CALL_S
    )


def model_benchmark(server: RunningServer) -> Any:
    """Waits for a device that hangs."""
    work = model_work_pb2.ModelBenchmark(model_id="emoji-sd")
    request = model_service_pb2.BenchmarkModelRequest(model_benchmark=work)
    request.options.devices.device_ids.append("sim-0")
    return server.model.BenchmarkModel(request, timeout=CALL_S)


def reset(server: RunningServer) -> Any:
    """Waits for the job that hangs."""
    work = device_work_pb2.DeviceReset(device_id="sim-0", drain_timeout=long_interval())
    return server.device.ResetDevice(device_service_pb2.ResetDeviceRequest(device_reset=work), timeout=CALL_S)


def transfer(server: RunningServer) -> Any:
    """Copies, then reads all of the copy back before there is something to tell."""
    spec = blob_pb2.BlobSpec(tier=blob_pb2.BLOB_TIER_HOST, size_bytes=512 * _MIB, fill_byte=0)
    made = server.memory.CreateBlob(memory_service_pb2.CreateBlobRequest(blob_spec=spec), timeout=CALL_S)
    work = blob_pb2.BlobTransfer(blob_id=made.blob.id)
    work.new_blob.tier = blob_pb2.BLOB_TIER_HOST
    return server.memory.TransferBlob(memory_service_pb2.TransferBlobRequest(blob_transfer=work), timeout=CALL_S)


CASES: dict[str, Callable[[RunningServer], Any]] = {
    "device.v1.DeviceService.WatchDeviceStatus": watch_devices,
    "memory.v1.MemoryService.WatchMemoryPools": watch_pools,
    "processing.v1.ProcessingService.WatchEvents": watch_events,
    "processing.v1.ProcessingService.WatchJob": watch_job,
    "processing.v1.ProcessingService.WatchSession": watch_session,
    "inference.v1.InferenceService.Generate": generate,
    "inference.v1.InferenceService.ReproduceImage": reproduce,
    "model.v1.ModelService.LoadModel": load,
    "model.v1.ModelService.ScanModels": scan,
    "model.v1.ModelService.WatchLoadedModels": watch_loaded,
    "model.v1.ModelService.ValidateModel": validate,
    "model.v1.ModelService.ConvertModel": convert,
    "model.v1.ModelService.BenchmarkModel": model_benchmark,
    "memory.v1.MemoryService.TransferBlob": transfer,
    "device.v1.DeviceService.BenchmarkDevice": benchmark,
    "device.v1.DeviceService.ResetDevice": reset,
}
"""Each stream that follows something, and how it is made to have nothing to tell."""
STREAMS = {name.removeprefix("deviceops.") for name, method in METHODS.items() if method.server_streaming}
UNBUILT = STREAMS & {name.removeprefix("deviceops.") for name in NAMES}
"""Shrinks with the list in test_unimplemented: the case of a stream is written with the stream."""


def is_heartbeat(update: Any) -> bool:
    """What a client looks at: nothing set, no event, or the event `heartbeat`."""
    if "last_sequence" in update.DESCRIPTOR.fields_by_name:
        return not update.HasField("event")
    if "event" in update.DESCRIPTOR.fields_by_name:
        return asking.kind(update) == "heartbeat"
    return not update.ListFields()


def test_every_stream_is_finite_or_has_a_case_or_is_not_built() -> None:
    finite = {name.removeprefix("deviceops.") for name in FINITE}
    assert finite | UNBUILT | set(CASES) == STREAMS
    assert len(finite) + len(UNBUILT) + len(CASES) == len(STREAMS)


@pytest.mark.parametrize("name", CASES)
def test_a_stream_speaks_at_once_and_again_after_each_silence(quick: RunningServer, name: str) -> None:
    call = CASES[name](quick)
    try:
        assert next(call) is not None
        for _ in range(2):
            asking.until(call, is_heartbeat)
    finally:
        call.cancel()


def test_a_heartbeat_of_a_job_moves_no_sequence_and_tells_how_long_it_is_quiet(quick: RunningServer) -> None:
    call = watch_job(quick)
    beats = [next(call) for _ in range(4)]
    call.cancel()
    last = asking.job_of(quick, beats[0].event.job_id).last_sequence
    assert {(asking.kind(beat), beat.event.sequence) for beat in beats} == {("heartbeat", last)}
    quiet = [beat.event.heartbeat.quiet_for.ToNanoseconds() / 1e9 for beat in beats]
    assert quiet == sorted(quiet)
    assert quiet[-1] - quiet[0] >= 2.9 * HEARTBEAT_S
    assert beats[0].event.state == job_event_pb2.JOB_STATE_QUEUED


def test_a_heartbeat_of_the_log_tells_where_to_go_on(quick: RunningServer) -> None:
    call = watch_events(quick)
    begin = next(call).last_sequence
    asking.cancel(quick, asking.submit(quick, picture()))
    moved = asking.until(call, lambda update: update.last_sequence > begin)
    call.cancel()
    assert is_heartbeat(moved)


def test_a_server_that_is_told_nothing_keeps_the_contracts_ten_seconds_and_none_is_slower() -> None:
    assert Settings().heartbeat_s == CONTRACT_S == 10
    with pytest.raises(ValidationError, match="heartbeat_s"):
        Settings(heartbeat_s=10.1)
