"""Models are named, marked, forgotten and listed as callers ask; their files are never touched."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from deviceops.common.v1 import label_pb2
from deviceops.model.v1 import model_pb2, model_service_pb2, model_work_pb2
from domains.model.catalogue import EMBEDDED
from tests.domains.model.folders import age, write_model
from tests.server import asking
from tests.server.harness import RunningServer, running_server

pb = model_service_pb2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for number in range(7):
        age(write_model(root / f"m-{number}", float(number)))
    # No links: one changes the time of the embedded files, which a server of another test may be reading.
    shutil.copytree(EMBEDDED / "emoji-sd", root / "real")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        scan(running)
        yield running


def scan(server: RunningServer) -> Any:
    return asking.journal_of(server.model.ScanModels(pb.ScanModelsRequest()))[-1].report


def update(server: RunningServer, model_id: str, labels: dict[str, str] | None = None, **asked: Any) -> model_pb2.Model:
    marks = [label_pb2.Label(key=key, value=value) for key, value in (labels or {}).items()]
    return server.model.UpdateModel(pb.UpdateModelRequest(model_id=model_id, set_labels=marks, **asked)).model


def listed(server: RunningServer, *, order: Any = pb.MODEL_ORDER_UNSPECIFIED, **wanted: Any) -> list[str]:
    request = pb.ListModelsRequest(filter=pb.ModelFilter(**wanted), order=order)
    return [model.id for model in server.model.ListModels(request).models]


def get(server: RunningServer, model_id: str) -> model_pb2.Model:
    return server.model.GetModel(pb.GetModelRequest(model_id=model_id)).model


def test_labels_and_names_are_changed_listed_and_survive_a_scan(server: RunningServer) -> None:
    before = get(server, "m-0")
    model = update(server, "m-0", {"style": "ink", "owner": "a"}, display_name="The First")
    assert (model.display_name, {label.key: label.value for label in model.labels}) == (
        "The First",
        {"style": "ink", "owner": "a"},
    )
    assert model.etag != before.etag
    assert model.HasField("update_time")
    assert listed(server, labels=[label_pb2.Label(key="style")]) == ["m-0"]
    assert listed(server, labels=[label_pb2.Label(key="style", value="oil")]) == []
    assert listed(server, text="the first") == ["m-0"]
    assert update(server, "m-0", {"style": "ink"}).etag == model.etag, "nothing has changed"
    assert not scan(server).changed_model_ids
    assert get(server, "m-0").etag == model.etag
    plain = update(server, "m-0", remove_label_keys=["style", "owner", "none"], display_name="")
    assert (plain.display_name, list(plain.labels)) == ("m-0", [])


def test_an_edit_of_something_else_than_was_read_is_refused(server: RunningServer) -> None:
    read = get(server, "m-1").etag
    newer = update(server, "m-1", {"a": "b"}, etag=read)
    refusal = asking.refused(lambda: update(server, "m-1", {"a": "c"}, etag=read))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert get(server, "m-1").etag == newer.etag


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"set_labels": [label_pb2.Label(key="")]}, "set_labels"),
        ({"set_labels": [label_pb2.Label(key="a", value="1"), label_pb2.Label(key="a", value="2")]}, "set_labels"),
        ({"set_labels": [label_pb2.Label(key=str(number)) for number in range(33)]}, "set_labels"),
        ({"display_name": "x" * 256}, "display_name"),
    ],
)
def test_a_malformed_edit_changes_nothing(server: RunningServer, asked: dict[str, Any], field: str) -> None:
    before = get(server, "m-2")
    request = pb.UpdateModelRequest(model_id="m-2", **asked)
    refusal = asking.refused(lambda: server.model.UpdateModel(request))
    assert (refusal.reason, set(refusal.fields)) == ("INVALID_FIELD", {field})
    assert get(server, "m-2") == before


def test_forgetting_touches_no_file_and_the_next_scan_finds_it_again(server: RunningServer, root: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in (root / "m-3").rglob("*")}
    update(server, "m-3", {"a": "b"})
    server.model.ForgetModel(pb.ForgetModelRequest(model_id="m-3"))
    assert asking.refused(lambda: get(server, "m-3")).reason == "MODEL_NOT_FOUND"
    assert "m-3" not in listed(server)
    again = asking.refused(lambda: server.model.ForgetModel(pb.ForgetModelRequest(model_id="m-3")))
    assert again.reason == "MODEL_NOT_FOUND"
    assert {path: path.stat().st_mtime_ns for path in (root / "m-3").rglob("*")} == files
    assert list(scan(server).added_model_ids) == ["m-3"]
    assert list(get(server, "m-3").labels) == []


def test_a_model_that_is_used_or_embedded_is_not_forgotten(server: RunningServer) -> None:
    load = pb.LoadModelRequest(model_load=model_work_pb2.ModelLoad(model_id="real"))
    asking.journal_of(server.model.LoadModel(load))
    for model_id, why in (("real", "loaded as real@cpu"), ("emoji-sd", "part of the server")):
        request = pb.ForgetModelRequest(model_id=model_id)
        refusal = asking.refused(lambda request=request: server.model.ForgetModel(request))
        assert (refusal.reason, why in refusal.message) == ("ILLEGAL_STATE", True)
    assert listed(server, loaded_on_device_ids=["cpu"]) == ["real"]
    assert asking.refused(lambda: listed(server, loaded_on_device_ids=["nope"])).reason == "DEVICE_NOT_FOUND"
    server.model.UnloadModel(pb.UnloadModelRequest(model_id="real"))
    stale = asking.refused(lambda: server.model.ForgetModel(pb.ForgetModelRequest(model_id="real", etag="old")))
    assert stale.reason == "ETAG_MISMATCH"


ORDERS = pb.MODEL_ORDER_UNSPECIFIED, pb.MODEL_ORDER_DISPLAY_NAME, pb.MODEL_ORDER_SIZE, pb.MODEL_ORDER_UPDATE_TIME


@pytest.mark.parametrize("order", ORDERS)
def test_pages_repeat_and_skip_no_model_while_others_come_and_go(server: RunningServer, order: Any) -> None:
    scan(server)
    whole = listed(server, order=order)
    seen: list[str] = []
    token, gone = "", ""
    while True:
        answer = server.model.ListModels(pb.ListModelsRequest(page_size=3, page_token=token, order=order))
        seen += [model.id for model in answer.models]
        token = answer.next_page_token
        if not token:
            break
        if not gone:
            # The page's last model, behind which the next page begins, and the first go.
            gone = next(name for name in seen[::-1] if name.startswith("m-"))
            server.model.ForgetModel(pb.ForgetModelRequest(model_id=gone))
    assert seen == whole
    scan(server)


def test_a_token_of_another_order_is_refused(server: RunningServer) -> None:
    token = server.model.ListModels(pb.ListModelsRequest(page_size=1)).next_page_token
    for order, text in ((pb.MODEL_ORDER_SIZE, token), (pb.MODEL_ORDER_UNSPECIFIED, "AAAA")):
        request = pb.ListModelsRequest(page_token=text, order=order)
        assert asking.refused(lambda request=request: server.model.ListModels(request)).fields == ["page_token"]


def test_the_one_changed_last_comes_first(server: RunningServer) -> None:
    update(server, "m-5", {"touched": "1"})
    assert listed(server, order=pb.MODEL_ORDER_UPDATE_TIME)[0] == "m-5"


def test_labels_survive_a_restart(tmp_path: Path) -> None:
    age(write_model(tmp_path / "kept"))
    with running_server("--device", "cpu", "--model-root", str(tmp_path), "--model-poll-s", "0") as server:
        scan(server)
        before = update(server, "kept", {"a": "b"}, display_name="Kept")
        server.stop()
        server.start()
        assert get(server, "kept").etag == before.etag
