"""InspectModel and the scan over real files of every form: what they are, why, and what is wrong with them."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from deviceops.common.v1 import error_pb2, image_pb2
from deviceops.model.v1 import model_pb2, model_service_pb2
from server.cli.app import run
from tests.domains.model import published
from tests.domains.model.detect import adapters
from tests.domains.model.folders import write_json
from tests.domains.model.headers import write_header, write_published
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.test_models import models, scanned

LABELS = {"id2label": {str(number): label for number, label in enumerate(["a", "hentai", "b", "porn", "sexy"])}}
TITLED = {"modelspec.title": "My turbo", "modelspec.architecture": "stable-diffusion-xl-v1-base"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have them: checkpoints, components, adapters, a pickle, a damaged file."""
    root = tmp_path_factory.mktemp("models")
    write_published(root / "checkpoints" / "sd15.safetensors", "sd1_single")
    write_published(root / "checkpoints" / "turbo.safetensors", "sdxl_single", **TITLED)
    full = published.header("sd1_single")
    less = {name: shape for name, shape in full.items() if not name.startswith("cond_stage_model.")}
    write_header(root / "checkpoints" / "mute.safetensors", less)
    write_published(root / "vae" / "kl-f8.safetensors", "sd_ldm_vae", "F32")
    lora = adapters.adapter("sdxl_unet", adapters.kohya)
    write_header(root / "loras" / "style.safetensors", lora, metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    write_published(root / "control" / "canny.safetensors", "sd1_controlnet")
    write_published(root / "nsfw" / "model.safetensors", "mobilenet_nsfw")
    write_json(root / "nsfw" / "config.json", LABELS)
    write_header(root / "odd" / "what.safetensors", {"who.knows": (3, 4)})
    (root / "odd" / "broken.safetensors").write_bytes(b"\xff" * 64)
    (root / "odd" / "old.ckpt").write_bytes(b"\x80\x04.")
    (root / "odd" / "notes.txt").write_text("no model")
    return root.resolve()


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        yield running


def inspect(server: RunningServer, path: Path | str) -> model_service_pb2.InspectModelResponse:
    source = model_service_pb2.ModelPathSource(path=str(path))
    return server.model.InspectModel(model_service_pb2.InspectModelRequest(path_source=source), timeout=asking.CALL_S)


def grave(answer: model_service_pb2.InspectModelResponse) -> list[tuple[int, str]]:
    """Reason and message of each error."""
    errors = [one for one in answer.findings if one.severity >= error_pb2.SEVERITY_ERROR]
    return [(one.reason, one.message) for one in errors]


def test_a_checkpoint_in_one_file_is_told_with_its_components_and_evidence(server: RunningServer, root: Path) -> None:
    answer = inspect(server, root / "checkpoints" / "sd15.safetensors")
    model = answer.model
    assert (model.kind, model.family, model.id) == (model_pb2.MODEL_KIND_CHECKPOINT, "sd1", "sd15")
    assert {one.id: one.parameter_count for one in model.components if one.parameter_count} == {
        "unet": 859_520_964,
        "vae": 83_653_863,
        "text_encoder": 123_060_557,
    }
    assert all(one.precision == image_pb2.PRECISION_FLOAT16 for one in model.components if one.parameter_count)
    assert model.confidence_ratio == 1.0
    assert answer.evidence[0].decisive
    assert "input_blocks.0.0.weight" in answer.evidence[0].matched_keys
    assert not grave(answer)
    assert any("predicts" in one.message for one in answer.findings)
    assert any("cannot be measured" in one.message for one in answer.findings)


def test_a_checkpoint_without_its_text_encoder_says_what_it_lacks(server: RunningServer, root: Path) -> None:
    answer = inspect(server, root / "checkpoints" / "mute.safetensors")
    assert answer.model.kind == model_pb2.MODEL_KIND_CHECKPOINT
    ((reason, message),) = grave(answer)
    assert reason == error_pb2.ERROR_REASON_COMPONENT_MISSING
    assert "text_encoder" in message


def test_a_bare_vae_is_a_vae_and_no_checkpoint(server: RunningServer, root: Path) -> None:
    answer = inspect(server, root / "vae" / "kl-f8.safetensors")
    assert answer.model.kind == model_pb2.MODEL_KIND_VAE
    assert answer.model.family == ""
    assert {"sd1", "sdxl"} <= set(answer.model.compatible_families)
    assert answer.model.components[0].precision == image_pb2.PRECISION_FLOAT32
    assert not grave(answer)


def test_an_adapter_tells_what_it_needs_beside_it(server: RunningServer, root: Path) -> None:
    answer = inspect(server, root / "loras" / "style.safetensors")
    assert (answer.model.kind, answer.model.family) == (model_pb2.MODEL_KIND_LORA, "sdxl")
    assert list(answer.model.requirements.companion_kinds) == [model_pb2.MODEL_KIND_CHECKPOINT]
    assert ("ss_base_model_version", "sdxl_base_v1-0") in {(one.name, one.value) for one in answer.model.metadata}
    assert any("kohya" in one.message for one in answer.findings)


def test_metadata_tells_what_was_distilled(server: RunningServer, root: Path) -> None:
    assert inspect(server, root / "checkpoints" / "turbo.safetensors").model.variant == "turbo"


def test_the_folder_of_one_component_is_told_with_its_config(server: RunningServer, root: Path) -> None:
    answer = inspect(server, root / "nsfw")
    assert answer.model.kind == model_pb2.MODEL_KIND_SAFETY_CLASSIFIER
    assert "config" in {one.source for one in answer.evidence if one.decisive}


@pytest.mark.parametrize(
    ("name", "reason", "text"),
    [
        ("what.safetensors", "MODEL_INCOMPATIBLE", "of a kind that the server knows"),
        ("broken.safetensors", "MODEL_CORRUPT", "claims a header"),
        ("old.ckpt", "MODEL_INCOMPATIBLE", "convert it"),
        ("notes.txt", "MODEL_INCOMPATIBLE", "no safetensors"),
        ("", "MODEL_INCOMPATIBLE", "one by one"),
    ],
)
def test_what_is_wrong_is_a_finding_with_the_remedy(
    server: RunningServer, root: Path, name: str, reason: str, text: str
) -> None:
    answer = inspect(server, root / "odd" / name)
    ((found, message),) = grave(answer)
    assert found == error_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
    assert text in message
    assert not answer.model.HasField("confidence_ratio")


def test_a_known_model_is_inspected_by_its_id_and_as_it_is_listed(server: RunningServer) -> None:
    request = model_service_pb2.InspectModelRequest(model_id="emoji-sd")
    answer = server.model.InspectModel(request, timeout=asking.CALL_S)
    listed = server.model.GetModel(model_service_pb2.GetModelRequest(model_id="emoji-sd")).model
    assert answer.registered
    assert answer.model == listed
    assert {one.source for one in answer.evidence} == {"model_index", "config", "tensor_names", "tensor_shapes"}
    assert not grave(answer)


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/etc/passwd", grpc.StatusCode.PERMISSION_DENIED, "PATH_OUTSIDE_ROOTS"),
        ("relative", grpc.StatusCode.PERMISSION_DENIED, "PATH_OUTSIDE_ROOTS"),
        ("nothing", grpc.StatusCode.NOT_FOUND, "PATH_NOT_FOUND"),
    ],
)
def test_a_path_outside_or_to_nothing_is_refused(
    server: RunningServer, root: Path, path: str, code: grpc.StatusCode, reason: str
) -> None:
    where = root / path if path == "nothing" else path
    refusal = asking.refused(lambda: inspect(server, where))
    assert (refusal.code, refusal.reason) == (code, reason)


