"""ValidateModel finds what is wrong with files; ConvertModel writes another model; hashes are as other tools print them."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deviceops.common.v1 import error_pb2, image_pb2, job_event_pb2
from deviceops.model.v1 import execution_pb2, model_pb2, model_service_pb2, model_work_pb2
from deviceops.processing.v1 import processing_service_pb2
from domains.model.catalogue import EMBEDDED
from tests.domains.model.folders import age
from tests.server import asking
from tests.server.asking import kind
from tests.server.harness import RunningServer, running_server

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
HEADER = model_work_pb2.MODEL_VALIDATION_DEPTH_HEADER
CHECKSUM = model_work_pb2.MODEL_VALIDATION_DEPTH_CHECKSUM
VALUES = model_work_pb2.MODEL_VALIDATION_DEPTH_VALUES
EXECUTE = model_work_pb2.MODEL_VALIDATION_DEPTH_EXECUTE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        yield running


@pytest.fixture
def folder(server: RunningServer, root: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A model of its own, scanned; its files look an hour old. Gone after the test."""
    folder = root / f"m-{abs(hash(request.node.name)) % 10**8}"
    shutil.copytree(EMBEDDED / "emoji-sd", folder)
    age(folder)
    scan(server)
    yield folder
    shutil.rmtree(folder)


def scan(server: RunningServer) -> Any:
    return asking.journal_of(server.model.ScanModels(model_service_pb2.ScanModelsRequest()))[-1].report


def validated(server: RunningServer, model_id: str, **asked: Any) -> list[Any]:
    work = model_work_pb2.ModelValidation(model_id=model_id, **asked)
    request = model_service_pb2.ValidateModelRequest(model_validation=work)
    return asking.journal_of(server.model.ValidateModel(request, timeout=asking.CALL_S))


def report_of(server: RunningServer, model_id: str, **asked: Any) -> model_work_pb2.ModelValidationReport:
    updates = validated(server, model_id, **asked)
    assert kind(updates[-1]) == "succeeded"
    return updates[-1].report


def model_of(server: RunningServer, model_id: str) -> model_pb2.Model:
    return server.model.GetModel(model_service_pb2.GetModelRequest(model_id=model_id)).model


