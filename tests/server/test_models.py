"""Models on disk and on devices: good ones, and every way of being broken."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from deviceops.common.v1 import error_pb2, image_pb2, job_event_pb2
from deviceops.model.v1 import loaded_model_pb2, model_pb2, model_service_pb2, model_work_pb2
from domains.model.catalogue import EMBEDDED
from tests.server import asking
from tests.server.asking import kind, picture
from tests.server.harness import RunningServer, running_server

EVERYTHING = model_service_pb2.EveryLoadedModel()
VAE = "vae/diffusion_pytorch_model.safetensors"


def rewrite(folder: Path, data: bytes) -> None:
    """Put other bytes in place of the VAE's file, which shares its inode with the other models' until then."""
    (folder / VAE).unlink()
    (folder / VAE).write_bytes(data)


def with_header(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The same file with another header before its tensors."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def truncated(folder: Path) -> None:
    data = (folder / VAE).read_bytes()
    rewrite(folder, data[: len(data) // 2])


def huge_header(folder: Path) -> None:
    data = (folder / VAE).read_bytes()
    rewrite(folder, (8 * 1024**3).to_bytes(8, "little") + data[8:])


def overlapping(folder: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        names = [name for name in header if name != "__metadata__"]
        names.sort(key=lambda name: header[name]["data_offsets"][0])
        first, second = header[names[0]], header[names[1]]
        length = second["data_offsets"][1] - second["data_offsets"][0]
        second["data_offsets"] = [first["data_offsets"][0], first["data_offsets"][0] + length]

    rewrite(folder, with_header((folder / VAE).read_bytes(), change))


def wrong_dtype(folder: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        name = next(name for name in header if name != "__metadata__")
        header[name]["dtype"] = "F33"

    rewrite(folder, with_header((folder / VAE).read_bytes(), change))


def no_header(folder: Path) -> None:
    rewrite(folder, b"\x03")


def broken_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    (folder / "model_index.json").write_text("{")


def pickle_only(folder: Path) -> None:
    (folder / VAE).unlink()
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")


def without_a_part(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


CORRUPT: dict[str, Callable[[Path], None]] = {
    "truncated": truncated,
    "huge-header": huge_header,
    "overlapping": overlapping,
    "wrong-dtype": wrong_dtype,
    "no-header": no_header,
    "broken-index": broken_index,
}
UNUSABLE: dict[str, Callable[[Path], None]] = {"pickle-only": pickle_only, "without-a-part": without_a_part}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: one good, the others broken each in its way."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(EMBEDDED / "emoji-sd", root / "good")
    for name, spoil in (CORRUPT | UNUSABLE).items():
        shutil.copytree(root / "good", root / name, copy_function=os.link)
        spoil(root / name)
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree(root / "good", outside / "secret", copy_function=os.link)
    (root / "leads-out").symlink_to(outside / "secret")
    shutil.copytree(root / "good", root / "file-leads-out", copy_function=os.link)
    (root / "file-leads-out" / VAE).unlink()
    (root / "file-leads-out" / VAE).symlink_to(outside / "secret" / VAE)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        yield running


@pytest.fixture(scope="module")
def scan(server: RunningServer) -> list[Any]:
    """The first scan."""
    return scanned(server)


def scanned(server: RunningServer, *roots: str) -> list[Any]:
    request = model_service_pb2.ScanModelsRequest(model_scan=model_work_pb2.ModelScan(roots=roots))
    return asking.journal_of(server.model.ScanModels(request, timeout=asking.CALL_S))


def models(server: RunningServer, **conditions: Any) -> dict[str, model_pb2.Model]:
    request = model_service_pb2.ListModelsRequest(filter=model_service_pb2.ModelFilter(**conditions))
    return {model.id: model for model in server.model.ListModels(request).models}


def load(server: RunningServer, model_id: str) -> list[Any]:
    request = model_service_pb2.LoadModelRequest(model_load=model_work_pb2.ModelLoad(model_id=model_id))
    return asking.journal_of(server.model.LoadModel(request, timeout=asking.CALL_S))


def loaded(server: RunningServer) -> dict[str, loaded_model_pb2.LoadedModel]:
    answer = server.model.ListLoadedModels(model_service_pb2.ListLoadedModelsRequest())
    return {model.id: model for model in answer.loaded_models}


def test_a_scan_streams_progress_and_ends_with_a_report(scan: list[Any]) -> None:
    assert kind(scan[0]) == "queued"
    assert kind(scan[-1]) == "succeeded"
    assert "scanning" in [update.event.stage_started.stage for update in scan]
    assert {"good", *CORRUPT, *UNUSABLE} <= set(scan[-1].report.added_model_ids)


def test_a_scan_names_each_damaged_model_and_each_way_out(scan: list[Any], root: Path) -> None:
    reasons = {Path(failure.path): failure.failure.reason for failure in scan[-1].report.failures}
    for name in CORRUPT:
        assert reasons[root / name] == error_pb2.ERROR_REASON_MODEL_CORRUPT
    for name in ("leads-out", "file-leads-out"):
        assert reasons[root / name] == error_pb2.ERROR_REASON_PATH_OUTSIDE_ROOTS
    assert root / "good" not in reasons


def test_a_second_scan_finds_nothing_new(server: RunningServer, scan: list[Any]) -> None:
    report = scanned(server)[-1].report
    assert not report.added_model_ids
    assert not report.changed_model_ids
    assert not report.missing_model_ids


@pytest.mark.usefixtures("scan")
def test_the_list_and_the_single_answer_agree_but_for_long_lists(server: RunningServer) -> None:
    listed = models(server)
    assert {"good", "emoji-sd", *CORRUPT, *UNUSABLE} <= set(listed)
    assert "secret" not in listed
    assert "leads-out" not in listed
    for model_id, model in listed.items():
        single = server.model.GetModel(model_service_pb2.GetModelRequest(model_id=model_id)).model
        for field in ("known_prompts", "evidence", "metadata"):
            single.ClearField(field)
        for component in single.components:
            assert component.files
            component.ClearField("files")
        assert single == model
    assert listed["good"].sha256 == listed["emoji-sd"].sha256
    assert listed["emoji-sd"].embedded
    assert not listed["good"].embedded


@pytest.mark.usefixtures("scan")
def test_models_are_listed_by_state(server: RunningServer) -> None:
    assert set(models(server, states=[model_pb2.MODEL_STATE_AVAILABLE])) == {"good", "emoji-sd"}
    assert set(models(server, states=[model_pb2.MODEL_STATE_CORRUPT])) == set(CORRUPT)
    assert set(models(server, states=[model_pb2.MODEL_STATE_INCOMPATIBLE])) == set(UNUSABLE)


@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize("name", CORRUPT)
def test_a_damaged_model_is_refused_as_data_loss(server: RunningServer, name: str) -> None:
    asked = picture()
    asked.model_id = name
    for refusal in (asking.refused(lambda: asking.submit(server, asked)), asking.refused(lambda: load(server, name))):
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "MODEL_CORRUPT")
        assert refusal.facts["model_id"] == name


@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize("name", UNUSABLE)
def test_a_model_that_cannot_be_used_says_why(server: RunningServer, name: str) -> None:
    asked = picture()
    asked.model_id = name
    refusal = asking.refused(lambda: asking.submit(server, asked))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_INCOMPATIBLE")
    assert "vae" in refusal.message


@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize("name", ["leads-out", "file-leads-out", "secret"])
def test_a_model_outside_the_roots_does_not_exist(server: RunningServer, name: str) -> None:
    asked = picture()
    asked.model_id = name
    assert asking.refused(lambda: asking.submit(server, asked)).reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize("path", ["/etc", "/", "relative"])
def test_a_scan_outside_the_roots_is_refused(server: RunningServer, path: str) -> None:
    refusal = asking.refused(lambda: scanned(server, path))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PATH_OUTSIDE_ROOTS")


def test_a_scan_of_too_many_folders_is_refused(server: RunningServer, root: Path) -> None:
    refusal = asking.refused(lambda: scanned(server, *[str(root)] * 33))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["model_scan.roots"])


def test_a_scan_of_a_folder_that_is_not_there_is_refused(server: RunningServer, root: Path) -> None:
    refusal = asking.refused(lambda: scanned(server, str(root / "nothing")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "PATH_NOT_FOUND")
    assert refusal.facts["path"] == str(root / "nothing")


def test_loading_and_using_a_model_changes_no_etag_of_it(server: RunningServer) -> None:
    server.model.UnloadModel(model_service_pb2.UnloadModelRequest(all=EVERYTHING))
    before = models(server)["emoji-sd"]
    load(server, "emoji-sd")
    after, there = models(server)["emoji-sd"], loaded(server)["emoji-sd@cpu"]
    assert list(after.loaded_model_ids) == ["emoji-sd@cpu"]
    assert after.etag == before.etag
    got = server.model.GetModel(model_service_pb2.GetModelRequest(model_id="emoji-sd")).model
    assert got.known_prompts
    assert got.etag == before.etag
    asking.watch(server, asking.submit(server))
    used = loaded(server)["emoji-sd@cpu"]
    assert used.last_use_time != there.last_use_time
    assert used.etag == there.etag


@pytest.mark.usefixtures("scan")
def test_a_found_model_makes_the_same_picture_as_the_embedded_one(server: RunningServer) -> None:
    asked = picture(steps=3)
    asked.output.manifest = image_pb2.MANIFEST_DETAIL_NONE
    files: list[str] = []
    for model_id in ("good", "emoji-sd"):
        asked.model_id = model_id
        files.append(asking.watch(server, asking.submit(server, asked))[-1].generation_result.images[0].file.sha256)
    assert files[0] == files[1]


@pytest.mark.usefixtures("scan")
def test_use_is_noted_and_orders_the_list(server: RunningServer) -> None:
    def told() -> tuple[model_pb2.Model, list[str]]:
        order = model_service_pb2.MODEL_ORDER_LAST_USE_TIME
        listed = server.model.ListModels(model_service_pb2.ListModelsRequest(order=order)).models
        by_id = {one.id: one for one in listed}
        single = server.model.GetModel(model_service_pb2.GetModelRequest(model_id="emoji-sd")).model
        assert single.usage == by_id["emoji-sd"].usage
        return single, [one.id for one in listed if one.usage.HasField("last_use_time")]

    before, _ = told()
    for _ in range(2):
        assert kind(asking.watch(server, asking.submit(server, picture()))[-1]) == "succeeded"
    after, used = told()
    assert after.usage.job_count == before.usage.job_count + 2
    assert after.usage.job_latency.sample_count == after.usage.job_count
    assert after.usage.load_count >= 1
    assert after.usage.load_latency.sample_count == after.usage.load_count
    assert after.usage.last_use_time.ToNanoseconds() > before.usage.last_use_time.ToNanoseconds()
    assert used[0] == "emoji-sd", "the one used last is first"
    assert after.etag == before.etag


def test_a_load_counts_its_bytes_to_the_end_and_unloading_frees(server: RunningServer) -> None:
    unload = model_service_pb2.UnloadModelRequest(all=EVERYTHING)
    server.model.UnloadModel(unload)
    assert loaded(server) == {}
    updates = load(server, "good")
    assert kind(updates[-1]) == "succeeded"
    told = [update.event.progress for update in updates if kind(update) == "progress"]
    assert {progress.unit for progress in told} == {"bytes"}
    done = [progress.completed for progress in told]
    assert done == sorted(done)
    weights = sum((EMBEDDED / "emoji-sd" / part).stat().st_size for part in _weights())
    assert 0 < told[-1].completed == told[-1].total <= weights
    one = loaded(server)["good@cpu"]
    assert updates[-1].loaded_model == one
    assert one.host_bytes == sum(component.host_bytes for component in one.components) > 0
    assert not one.HasField("device_bytes"), "a CPU has no memory of its own"
    assert models(server, loaded=True).keys() == {"good"}
    got = server.model.GetLoadedModel(model_service_pb2.GetLoadedModelRequest(loaded_model_id="good@cpu"))
    assert got.loaded_model == one
    freed = server.model.UnloadModel(model_service_pb2.UnloadModelRequest(model_id="good"))
    assert list(freed.loaded_model_ids) == ["good@cpu"]
    assert freed.freed_host_bytes > 0
    assert loaded(server) == {}
    refusal = asking.refused(
        lambda: server.model.UnloadModel(model_service_pb2.UnloadModelRequest(loaded_model_id="good@cpu"))
    )
    assert refusal.reason == "LOADED_MODEL_NOT_FOUND"


def _weights() -> list[str]:
    return [str(file.relative_to(EMBEDDED / "emoji-sd")) for file in (EMBEDDED / "emoji-sd").rglob("*.safetensors")]


def test_require_loaded_model_refuses_and_then_takes(server: RunningServer) -> None:
    server.model.UnloadModel(model_service_pb2.UnloadModelRequest(all=EVERYTHING))
    asked = picture()
    asked.require_loaded_model = True
    refusal = asking.refused(lambda: asking.submit(server, asked))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_LOADED")
    load(server, "emoji-sd")
    assert kind(asking.watch(server, asking.submit(server, asked))[-1]) == "succeeded"


def test_a_model_in_use_is_not_taken_away(server: RunningServer) -> None:
    with asking.occupied(server, 1) as (job_id,):
        at_once = model_service_pb2.UnloadModelRequest(loaded_model_id="emoji-sd@cpu", drain_timeout=Duration())
        refusal = asking.refused(lambda: server.model.UnloadModel(at_once))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
        assert job_id in refusal.message
        assert asking.job_of(server, job_id).state == job_event_pb2.JOB_STATE_RUNNING


def test_an_unload_by_force_ends_the_jobs_that_use_the_model(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=asking.LONG_STEPS))
    asking.wait_for_step(server, job_id)
    by_force = model_service_pb2.UnloadModelRequest(model_id="emoji-sd", drain_timeout=Duration(), force=True)
    done = server.model.UnloadModel(by_force)
    assert (done.loaded_model_ids, done.ended_job_ids) == (["emoji-sd@cpu"], [job_id])
    assert asking.job_of(server, job_id).failure.reason == error_pb2.ERROR_REASON_MODEL_UNLOADED
    assert "emoji-sd@cpu" not in loaded(server)


def test_unloading_refuses_what_it_does_not_serve(server: RunningServer) -> None:
    nothing = asking.refused(lambda: server.model.UnloadModel(model_service_pb2.UnloadModelRequest()))
    assert nothing.fields == ["target"]
    assert "set loaded_model_id, model_id, device_id or all" in nothing.message
    slowly = model_service_pb2.UnloadModelRequest(all=EVERYTHING, drain_timeout=Duration(seconds=3601))
    assert asking.refused(lambda: server.model.UnloadModel(slowly)).fields == ["drain_timeout"]


def test_a_model_whose_folder_went_away_is_missing_and_comes_back(server: RunningServer, root: Path) -> None:
    shutil.copytree(root / "good", root / "passing", copy_function=os.link)
    assert list(scanned(server)[-1].report.added_model_ids) == ["passing"]
    shutil.move(root / "passing", root.parent / "moved-away")
    assert list(scanned(server)[-1].report.missing_model_ids) == ["passing"]
    asked = picture()
    asked.model_id = "passing"
    assert asking.refused(lambda: asking.submit(server, asked)).reason == "COMPONENT_MISSING"
    shutil.move(root.parent / "moved-away", root / "passing")
    scanned(server)
    assert models(server)["passing"].state == model_pb2.MODEL_STATE_AVAILABLE


def test_a_prompt_that_is_cut_is_a_warning_of_the_result(server: RunningServer) -> None:
    asked = picture()
    asked.prompt = "owl " * 200
    job_id = asking.submit(server, asked)
    watched = asking.watch(server, job_id)[-1].generation_result
    for result in (watched, asking.job_of(server, job_id).generation_result):
        (warning,) = result.warnings
        assert (warning.severity, warning.field) == (error_pb2.SEVERITY_WARNING, "generation.prompt")
        assert "tokens" in warning.message
    plain = asking.watch(server, asking.submit(server))[-1].generation_result
    assert not plain.warnings


def test_a_loaded_model_whose_files_changed_is_replaced_by_a_load(server: RunningServer, root: Path) -> None:
    folder = root / "changing"
    shutil.copytree(root / "good", folder)
    scanned(server)
    pinned = model_work_pb2.ModelLoad(model_id="changing", pinned=True)
    asking.journal_of(server.model.LoadModel(model_service_pb2.LoadModelRequest(model_load=pinned)))
    old = loaded(server)["changing@cpu"]
    before = models(server)["changing"].sha256
    assert (old.model_sha256, old.outdated) == (before, False)
    data = bytearray((folder / VAE).read_bytes())
    data[-1] ^= 1
    rewrite(folder, bytes(data))
    assert list(scanned(server)[-1].report.changed_model_ids) == ["changing"]
    assert models(server)["changing"].sha256 != before
    held = loaded(server)["changing@cpu"]
    assert (held.model_sha256, held.outdated, held.etag) == (before, True, old.etag)
    asked = picture()
    asked.model_id = "changing"
    asked.require_loaded_model = True
    assert asking.refused(lambda: asking.submit(server, asked)).reason == "MODEL_NOT_LOADED"
    updates = load(server, "changing")
    assert kind(updates[-1]) == "succeeded"
    assert "loading" in [update.event.stage_started.stage for update in updates]
    new = loaded(server)["changing@cpu"]
    assert (new.model_sha256, new.outdated, new.pinned) == (models(server)["changing"].sha256, False, True)
    assert new.load_time.ToNanoseconds() > old.load_time.ToNanoseconds()
    result = asking.watch(server, asking.submit(server, asked))[-1].generation_result
    assert [used.sha256 for used in result.resolved.used_models] == [models(server)["changing"].sha256]


def test_weights_that_changed_after_the_scan_make_no_picture(server: RunningServer, root: Path) -> None:
    folder = root / "swapped"
    shutil.copytree(root / "good", folder)
    scanned(server)
    data = bytearray((folder / VAE).read_bytes())
    data[-1] ^= 1
    rewrite(folder, bytes(data))
    asked = picture()
    asked.model_id = "swapped"
    failed = asking.watch(server, asking.submit(server, asked))[-1].event.failed.failure
    assert failed.reason == error_pb2.ERROR_REASON_ILLEGAL_STATE
    assert "scan again" in failed.message
    scanned(server)
    assert kind(asking.watch(server, asking.submit(server, asked))[-1]) == "succeeded"


def test_a_replacement_that_fails_leaves_no_loaded_model_in_the_list(server: RunningServer, root: Path) -> None:
    folder = root / "replaced-in-vain"
    shutil.copytree(root / "good", folder)
    scanned(server)
    load(server, "replaced-in-vain")
    data = bytearray((folder / VAE).read_bytes())
    data[-1] ^= 1
    rewrite(folder, bytes(data))
    scanned(server)
    assert loaded(server)["replaced-in-vain@cpu"].outdated
    data[-1] ^= 2
    rewrite(folder, bytes(data))
    assert kind(load(server, "replaced-in-vain")[-1]) == "failed"
    assert "replaced-in-vain@cpu" not in loaded(server)
