"""Models that come into the roots, change there and go away are known without a scan."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deviceops.common.v1 import error_pb2
from deviceops.model.v1 import model_pb2, model_service_pb2, model_work_pb2
from domains.model.catalogue import EMBEDDED
from server.cli.app import run
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.sim import Event, Events

VAE = "vae/diffusion_pytorch_model.safetensors"
POLL = ("--model-poll-s", "0.1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(EMBEDDED / "emoji-sd", root / "there")
    outside = tmp_path_factory.mktemp("outside")
    (root / "leads-out").symlink_to(outside)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), *POLL) as running:
        yield running


@pytest.fixture
def events(server: RunningServer) -> Iterator[Events]:
    events = Events(server)
    yield events
    events.close()


def told(events: Events, kind: str, model_id: str) -> Event:
    return events.until(lambda event: (event.kind, event.resource_id) == (f"model.{kind}", model_id))


def state(server: RunningServer, model_id: str) -> str:
    model = server.model.GetModel(model_service_pb2.GetModelRequest(model_id=model_id)).model
    return model_pb2.ModelState.Name(model.state)


def test_the_models_in_the_roots_are_known_after_the_start_without_a_scan(
    server: RunningServer, events: Events
) -> None:
    told(events, "added", "there")
    assert state(server, "there") == "MODEL_STATE_AVAILABLE"


def test_a_model_that_is_put_into_a_root_appears_and_is_missing_when_it_went(
    server: RunningServer, events: Events, root: Path
) -> None:
    shutil.copytree(root / "there", root / "new")
    assert told(events, "added", "new").severity == error_pb2.SEVERITY_INFO
    assert state(server, "new") == "MODEL_STATE_AVAILABLE"
    shutil.rmtree(root / "new")
    gone = told(events, "missing", "new")
    assert gone.severity == error_pb2.SEVERITY_WARNING
    assert "cannot be" in gone.message or "no model any more" in gone.message
    assert state(server, "new") == "MODEL_STATE_MISSING"


def test_what_could_not_be_taken_is_listed_with_its_reason_on_the_first_page(
    server: RunningServer, events: Events, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(events, "added", "there")
    page = server.model.ListModels(model_service_pb2.ListModelsRequest(page_size=1))
    (failure,) = page.failures
    assert failure.path == str(root / "leads-out")
    assert failure.failure.reason == error_pb2.ERROR_REASON_PATH_OUTSIDE_ROOTS
    second = model_service_pb2.ListModelsRequest(page_token=page.next_page_token)
    assert not server.model.ListModels(second).failures
    assert run(["models", "--address", server.address]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(failure.path))
    assert "PATH_OUTSIDE_ROOTS" in line


def test_changed_files_of_a_loaded_model_are_told_with_the_command_that_replaces_it(
    server: RunningServer, events: Events, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "there", root / "changing")
    told(events, "added", "changing")
    load = model_service_pb2.LoadModelRequest(model_load=model_work_pb2.ModelLoad(model_id="changing"))
    asking.journal_of(server.model.LoadModel(load, timeout=asking.CALL_S))
    data = bytearray((root / "changing" / VAE).read_bytes())
    data[-1] ^= 1
    (root / "changing" / VAE).write_bytes(data)
    told(events, "changed", "changing")
    assert run(["models", "--address", server.address]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("changing@cpu: "))
    assert "`deviceops models load changing --device cpu`" in line


def test_without_a_poll_only_a_scan_looks(root: Path) -> None:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as quiet:
        request = model_service_pb2.ScanModelsRequest()
        report = asking.journal_of(quiet.model.ScanModels(request, timeout=asking.CALL_S))[-1].report
        assert "there" in report.added_model_ids