def test_no_subject_and_blobs_that_are_not_there_are_refused(server: RunningServer) -> None:
    blobs = model_service_pb2.ModelBlobSource(files=[model_service_pb2.ModelBlobFile(path="a", blob_id="b")])
    for request, reason, field in (
        (model_service_pb2.InspectModelRequest(), "INVALID_FIELD", "subject"),
        (model_service_pb2.InspectModelRequest(blob_source=blobs), "BLOB_NOT_FOUND", ""),
    ):
        refusal = asking.refused(lambda request=request: server.model.InspectModel(request))
        assert (refusal.reason, refusal.fields) == (reason, [field] if field else [])


def test_a_scan_takes_files_and_components_and_refuses_pickles(server: RunningServer, root: Path) -> None:
    report = scanned(server)[-1].report
    known = models(server)
    assert {name: model_pb2.ModelKind.Name(known[name].kind).removeprefix("MODEL_KIND_") for name in known} == {
        "emoji-sd": "CHECKPOINT",
        "sd15": "CHECKPOINT",
        "turbo": "CHECKPOINT",
        "mute": "CHECKPOINT",
        "kl-f8": "VAE",
        "style": "LORA",
        "canny": "CONTROLNET",
        "nsfw": "SAFETY_CLASSIFIER",
        "what": "UNSPECIFIED",
        "broken": "UNSPECIFIED",
    }
    told = {Path(one.path).name: one.failure for one in report.failures}
    assert set(told) == {"old.ckpt", "broken.safetensors"}
    assert "convert it" in told["old.ckpt"].message
    assert known["sd15"].state == model_pb2.MODEL_STATE_AVAILABLE
    assert known["mute"].problem.message
    assert known["sd15"].source_path == str(root / "checkpoints" / "sd15.safetensors")
    again = scanned(server)[-1].report
    assert not [*again.added_model_ids, *again.changed_model_ids, *again.missing_model_ids]
    assert inspect(server, root / "loras" / "style.safetensors").registered


