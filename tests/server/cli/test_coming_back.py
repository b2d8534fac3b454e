"""A picture outlives the command that asked for it: its terminal, its process, its connection."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf import json_format
from grpc_status import rpc_status

from deviceops.common.v1 import image_pb2, job_event_pb2
from deviceops.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse
from deviceops.memory.v1 import memory_service_pb2
from deviceops.processing.v1 import job_pb2
from deviceops.processing.v1 import processing_service_pb2 as pb
from domains.errors import NotFound
from server.cli.app import run
from server.cli.calls.connection import Connection
from server.cli.calls.following import Cursor, follow
from server.cli.console.failure import USAGE, CliError
from server.cli.generation.pictures import save_blob
from server.cli.generation.run import GenerationRun
from server.errors import status_of
from tests.server import asking
from tests.server.cli.peer import peer
from tests.server.cli.running import SLOW, SMALL, await_line, in_background
from tests.server.harness import RunningServer


@pytest.fixture(autouse=True)
def _address(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)


def test_the_end_of_the_terminal_does_not_end_the_picture(tmp_path: Path):
    file = tmp_path / "owl.png"
    process = in_background("generate", "an owl", *SMALL, "--steps", "40", "--out", str(file))
    await_line(process, "denoising")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert file.exists()


def test_a_command_that_is_killed_says_how_to_come_back_and_the_job_goes_on(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "owl.png"
    process = in_background("generate", "an owl", *SMALL, "--steps", "40", "--out", str(file))
    told = await_line(process, "To come back")
    process.kill()
    process.communicate()
    command = told.split("deviceops ", 1)[1].split()
    assert command == ["watch", command[1], "--out", str(file)]
    assert asking.job_of(server, command[1]).detached
    assert run(command) == 0
    assert capsys.readouterr().out.splitlines() == [str(file)]
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_detached_job_returns_at_once_with_its_id(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "owl.webp"
    assert run(["generate", "an owl", *SLOW, "--out", str(file), "--count", "2", "--detach"]) == 0
    told = capsys.readouterr()
    job_id = told.out.strip()
    job = asking.job_of(server, job_id)
    assert not job.HasField("end_time")
    assert (job.request_id != "", job.spec.generation.image_count) == (True, 2)
    assert f"deviceops watch {job_id} --out {file}" in told.err
    asking.cancel(server, job_id)
    asking.watch(server, job_id)


def test_a_detached_job_needs_a_server_that_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--detach", "--out", str(tmp_path / "x.png"), "--address", f"unix:{tmp_path}/none"]
    assert run(["generate", "an owl", *flags]) == USAGE
    assert "there is no such socket" in capsys.readouterr().err


def test_pictures_of_an_ended_job_are_written_once_and_numbered(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    job_id = asking.submit(server, asking.picture(count=2))
    last = asking.watch(server, job_id)[-1].event.sequence
    files = [tmp_path / "a-1.png", tmp_path / "a-2.png"]
    assert run(["watch", job_id, "--out", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out.splitlines() == list(map(str, files))
    assert run(["watch", job_id, "--out", str(tmp_path / "a.png")]) == USAGE
    assert run(["watch", job_id, "--out", str(tmp_path / "a.png"), "--force", "--after", str(last)]) == 0
    assert sorted(tmp_path.iterdir()) == files


def test_what_cannot_be_written_is_told_before_the_job_is_followed(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    job_id = asking.submit(server, asking.picture())
    assert run(["watch", job_id, "--out", str(tmp_path / "a.jpg")]) == USAGE
    assert "makes image/png" in capsys.readouterr().err
    assert run(["models", "--scan"]) == 0
    capsys.readouterr()
    assert run(["jobs", "--json", "--limit", "1"]) == 0
    scan = json_format.Parse(capsys.readouterr().out, pb.ListJobsResponse()).jobs[0]
    assert run(["watch", scan.id, "--out", str(tmp_path / "a.png")]) == USAGE
    assert "makes no pictures (scan all model roots)" in capsys.readouterr().err


def test_leaving_before_the_server_has_answered_stops_the_job_by_its_request():
    asked = threading.Event()
    cancelled: list[str] = []

    def generate(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        asked.set()
        assert ended.wait(60)
        yield from ()

    def listed(request: pb.ListJobsRequest, context: grpc.ServicerContext) -> pb.ListJobsResponse:
        jobs = [job_pb2.Job(id="job-9")] if request.filter.request_id == "r-9" else []
        return pb.ListJobsResponse(jobs=jobs)

    def cancel(request: pb.CancelJobRequest, context: grpc.ServicerContext) -> pb.CancelJobResponse:
        cancelled.append(request.job_id)
        return pb.CancelJobResponse()

    ended = threading.Event()
    processing = {"ListJobs": _unary(listed, pb.ListJobsRequest), "CancelJob": _unary(cancel, pb.CancelJobRequest)}
    inference = {"Generate": _stream(generate, GenerateRequest, GenerateResponse)}
    with (
        peer("deviceops.inference.v1.InferenceService", inference) as one,
        peer("deviceops.processing.v1.ProcessingService", processing) as other,
        Connection(one) as connection,
        Connection(other) as beside,
    ):
        connection.__dict__["processing"] = beside.processing
        run_ = GenerationRun(connection, GenerateRequest(detached=True, request_id="r-9"))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            work = pool.submit(run_.work)
            assert asked.wait(60)
            run_.leave()
            ended.set()
            assert isinstance(work.exception(60), grpc.RpcError)
    assert cancelled == ["job-9"]


def _unary(behaviour: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=request.FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )


def _stream(behaviour: Any, request: Any, response: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_stream_rpc_method_handler(
        behaviour, request_deserializer=request.FromString, response_serializer=response.SerializeToString
    )


def test_a_client_that_is_cut_names_the_blob_and_the_command_that_gets_it(tmp_path: Path):
    def read(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield memory_service_pb2.ReadBlobResponse(data=b"12")
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    handler = _stream(read, memory_service_pb2.ReadBlobRequest, memory_service_pb2.ReadBlobResponse)
    file = image_pb2.ImageFile(blob_id="blob-77", size_bytes=4)
    with (
        peer("deviceops.memory.v1.MemoryService", {"ReadBlob": handler}) as address,
        Connection(address) as connection,
        pytest.raises(CliError) as told,
    ):
        save_blob(connection, file, tmp_path / "my apple.png", force=False)
    assert f"deviceops blobs get blob-77 --out '{tmp_path}/my apple.png'" in told.value.message
    assert not list(tmp_path.iterdir())


def _watched(behaviour: Any, reconnect_s: float) -> CliError:
    handler = _stream(behaviour, pb.WatchJobRequest, pb.WatchJobResponse)
    with (
        peer("deviceops.processing.v1.ProcessingService", {"WatchJob": handler}) as address,
        pytest.raises(CliError) as told,
        Connection(address) as connection,
    ):
        list(follow(connection, Cursor("job-1"), reconnect_s))
    return told.value


def _event() -> pb.WatchJobResponse:
    event = job_event_pb2.JobEvent(job_id="job-1", sequence=3, started=job_event_pb2.JobStarted(device_id="cpu"))
    return pb.WatchJobResponse(event=event)


def test_a_job_that_a_server_came_back_without_is_called_lost():
    calls: list[pb.WatchJobRequest] = []

    def watch(request: pb.WatchJobRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchJobResponse]:
        calls.append(request)
        if len(calls) > 1:
            context.abort_with_status(rpc_status.to_status(status_of(NotFound("no job", job_id="job-1"))))
        yield _event()
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    told = _watched(watch, 30)
    assert "job job-1 is lost" in told.message
    assert calls[1].after_sequence == 3


def test_a_server_that_stays_away_is_called_unreachable_with_the_way_back():
    def watch(request: pb.WatchJobRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchJobResponse]:
        yield _event()
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    told = _watched(watch, 0)
    assert "cannot be reached" in told.message
    assert told.message.endswith("deviceops watch job-1 --after 3")


def test_a_job_that_nobody_knows_is_not_called_lost():
    def watch(request: pb.WatchJobRequest, context: grpc.ServicerContext) -> NoReturn:
        context.abort_with_status(rpc_status.to_status(status_of(NotFound("there is no job", job_id="job-1"))))
        raise AssertionError("abort always raises")

    assert "JOB_NOT_FOUND" in _watched(watch, 0).message


def test_previews_are_not_overwritten_without_force(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "1-0005.jpg").write_bytes(b"mine")
    for command in (["generate", "x", "--out", str(tmp_path / "x.png")], ["watch", "job-1"]):
        assert run([*command, "--previews", str(folder)]) == USAGE
        assert "has previews already" in capsys.readouterr().err
    assert (folder / "1-0005.jpg").read_bytes() == b"mine"
    command = ["generate", "x", "--out", str(tmp_path / "x.png"), "--steps", "10", "--force"]
    assert run([*command, "--previews", str(folder)]) == 0


def test_a_preview_that_cannot_be_written_costs_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from server.cli.generation.previews import PreviewFolder

    keep = PreviewFolder(tmp_path / "gone")
    event = job_event_pb2.JobEvent(preview=job_event_pb2.JobPreview(step=5, data=b"x", media_type="image/jpeg"))
    for _ in range(2):
        keep(pb.WatchJobResponse(event=event))
    assert capsys.readouterr().err.count("No more previews") == 1


def test_the_request_says_whose_the_job_is():
    from server.cli.generation.request import Wish, generate_request

    wish = Wish(prompt="x", device="cpu", priority="high")
    assert not generate_request(wish).detached
    request = generate_request(wish, "r-1")
    assert (request.detached, request.request_id) == (True, "r-1")
    assert request.options.devices.device_ids == ["cpu"]
    assert request.options.priority == job_event_pb2.PRIORITY_HIGH
