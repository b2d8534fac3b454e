"""The commands of devices, memory, blobs and events against a real server."""

import json
from pathlib import Path
from typing import TypeVar

import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from deviceops.device.v1 import device_pb2, device_service_pb2
from deviceops.memory.v1 import memory_budget_pb2, memory_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from server.cli.app import run
from server.cli.console.failure import USAGE
from tests.faults.processes import eventually
from tests.server.asking import CALL_S, until
from tests.server.harness import RunningServer, running_server

AnyMessage = TypeVar("AnyMessage", bound=Message)


@pytest.fixture(scope="module", autouse=True)
def _ready(server: RunningServer) -> None:
    """The first look for devices is finished; the log of changes keeps it, however late we come."""
    chosen = processing_service_pb2.SystemEventFilter(kinds=["device"])
    call = server.processing.WatchEvents(
        processing_service_pb2.WatchEventsRequest(after_sequence=0, filter=chosen), timeout=CALL_S
    )
    until(call, lambda update: update.event.device.state == device_pb2.DEVICE_STATE_AVAILABLE)
    call.cancel()


@pytest.fixture(autouse=True)
def _address(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)


class Ask:
    """Runs commands; all of them must end well."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def text(self, *command: str) -> str:
        """What it prints on stdout."""
        self._capsys.readouterr()
        assert run(command) == 0
        return self._capsys.readouterr().out

    def json(self, message: AnyMessage, *command: str) -> AnyMessage:
        """Its last line of --json, which must be such a message."""
        out = self.text(*command, "--json")
        return json_format.Parse(out if out.startswith("{\n") else out.splitlines()[-1], message)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    return Ask(capsys)


def test_devices_tell_how_they_are(ask: Ask):
    (line,) = (line for line in ask.text("devices", "--all").splitlines() if line.startswith("cpu"))
    assert "GiB" in line
    assert "–" in line, "power or temperature of this CPU cannot be measured, and no figure is invented"
    assert ask.json(device_service_pb2.ListDevicesResponse(), "devices").devices[0].id == "cpu"


def test_devices_are_watched(ask: Ask):
    flags = ("devices", "--watch", "--rounds", "2", "--interval", "0.1")
    assert ask.text(*flags).count("\ncpu ") == 2
    assert ask.json(device_service_pb2.WatchDeviceStatusResponse(), *flags).statuses[0].HasField("used_memory_bytes")


def test_the_history_of_devices_is_drawn(ask: Ask, server: RunningServer):
    watching = server.device.WatchDeviceStatus(device_service_pb2.WatchDeviceStatusRequest(), timeout=CALL_S)
    until(watching, lambda answer: len(answer.statuses) > 0)
    watching.cancel()
    told = ask.text("devices", "--history", "--minutes", "10")
    (memory,) = (line for line in told.splitlines() if line.startswith("memory "))
    assert "GiB" in memory
    assert "fan" not in told, "no row where nothing was measured"
    answer = ask.json(device_service_pb2.QueryDeviceHistoryResponse(), "devices", "--history", "cpu:0")
    assert answer.history.device_id == "cpu"
    assert any(sample.HasField("used_memory_bytes") for sample in answer.history.samples)


def test_a_device_is_checked(ask: Ask):
    assert "cpu is healthy" in ask.text("device", "check", "cpu")
    report = ask.json(device_service_pb2.CheckDeviceHealthResponse(), "device", "check", "cpu").report
    assert {check.name for check in report.checks} >= {"allocate", "compute", "verify"}


def test_a_device_is_switched_and_limited_with_a_cause(ask: Ask):
    try:
        assert "cpu is draining" in ask.text("device", "drain", "cpu", "--cause", "patch day")
        answer = ask.json(device_service_pb2.UpdateDeviceResponse(), "device", "disable", "cpu")
        assert not answer.device.settings.enabled
    finally:
        told = ask.text("device", "enable", "cpu")
    assert "cpu is disabled" not in told
    assert "2 at once" in ask.text("device", "limit", "cpu", "--jobs", "2")
    answer = ask.json(device_service_pb2.UpdateDeviceResponse(), "device", "limit", "cpu", "--jobs", "default")
    assert not answer.device.settings.HasField("max_concurrent_jobs")
    assert "patch day" in ask.text("events", "--after", "0", "--kind", "device.settings_changed", "--limit", "1")


def test_a_benchmark_is_followed_to_its_figures(ask: Ask):
    flags = ("device", "benchmark", "cpu", "--suite", "memory", "--seconds", "10")
    assert "GiB/s" in ask.text(*flags)
    last = ask.json(device_service_pb2.BenchmarkDeviceResponse(), *flags)
    assert last.event.WhichOneof("kind") == "succeeded"
    assert last.device_benchmark_report.results


def test_a_reset_is_followed_to_its_report(ask: Ask):
    assert "cpu is " in ask.text("device", "reset", "cpu", "--content")
    last = ask.json(device_service_pb2.ResetDeviceResponse(), "device", "reset", "cpu", "--content", "--drain", "5")
    assert last.device_reset_report.device.id == "cpu"


def test_advice_changes_nothing(ask: Ask):
    before = ask.json(device_service_pb2.ListDevicesResponse(), "devices")
    assert "latency" in ask.text("device", "advise", "cpu", "--goal", "latency")
    flags = ("device", "advise", "cpu", "--goal", "memory")
    assert ask.json(device_service_pb2.RecommendDeviceSettingsResponse(), *flags).advice.rationale
    assert ask.json(device_service_pb2.ListDevicesResponse(), "devices").devices[0].etag == before.devices[0].etag


def test_memory_tells_pools_and_owners(ask: Ask):
    told = ask.text("memory", "--owners")
    assert "\nhost " in told
    assert "runtime" in told
    pools = ask.json(memory_service_pb2.ListMemoryPoolsResponse(), "memory").memory_pools
    assert [pool.id for pool in pools] == ["host", "disk"]


def test_memory_is_watched(ask: Ask):
    flags = ("memory", "--watch", "--rounds", "2", "--interval", "0.1")
    assert ask.text(*flags).count("\nhost ") == 2
    assert ask.json(memory_service_pb2.WatchMemoryPoolsResponse(), *flags).memory_pools


def test_a_budget_is_tried_set_and_given_up(ask: Ask):
    def limit() -> int | None:
        pools = ask.json(memory_service_pb2.ListMemoryPoolsResponse(), "memory").memory_pools
        return pools[0].budget.limit_bytes if pools[0].budget.HasField("limit_bytes") else None

    before = limit()
    assert "would set the limit to 1.0 TiB" in ask.text("memory", "budget", "host", "--limit", "1TiB", "--dry-run")
    assert limit() == before
    assert "1.0 TiB" in ask.text("memory", "budget", "host", "--limit", "1TiB")
    assert limit() == 1 << 40
    assert "limit none" in ask.text("memory", "budget", "host", "--limit", "none")
    ask.json(memory_service_pb2.SetMemoryBudgetResponse(), "memory", "budget", "host", "--limit", "default")
    assert limit() == before


def test_memory_is_reclaimed_with_a_report(ask: Ask):
    ask.text("memory", "reclaim", "host", "--level", "caches", "--dry-run")
    assert "host: used " in ask.text("memory", "reclaim", "host", "--level", "caches")
    flags = ("memory", "reclaim", "host", "--level", "caches")
    assert ask.json(memory_service_pb2.ReclaimMemoryResponse(), *flags).report.HasField("after")


def test_owners_and_a_clean_up_agree_on_what_may_go_and_after_how_long(
    server: RunningServer, ask: Ask, capsys: pytest.CaptureFixture[str]
):
    def idle_after(seconds: int) -> None:
        budget = memory_budget_pb2.MemoryBudget(idle_after=Duration(seconds=seconds))
        request = memory_service_pb2.SetMemoryBudgetRequest(memory_pool_id="host", memory_budget=budget)
        server.memory.SetMemoryBudget(request, timeout=CALL_S)

    def may_go() -> str:
        rows = (line for line in ask.text("memory", "--owners").splitlines() if " emoji-sd@cpu " in line)
        return next(rows, "").partition("MiB")[2].strip()

    def taken() -> str:
        assert run(["memory", "reclaim", "host", "--level", "idle", "--dry-run"]) == 0
        told = capsys.readouterr()
        return told.out + told.err

    ask.text("models", "load", "emoji-sd")
    idle_after(3600)
    eventually(lambda: may_go().startswith("in "))
    told = taken()
    assert "emoji-sd@cpu" not in told
    assert "idle 60 min 00 s after their last use" in told
    idle_after(1)
    eventually(lambda: may_go() == "yes")
    assert "emoji-sd@cpu" in taken()
    ask.text("memory", "budget", "host", "--limit", "default")


def test_memory_tells_its_past(ask: Ask):
    told = ask.text("memory", "history", "host")
    assert "used" in told
    assert "0 allocations failed" in told
    assert ask.json(memory_service_pb2.QueryMemoryHistoryResponse(), "memory", "history", "host").history.samples


def test_a_blob_goes_up_and_comes_back(tmp_path: Path, ask: Ask):
    file, back = tmp_path / "noise.png", tmp_path / "back.png"
    file.write_bytes(bytes(range(256)) * 5000)
    blob_id = ask.text("blobs", "put", str(file)).strip()
    assert blob_id in ask.text("blobs")
    assert blob_id in {blob.id for blob in ask.json(memory_service_pb2.ListBlobsResponse(), "blobs").blobs}
    assert ask.text("blobs", "get", blob_id, "--out", str(back)).strip() == str(back)
    assert back.read_bytes() == file.read_bytes()
    assert run(["blobs", "get", blob_id, "--out", str(back)]) == USAGE
    answer = ask.json(memory_service_pb2.GetBlobResponse(), "blobs", "get", blob_id, "--out", str(back), "--force")
    assert answer.blob.media_type == "image/png"
    assert "is deleted" in ask.text("blobs", "rm", blob_id)
    assert run(["blobs", "rm", blob_id]) == 1
    again = ask.json(memory_service_pb2.UploadBlobResponse(), "blobs", "put", str(file), "--tier", "host")
    assert not ask.json(memory_service_pb2.DeleteBlobResponse(), "blobs", "rm", again.blob.id).deferred


def test_a_file_outside_the_roots_is_not_registered(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "x").write_bytes(b"x")
    assert run(["blobs", "register", str(tmp_path / "x"), "--json"]) == 1
    assert "PATH_OUTSIDE_ROOTS" in capsys.readouterr().err


def test_events_are_one_a_line_with_sequence(ask: Ask):
    flags = ("events", "--after", "0", "--limit", "1", "--resource", "cpu")
    assert [line.split()[3] for line in ask.text(*flags).splitlines()][:1] == ["device.appeared"]
    event = ask.json(processing_service_pb2.WatchEventsResponse(), *flags).event
    assert event.resource_id == "cpu"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["device", "check", "nope"], "DEVICE_NOT_FOUND"),
        (["device", "enable", "nope"], "DEVICE_NOT_FOUND"),
        (["device", "disable", "nope"], "DEVICE_NOT_FOUND"),
        (["device", "drain", "nope"], "DEVICE_NOT_FOUND"),
        (["device", "limit", "nope", "--jobs", "1"], "DEVICE_NOT_FOUND"),
        (["device", "limit", "cpu", "--temperature", "9000"], "settings.max_temperature_celsius"),
        (["device", "benchmark", "nope"], "DEVICE_NOT_FOUND"),
        (["device", "reset", "nope"], "DEVICE_NOT_FOUND"),
        (["device", "advise", "nope"], "DEVICE_NOT_FOUND"),
        (["memory", "budget", "nope", "--limit", "1GiB"], "MEMORY_POOL_NOT_FOUND"),
        (["memory", "reclaim", "nope"], "MEMORY_POOL_NOT_FOUND"),
        (["memory", "history", "nope"], "MEMORY_POOL_NOT_FOUND"),
        (["blobs", "get", "nope", "--out", "never-written"], "BLOB_NOT_FOUND"),
        (["blobs", "rm", "nope"], "BLOB_NOT_FOUND"),
        (["blobs", "put", __file__, "--tier", "device", "--device", "nope"], "DEVICE_NOT_FOUND"),
    ],
)
def test_a_bad_id_is_told_in_a_sentence(command: list[str], reason: str, capsys: pytest.CaptureFixture[str]):
    assert run([*command, "--json"]) == 1
    told = capsys.readouterr()
    assert reason in told.err
    assert not told.out
    assert not Path("never-written").exists()


def test_json_of_a_failed_check_is_still_json(ask: Ask):
    assert json.loads(ask.text("device", "check", "cpu", "--json"))["report"]["deviceId"] == "cpu"


def test_a_file_of_another_process_is_registered_and_read(tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch):
    file, back = tmp_path / "image.bin", tmp_path / "back.bin"
    file.write_bytes(b"bytes of another process")
    with running_server("--device", "cpu", "--blob-root", str(tmp_path)) as own:
        monkeypatch.setenv("DEVICEOPS_ADDRESS", own.address)
        assert ask.text("blobs", "register", str(file), "--id", "picture-in") == "picture-in\n"
        file.write_bytes(b"other bytes of that process")
        answer = ask.json(
            memory_service_pb2.RegisterBlobResponse(), "blobs", "register", str(file), "--id", "picture-in"
        )
        assert answer.blob.generation == 2
        ask.text("blobs", "get", "picture-in", "--out", str(back))
    assert back.read_bytes() == file.read_bytes()