def header_bytes(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def test_a_whole_model_is_valid_and_every_byte_of_its_weights_is_read(server: RunningServer, folder: Path) -> None:
    updates = validated(server, folder.name, depth=VALUES)
    report = updates[-1].report
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    assert (report.valid, report.depth, list(report.findings)) == (True, VALUES, [])
    assert (report.non_finite_count, report.tensor_count > 100) == (0, True)
    assert size < report.read_bytes <= 2 * size
    assert report.model.state == model_pb2.MODEL_STATE_AVAILABLE
    assert report.model.HasField("validate_time")
    told = [update.event.progress for update in updates if kind(update) == "progress"]
    assert {progress.unit for progress in told} == {"bytes"}
    assert "verifying" in [update.event.stage_started.stage for update in updates]
    assert asking.job_of(server, updates[0].event.job_id).model_validation_report == report


PLACES: dict[str, Callable[[bytes], int]] = {
    "header": lambda data: data.index(b'"dtype"') - 3,
    "first tensor": header_bytes,
    "middle": lambda data: (header_bytes(data) + len(data)) // 2,
    "last byte": lambda data: len(data) - 1,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", [UNET, VAE])
def test_a_flipped_byte_is_found_in_every_region(server: RunningServer, folder: Path, place: str, path: str) -> None:
    data = bytearray((folder / path).read_bytes())
    data[PLACES[place](bytes(data))] ^= 1
    (folder / path).write_bytes(data)
    report = report_of(server, folder.name)
    assert not report.valid
    assert path in [finding.field for finding in report.findings]
    assert {finding.reason for finding in report.findings} >= {error_pb2.ERROR_REASON_MODEL_CORRUPT}
    assert report.model.state == model_pb2.MODEL_STATE_CORRUPT
    assert model_of(server, folder.name).state == model_pb2.MODEL_STATE_CORRUPT
    data[PLACES[place](bytes(data))] ^= 1
    if place != "header":
        (folder / path).write_bytes(data)
        assert report_of(server, folder.name).valid
        assert model_of(server, folder.name).state == model_pb2.MODEL_STATE_AVAILABLE


def test_a_header_only_validation_reads_no_weights(server: RunningServer, folder: Path) -> None:
    report = report_of(server, folder.name, depth=HEADER)
    assert (report.valid, report.read_bytes, report.depth) == (True, 0, HEADER)
    assert not report.HasField("non_finite_count")
    assert report.model.sha256 == model_of(server, "emoji-sd").sha256


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_planted_value_that_is_not_finite_is_named_with_its_tensor(
    server: RunningServer, folder: Path, value: float
) -> None:
    weights = load_file(folder / VAE)
    name = next(name for name, tensor in weights.items() if tensor.ndim > 1)
    weights[name].flat[3] = value
    (folder / VAE).unlink()
    save_file(weights, folder / VAE)
    age(folder)
    scan(server)
    assert report_of(server, folder.name, depth=CHECKSUM).valid
    report = report_of(server, folder.name, depth=VALUES)
    (finding,) = report.findings
    assert (report.valid, report.non_finite_count, finding.field) == (False, 1, f"{VAE}:{name}")
    scan(server)
    assert model_of(server, folder.name).state == model_pb2.MODEL_STATE_CORRUPT, "the file is still the same"


def test_a_truncated_file_is_found(server: RunningServer, folder: Path) -> None:
    os.truncate(folder / UNET, (folder / UNET).stat().st_size // 2)
    report = report_of(server, folder.name, depth=HEADER)
    assert not report.valid
    assert "cut off" in report.findings[0].message


def test_a_missing_component_and_a_missing_file_are_found(server: RunningServer, folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    (folder / "tokenizer" / "vocab.json").unlink()
    report = report_of(server, folder.name)
    missing = {one.field for one in report.findings if one.reason == error_pb2.ERROR_REASON_COMPONENT_MISSING}
    assert {"vae", VAE, "tokenizer/vocab.json"} <= missing
    assert report.model.state == model_pb2.MODEL_STATE_INCOMPATIBLE


def test_a_hash_that_the_caller_expects_is_compared(server: RunningServer, folder: Path) -> None:
    assert report_of(server, folder.name, expected_sha256=model_of(server, "emoji-sd").sha256).valid
    report = report_of(server, folder.name, expected_sha256="0" * 64)
    assert [finding.field for finding in report.findings] == ["expected_sha256"]
    assert report.model.state == model_pb2.MODEL_STATE_AVAILABLE


def test_only_the_chosen_components_are_looked_at(server: RunningServer, folder: Path) -> None:
    data = bytearray((folder / VAE).read_bytes())
    data[-1] ^= 1
    (folder / VAE).write_bytes(data)
    assert report_of(server, folder.name, component_ids=["unet"]).valid
    assert not report_of(server, folder.name, component_ids=["vae"]).valid


def test_what_cannot_be_validated_is_refused(server: RunningServer, folder: Path) -> None:
    cases: list[tuple[dict[str, Any], str, list[str]]] = [
        ({"model_id": ""}, "INVALID_FIELD", ["model_validation.model_id"]),
        ({"model_id": "no-such-model"}, "MODEL_NOT_FOUND", []),
        ({"component_ids": ["hat"]}, "INVALID_FIELD", ["model_validation.component_ids"]),
        ({"expected_sha256": "12"}, "INVALID_FIELD", ["model_validation.expected_sha256"]),
        ({"device_id": "no-such-device"}, "DEVICE_NOT_FOUND", []),
        ({"base_model_id": "no-such-model"}, "MODEL_NOT_FOUND", []),
    ]
    for asked, reason, fields in cases:
        refusal = asking.refused(lambda asked=asked: validated(server, **{"model_id": folder.name, **asked}))
        assert (refusal.reason, refusal.fields) == (reason, fields)


def test_a_model_is_checked_against_a_device_and_a_base(server: RunningServer, folder: Path) -> None:
    assert report_of(server, folder.name, depth=HEADER, device_id="cpu").valid
    execution = execution_pb2.ExecutionOptions(precision=image_pb2.PRECISION_INT4)
    refused = asking.refused(lambda: validated(server, folder.name, depth=HEADER, device_id="cpu", execution=execution))
    assert refused.fields == ["model_validation.execution.precision"]
    report = report_of(server, folder.name, depth=HEADER, base_model_id="emoji-sd")
    (finding,) = report.findings
    assert (report.valid, finding.field) == (False, "base_model_id")
    assert finding.reason == error_pb2.ERROR_REASON_MODEL_INCOMPATIBLE


def jobs_of(server: RunningServer) -> set[str]:
    return {job.id for job in server.processing.ListJobs(processing_service_pb2.ListJobsRequest(page_size=1000)).jobs}


def test_a_step_is_computed_on_a_device_which_is_as_before_afterwards(server: RunningServer, folder: Path) -> None:
    before = jobs_of(server)
    updates = validated(server, folder.name, depth=EXECUTE, device_id="cpu")
    report = updates[-1].report
    assert (report.valid, report.depth, report.device_id, list(report.findings)) == (True, EXECUTE, "cpu", [])
    assert "measuring" in [update.event.stage_started.stage for update in updates]
    assert not model_of(server, folder.name).loaded_model_ids
    assert jobs_of(server) == before | {updates[0].event.job_id}, "the job that computed is gone"


def test_weights_that_are_numbers_and_overflow_in_a_step_are_found(server: RunningServer, folder: Path) -> None:
    tensors = load_file(folder / UNET)
    for name in [name for name in tensors if "norm" in name and name.endswith("weight")]:
        tensors[name] = np.full(tensors[name].shape, 3e38, np.float32)
    save_file(tensors, folder / UNET)
    age(folder)
    scan(server)
    assert report_of(server, folder.name, depth=VALUES).valid
    report = report_of(server, folder.name, depth=EXECUTE)
    assert (report.valid, report.depth, report.device_id) == (False, EXECUTE, "cpu")
    (finding,) = report.findings
    assert (finding.reason, finding.field) == (error_pb2.ERROR_REASON_NUMERIC_FAILURE, "execution")


def test_a_damaged_model_is_not_executed(server: RunningServer, folder: Path) -> None:
    tensors = load_file(folder / UNET)
    tensors["conv_in.weight"][0] = np.nan
    save_file(tensors, folder / UNET)
    age(folder)
    scan(server)
    report = report_of(server, folder.name, depth=EXECUTE)
    assert (report.valid, report.depth, report.device_id) == (False, VALUES, "")


def test_a_validation_that_is_cancelled_while_it_executes_leaves_no_job(server: RunningServer, folder: Path) -> None:
    before = jobs_of(server)
    work = model_work_pb2.ModelValidation(model_id=folder.name, depth=EXECUTE)
    call = server.model.ValidateModel(model_service_pb2.ValidateModelRequest(model_validation=work, detached=True))
    first = next(call)
    asking.until(call, lambda update: update.event.stage_started.stage == "measuring")
    server.processing.CancelJob(processing_service_pb2.CancelJobRequest(job_id=first.event.job_id))
    asking.until(call, lambda update: kind(update) in ("cancelled", "succeeded"))
    assert jobs_of(server) == before | {first.event.job_id}
    assert not model_of(server, folder.name).loaded_model_ids


def test_a_cancelled_validation_changes_nothing(server: RunningServer, folder: Path) -> None:
    sparse(folder / "unet" / "diffusion_pytorch_model.safetensors")
    before = model_of(server, folder.name)
    work = model_work_pb2.ModelValidation(model_id=folder.name)
    call = server.model.ValidateModel(model_service_pb2.ValidateModelRequest(model_validation=work))
    begun = asking.until(call, lambda update: kind(update) == "progress")
    asking.cancel(server, begun.event.job_id)
    end = asking.watch(server, begun.event.job_id)[-1]
    assert end.event.state == job_event_pb2.JOB_STATE_CANCELLED
    assert model_of(server, folder.name) == before


def sparse(path: Path) -> None:
    """A tensor of 8 GiB that the disk does not really hold: hashing it takes seconds."""
    size = 8 << 30
    header = json.dumps({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + size)


def test_a_file_that_is_written_meanwhile_is_told_and_not_called_damaged(server: RunningServer, folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    sparse(path)
    # Only this file, so that progress says that it is being read.
    work = model_work_pb2.ModelValidation(model_id=folder.name, component_ids=["unet"])
    call = server.model.ValidateModel(model_service_pb2.ValidateModelRequest(model_validation=work))
    asking.until(call, lambda update: kind(update) == "progress")
    os.utime(path)
    os.truncate(path, 4096)
    report = asking.journal_of(call)[-1].report
    told = {finding.field: finding.reason for finding in report.findings}
    assert told[UNET] == error_pb2.ERROR_REASON_ILLEGAL_STATE
    assert not report.valid


def test_the_hashes_are_those_that_other_tools_print(server: RunningServer, folder: Path) -> None:
    data = (folder / UNET).read_bytes()
    files = {file.path: file for part in model_of(server, folder.name).components for file in part.files}
    told = files[UNET]
    assert told.sha256 == hashlib.sha256(data).hexdigest(), "AutoV2 is its first 10 digits"
    assert told.data_sha256 == hashlib.sha256(data[header_bytes(data) :]).hexdigest(), "AutoV3: the first 12"
    assert told.short_hash == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert (told.size_bytes, told.format) == (len(data), "safetensors")
    assert files["unet/config.json"].size_bytes == (folder / "unet" / "config.json").stat().st_size


def test_the_tensor_hash_ignores_metadata_and_nothing_else(server: RunningServer, folder: Path) -> None:
    def vae() -> model_pb2.ModelComponent:
        return next(part for part in model_of(server, folder.name).components if part.id == "vae")

    before, weights = vae(), load_file(folder / VAE)
    assert before.sha256
    (folder / VAE).unlink()
    save_file(weights, folder / VAE, {"note": "another"})
    scan(server)
    noted = vae()
    save_file(weights, folder / VAE, {"note": "a third"})
    scan(server)
    assert vae().sha256 == noted.sha256
    assert {file.path: file.sha256 for file in vae().files}[VAE] != {f.path: f.sha256 for f in noted.files}[VAE]
    first = sorted(weights)[0]
    weights[first] = weights[first] + 1
    save_file(weights, folder / VAE, {"note": "a third"})
    scan(server)
    assert vae().sha256 != noted.sha256


def test_hashes_are_remembered_over_a_restart(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED / "emoji-sd", tmp_path / "kept")
    age(tmp_path / "kept")
    with running_server("--device", "cpu", "--model-root", str(tmp_path), "--model-poll-s", "0") as server:
        assert scan(server).read_bytes > 0
        before = model_of(server, "kept")
        server.stop()
        server.start()
        assert scan(server).read_bytes == 0
        assert model_of(server, "kept") == before


def test_a_single_file_is_hashed_by_its_validation_and_a_flipped_byte_is_then_found(
    server: RunningServer, root: Path
) -> None:
    path = root / "alone.safetensors"
    shutil.copy(EMBEDDED / "emoji-sd" / VAE, path)
    os.utime(path, (1e9, 1e9))
    scan(server)
    assert model_of(server, "alone").sha256 == ""
    assert report_of(server, "alone").valid
    noted = model_of(server, "alone").sha256
    scan(server)
    assert model_of(server, "alone").sha256 == noted != ""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    report = report_of(server, "alone")
    assert [finding.field for finding in report.findings] == ["alone.safetensors"]
    assert model_of(server, "alone").state == model_pb2.MODEL_STATE_CORRUPT
    path.unlink()
    scan(server)


def conversion(model_id: str, path: Path, **asked: Any) -> model_service_pb2.ConvertModelRequest:
    work = model_work_pb2.ModelConversion(model_id=model_id, destination_path=str(path), **asked)
    return model_service_pb2.ConvertModelRequest(model_conversion=work)


def test_a_converted_model_is_whole_and_registered_with_its_hashes(
    server: RunningServer, folder: Path, root: Path
) -> None:
    """The embedded model is stored in half precision."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    asked = conversion(folder.name, root / "Wide", precision=image_pb2.PRECISION_FLOAT32, new_model_id="wide")
    asked.model_conversion.keep_component_ids.append("vae")
    updates = asking.journal_of(server.model.ConvertModel(asked, timeout=asking.CALL_S))
    assert kind(updates[-1]) == "succeeded", updates[-1]
    report, model = updates[-1].report, model_of(server, "wide")
    assert (report.source_model_id, report.model.id) == (folder.name, "wide")
    assert (report.max_absolute_error, report.clamped_count) == (0.0, 0), "a wider precision loses nothing"
    precisions = {part.id: part.precision for part in model.components if part.parameter_count}
    wide, half = image_pb2.PRECISION_FLOAT32, image_pb2.PRECISION_FLOAT16
    assert precisions == {"unet": wide, "text_encoder": wide, "vae": half}
    assert model.sha256 == report.model.sha256 != ""
    assert report.written_bytes == sum(path.stat().st_size for path in (root / "Wide").rglob("*") if path.is_file())
    told = [update.event.progress for update in updates if kind(update) == "progress"]
    assert {(one.stage, one.unit) for one in told} == {("converting", "bytes")}
    assert asking.job_of(server, updates[0].event.job_id).model_conversion_report == report
    assert {path: path.read_bytes() for path in before} == before, "the source is as it was"
    assert report_of(server, "wide", depth=VALUES).valid
    again = asking.refused(lambda: asking.journal_of(server.model.ConvertModel(asked)))
    assert again.reason == "ID_TAKEN"
    shutil.rmtree(root / "Wide")
    scan(server)


def test_a_cancelled_conversion_leaves_no_files(server: RunningServer, folder: Path, root: Path) -> None:
    names = sorted(os.listdir(root))
    call = server.model.ConvertModel(conversion(folder.name, root / "never", precision=image_pb2.PRECISION_FLOAT32))
    begun = asking.until(call, lambda update: kind(update) == "stage_started")
    asking.cancel(server, begun.event.job_id)
    end = asking.watch(server, begun.event.job_id)[-1]
    assert end.event.state == job_event_pb2.JOB_STATE_CANCELLED
    assert sorted(os.listdir(root)) == names


def test_what_cannot_be_converted_is_refused_by_name(server: RunningServer, folder: Path, root: Path) -> None:
    work, path = "model_conversion.", root / "new"
    file = root / "new.safetensors"
    cases: list[tuple[model_service_pb2.ConvertModelRequest, str, list[str]]] = [
        (conversion("", path), "INVALID_FIELD", [work + "model_id"]),
        (conversion("no-such-model", path), "MODEL_NOT_FOUND", []),
        (conversion(folder.name, Path("here")), "INVALID_FIELD", [work + "destination_path"]),
        (conversion(folder.name, file), "INVALID_FIELD", [work + "destination_path"]),
        (conversion(folder.name, path, precision=image_pb2.PRECISION_INT4), "INVALID_FIELD", [work + "precision"]),
        (conversion(folder.name, path, format="gguf"), "INVALID_FIELD", [work + "format"]),
        (conversion(folder.name, path, new_model_id="Not An Id"), "INVALID_FIELD", [work + "new_model_id"]),
        (conversion(folder.name, path, keep_component_ids=["hat"]), "INVALID_FIELD", [work + "keep_component_ids[0]"]),
        (conversion(folder.name, root.parent / "outside"), "PATH_OUTSIDE_ROOTS", []),
        (conversion(folder.name, folder), "ID_TAKEN", []),
        (conversion(folder.name, path, new_model_id="emoji-sd"), "ID_TAKEN", []),
        (conversion(folder.name, file, format="safetensors"), "UNSUPPORTED_COMBINATION", [work + "format"]),
    ]
    for request, reason, fields in cases:
        refusal = asking.refused(lambda request=request: asking.journal_of(server.model.ConvertModel(request)))
        assert (refusal.reason, refusal.fields) == (reason, fields), request
    shutil.rmtree(folder / "vae")
    scan(server)
    refusal = asking.refused(lambda: asking.journal_of(server.model.ConvertModel(conversion(folder.name, path))))
    assert refusal.reason == "COMPONENT_MISSING"