def test_the_list_filters_by_kind_family_and_what_fits_a_family(server: RunningServer) -> None:
    scanned(server)
    assert set(models(server, kinds=[model_pb2.MODEL_KIND_LORA])) == {"style"}
    assert set(models(server, families=["sdxl"])) == {"turbo", "style"}
    assert set(models(server, compatible_family="sd1")) == {"kl-f8", "canny"}
    assert set(models(server, compatible_family="sdxl")) == {"kl-f8", "style"}
    assert set(models(server, kinds=[model_pb2.MODEL_KIND_CHECKPOINT], families=["sd1"], loaded=False)) >= {
        "sd15",
        "mute",
    }


@pytest.mark.parametrize("order", ["UNSPECIFIED", "DISPLAY_NAME", "SIZE"])
def test_pages_survive_models_that_come_and_go_between_them(server: RunningServer, root: Path, order: str) -> None:
    scanned(server)
    request = model_service_pb2.ListModelsRequest(
        page_size=3, order=model_service_pb2.ModelOrder.Value(f"MODEL_ORDER_{order}")
    )
    first = server.model.ListModels(request)
    whole = server.model.ListModels(model_service_pb2.ListModelsRequest(order=request.order)).models
    new = [
        write_header(root / "new" / f"{name}.safetensors", {name: (size,)}) for name, size in (("0", 1), ("zz", 2**35))
    ]
    scanned(server)
    seen = [model.id for model in first.models]
    while first.next_page_token:
        request.page_token = first.next_page_token
        first = server.model.ListModels(request)
        seen += [model.id for model in first.models]
        assert not first.failures
    for path in new:
        path.unlink()
    scanned(server)
    assert [name for name in seen if name not in ("0", "zz")] == [
        model.id for model in whole if model.id not in ("0", "zz")
    ]
    assert len(seen) == len(set(seen))


def test_a_token_of_another_order_is_refused(server: RunningServer) -> None:
    scanned(server)
    token = server.model.ListModels(model_service_pb2.ListModelsRequest(page_size=1)).next_page_token
    for wrong in (token[:-4], "x" * 40, "!", token):
        request = model_service_pb2.ListModelsRequest(page_token=wrong, order=model_service_pb2.MODEL_ORDER_SIZE)
        refusal = asking.refused(lambda request=request: server.model.ListModels(request))
        assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["page_token"])


def test_a_model_that_is_none_is_refused_for_pictures_with_its_problem(server: RunningServer) -> None:
    scanned(server)
    asked = asking.picture()
    asked.model_id = "style"
    refusal = asking.refused(lambda: asking.submit(server, asked))
    assert (refusal.reason, "lora" in refusal.message) == ("MODEL_INCOMPATIBLE", True)


def test_the_command_says_what_a_file_is_and_why(
    server: RunningServer, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)
    assert run(("models", "inspect", str(root / "checkpoints" / "mute.safetensors"))) == 0
    told = capsys.readouterr().out
    assert "kind: checkpoint, 100 % of what was looked for is there" in told
    assert "input_blocks.0.0.weight" in told
    assert "error: it lacks text_encoder" in told
    assert run(("models", "inspect", "emoji")) == 0
    assert "model: emoji-sd (known)" in capsys.readouterr().out
