"""Things are named by a beginning of their id, shown whole, and told about in full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2

from deviceops.common.v1 import error_pb2, job_event_pb2
from deviceops.device.v1 import device_pb2
from deviceops.processing.v1 import job_pb2, system_event_pb2
from deviceops.processing.v1 import processing_service_pb2 as pb
from server.cli.app import run
from server.cli.calls.address import target
from server.cli.console.failure import USAGE, CliError, in_flags
from server.cli.console.waiting import reason_of
from server.cli.jobs.events import KINDS, line
from server.cli.jobs.job import facts
from tests.server import asking
from tests.server.cli.peer import peer
from tests.server.harness import RunningServer


@pytest.fixture(autouse=True)
def _address(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)


def _said(capsys: pytest.CaptureFixture[str], *command: str, status: int = 0) -> str:
    capsys.readouterr()
    assert run(command) == status
    told = capsys.readouterr()
    return told.out if status == 0 else told.err


def test_a_beginning_that_only_one_has_names_a_job(server: RunningServer, capsys: pytest.CaptureFixture[str]):
    job_id = asking.submit(server, asking.picture())
    asking.submit(server, asking.picture(seed=2))
    asking.watch(server, job_id)
    begins = job_id[:-3]
    assert job_id in _said(capsys, "job", "show", begins)
    assert run(["watch", begins]) == 0
    assert f"job {job_id}" in _said(capsys, "cancel", begins, status=1)
    told = _said(capsys, "job", "show", "job-", status=USAGE)
    assert "begins" in told
    assert "write more of it" in told
    assert "JOB_NOT_FOUND" in _said(capsys, "job", "show", "job-none", status=1)


def test_a_beginning_names_devices_pools_models_and_blobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "cpu is healthy" in _said(capsys, "device", "check", "cp")
    assert "cpu," in _said(capsys, "devices", "--history", "cp")
    assert "host:" in _said(capsys, "memory", "reclaim", "ho", "--level", "caches")
    assert "emoji-sd@cpu is loaded" in _said(capsys, "models", "load", "emoji", "--device", "cp")
    (tmp_path / "a.txt").write_bytes(b"bytes")
    blob_id = _said(capsys, "blobs", "put", str(tmp_path / "a.txt")).strip()
    begins = blob_id[:-2]
    _said(capsys, "blobs", "get", begins, "--out", str(tmp_path / "b.txt"))
    assert (tmp_path / "b.txt").read_bytes() == b"bytes"
    assert f"{blob_id} is deleted" in _said(capsys, "blobs", "rm", begins)


def test_a_job_is_shown_with_spec_device_times_and_blobs(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["--device", "cpu", "--priority", "high", "--steps", "2", "--seed", "5", "--width", "64", "--height", "64"]
    assert run(["generate", "a red apple", "--out", str(tmp_path / "a.png"), *flags]) == 0
    capsys.readouterr()
    assert run(["jobs", "--limit", "1"]) == 0
    job_id = capsys.readouterr().out.splitlines()[1].split()[0]
    told = _said(capsys, "job", "show", job_id)
    job = asking.job_of(server, job_id)
    for text in ("prompt: a red apple", "sampling.steps: 2", "succeeded", "cpu", "high", job.request_id):
        assert text in told
    assert job.generation_result.images[0].file.blob_id in told
    assert [name for name in ("created", "started", "ended", "took", "kept until") if name not in told] == []
    assert job_id in _said(capsys, "job", "show", job_id, "--json")


def test_a_session_is_asked_of_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    told = _said(capsys, "generate", "x", "--session", "s-1", "--out", str(tmp_path / "x.png"), status=1)
    assert "SESSION_NOT_FOUND" in told
    assert "s-1" in told


def test_a_waiting_job_says_for_what_and_a_failed_one_why(server: RunningServer, capsys: pytest.CaptureFixture[str]):
    options = job_event_pb2.JobOptions()
    options.queue_timeout.FromMilliseconds(1500)
    with asking.occupied(server):
        waiting = asking.submit(server, asking.picture(), options)
        assert f"{waiting}: waits for its turn: " in _said(capsys, "jobs")
        assert "waits for  its turn: " in _said(capsys, "job", "show", waiting)
        asking.watch(server, waiting)
        told = _said(capsys, "jobs", "--state", "failed")
        (reason,) = (one for one in told.splitlines() if one.startswith(f"{waiting}: "))
        assert "[QUEUE_TIMEOUT]" in reason
        assert "[QUEUE_TIMEOUT]" in _said(capsys, "job", "show", waiting)
        command = (
            "events",
            "--after",
            "0",
            "--resource",
            waiting,
            "--kind",
            "job",
            "--severity",
            "error",
            "--limit",
            "1",
        )
        assert "[QUEUE_TIMEOUT]" in _said(capsys, *command)


def _device(state: device_pb2.DeviceState.ValueType, reason: str = "") -> device_pb2.Device:
    enabled = state != device_pb2.DEVICE_STATE_DISABLED
    settings = device_pb2.DeviceSettings(enabled=enabled)
    return device_pb2.Device(id="cpu", aliases=["cpu:0"], state=state, state_reason=reason, settings=settings)


@pytest.mark.parametrize(
    ("devices", "named", "text"),
    [
        ([], [], "waits for a device: none is there"),
        ([_device(device_pb2.DEVICE_STATE_BUSY)], [], "waits for its turn or memory on cpu"),
        ([_device(device_pb2.DEVICE_STATE_BUSY)], ["cpu:0"], "waits for its turn or memory on cpu"),
        ([_device(device_pb2.DEVICE_STATE_BUSY)], ["sim-1"], "waits for a device: sim-1 is not there"),
        ([_device(device_pb2.DEVICE_STATE_DISABLED)], [], "waits for a device: cpu is disabled"),
        ([_device(device_pb2.DEVICE_STATE_QUARANTINED, "hot")], [], "waits for a device: cpu is quarantined: hot"),
    ],
)
def test_what_a_job_waits_for_follows_from_the_devices(devices: list[device_pb2.Device], named: list[str], text: str):
    job = job_pb2.Job(id="j", state=job_event_pb2.JOB_STATE_QUEUED)
    job.options.devices.device_ids.extend(named)
    assert reason_of(job, devices) == text


def test_a_failed_job_is_shown_with_each_violation():
    failure = error_pb2.Failure(reason=error_pb2.ERROR_REASON_MODEL_CORRUPT, message="the unet is damaged")
    failure.violations.add(field="unet", message="ends early")
    job = job_pb2.Job(id="j", state=job_event_pb2.JOB_STATE_FAILED, failure=failure)
    assert dict(facts(job, []))["failure"].splitlines() == ["the unet is damaged [MODEL_CORRUPT]", "  unet: ends early"]


def test_models_are_validated_and_their_hashes_are_told(capsys: pytest.CaptureFixture[str]):
    said = _said(capsys, "models", "validate", "emoji", "--depth", "values")
    assert "emoji-sd is whole" in said
    assert "0 values NaN or infinite" in said
    assert run(["models", "validate", "emoji-sd", "--sha256", "0" * 64]) == 1
    wrong = capsys.readouterr().out
    assert "error: the model's SHA-256 is" in wrong
    assert "emoji-sd is damaged" in wrong
    assert "emoji-sd is whole" in _said(capsys, "models", "validate", "emoji", "--depth", "execute", "--device", "cpu")
    table = _said(capsys, "models", "hashes", "emoji-sd")
    assert "AutoV3" in table
    assert "unet/diffusion_pytorch_model.safetensors" in table


def test_models_are_loaded_and_unloaded(capsys: pytest.CaptureFixture[str]):
    _said(capsys, "models", "load", "emoji-sd")
    assert "emoji-sd@cpu is loaded" in _said(capsys, "models", "load", "emoji-sd")
    assert "unloaded emoji-sd@cpu" in _said(capsys, "models", "unload", "emoji-sd@cpu")
    _said(capsys, "models", "load", "emoji-sd")
    assert "unloaded emoji-sd@cpu" in _said(capsys, "models", "unload", "--device", "cpu")
    assert run(["models", "unload", "--all"]) == 0
    assert "Nothing of that was loaded." in capsys.readouterr().err
    assert "name what to unload" in _said(capsys, "models", "unload", status=USAGE)
    assert "MODEL_NOT_FOUND" in _said(capsys, "models", "load", "nope", status=1)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost", "write localhost:50051"),
        ("localhost:", "write localhost:50051"),
        ("[::1]", "write [::1]:50051"),
        ("::1:50051", "in brackets"),
        ("host:99999", "1..65535"),
        ("host:port", "write HOST:PORT"),
        ("https://host:1", "no encryption"),
    ],
)
def test_an_address_that_cannot_be_one_says_what_to_write(address: str, said: str):
    with pytest.raises(CliError, match="--address") as told:
        target(address)
    assert said in told.value.message
    assert told.value.exit_code == USAGE


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:50051", "host.example:443", "unix:/a/b", "dns:///h:1"])
def test_an_address_stays_as_it_is(address: str):
    assert target(f"http://{address}/" if address[0].isdigit() else address) == address


@pytest.mark.parametrize("flag", [["--version"], ["-h"], ["generate", "-h"], ["memory", "history", "-h"]])
def test_version_and_help_have_their_usual_flags(flag: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(flag) == 0
    assert "deviceops" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_is_a_script_that_asks_the_program(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert run(["completion", shell]) == 0
    assert "_DEVICEOPS_COMPLETE" in capsys.readouterr().out
    monkeypatch.setenv("_DEVICEOPS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "deviceops mod")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert run([]) == 0
    assert capsys.readouterr().out.split() == ["models"]


def test_an_unknown_kind_of_event_is_refused(capsys: pytest.CaptureFixture[str]):
    assert "nearest: device.lost" in _said(capsys, "events", "--kind", "device.lots", status=USAGE)


def test_every_kind_that_the_server_tells_is_known():
    root = Path(__file__).parents[3]
    sources = [*root.glob("domains/device/*.py"), *root.glob("server/**/*.py"), *root.glob("domains/events*.py")]
    cgroup = {"memory.max", "memory.limit_in_bytes", "memory.stat", "memory.usage_in_bytes", "memory.current"}
    prefixes = "device|job|memory|loaded_model|system|node|blob|reservation|session"
    found = {
        name
        for source in sources
        for name in re.findall(rf'"((?:{prefixes})\.[a-z_]+)"', source.read_text(encoding="utf-8"))
        if name not in cgroup
    }
    assert "device.quarantined" in found
    assert found - set(KINDS) == set()


def test_a_log_whose_beginning_is_gone_says_since_when_it_is(capsys: pytest.CaptureFixture[str]):
    def watch(request: pb.WatchEventsRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        since = timestamp_pb2.Timestamp(seconds=1_700_000_000)
        yield pb.WatchEventsResponse(last_sequence=9, events_missed=True, oldest_event_time=since)
        event = system_event_pb2.SystemEvent(sequence=8, kind="system.started")
        event.event_time.FromSeconds(1_700_000_100)
        yield pb.WatchEventsResponse(last_sequence=9, event=event)

    handler = grpc.unary_stream_rpc_method_handler(
        watch,
        request_deserializer=pb.WatchEventsRequest.FromString,
        response_serializer=pb.WatchEventsResponse.SerializeToString,
    )
    with peer("deviceops.processing.v1.ProcessingService", {"WatchEvents": handler}) as address:
        assert run(["events", "--after", "0", "--limit", "1", "--address", address]) == 0
    told = capsys.readouterr()
    # With the date, for it is not of today.
    since = datetime.fromtimestamp(1_700_000_000).strftime("%Y-%m-%d %H:%M:%S")
    assert told.err == f"Earlier events are gone: this log starts at {since}.\n"
    assert told.out.startswith("2023-11-1")


def test_the_end_of_a_job_is_one_line_with_how_long_and_where():
    event = system_event_pb2.SystemEvent(kind="job.state_changed", resource_id="job-1", message="running → failed")
    event.failure.reason = error_pb2.ERROR_REASON_NUMERIC_FAILURE
    event.failure.message = "NaN in step 3"
    event.job.receipt.device_id = "cpu"
    event.job.receipt.run_time.FromSeconds(3)
    assert line(event).endswith("running → failed; NaN in step 3 [NUMERIC_FAILURE]; 3.0 s on cpu")


def test_fields_of_the_request_are_named_as_flags_of_the_command(capsys: pytest.CaptureFixture[str]):
    import typer

    app = typer.Typer()

    @app.command()
    def reset(force: bool = typer.Option(False, "--force")) -> None:
        print(in_flags("2 jobs run: set `force` to interrupt them; `other` stays"))

    app([], standalone_mode=False)
    assert capsys.readouterr().out == "2 jobs run: use `--force` to interrupt them; `other` stays\n"
    assert in_flags("set `force`") == "set `force`"
    assert reset
