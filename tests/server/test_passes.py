"""Components of other models, and passes beside the first one, through the server."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.model.v1 import execution_pb2, model_service_pb2
from tests.domains.inference.on_device.tiny_families import their_pipeline, vae, write_tiny_family
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.test_models import scanned

EDGE_PX, SEED = 64, 11


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, and a VAE by itself."""
    root = tmp_path_factory.mktemp("passes")
    for name in ("sdxl", "sd3"):
        write_tiny_family(name, root / name)
    torch.manual_seed(5)
    vae(4)(root).save_pretrained(root / "other-vae")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        scanned(running)
        yield running


def asked(name: str, **more: Any) -> generation_pb2.Generation:
    return generation_pb2.Generation(
        model_id=name,
        prompt="a rocket",
        negative_prompt="fog",
        width_px=EDGE_PX,
        height_px=EDGE_PX,
        sampling=sampling_pb2.Sampling(steps=2, seed=SEED),
        **more,
    )


def made(server: RunningServer, generation: generation_pb2.Generation) -> Any:
    return asking.watch(server, asking.submit(server, generation))[-1].generation_result


def file_of(server: RunningServer, result: Any) -> bytes:
    return asking.blob(server, result.images[0].file.blob_id)


def shown(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)


def theirs(pipe: Any, **more: Any) -> Any:
    """Diffusers' own picture."""
    picture = pipe(
        prompt="a rocket",
        negative_prompt="fog",
        height=EDGE_PX,
        width=EDGE_PX,
        num_inference_steps=2,
        guidance_scale=7.0 if "3" in type(pipe).__name__ else 5.0,
        generator=torch.Generator().manual_seed(SEED),
        **more,
    ).images[0]
    return np.asarray(picture).astype(int)


VAE = execution_pb2.ComponentSource(component_id="vae", model_id="other-vae")
NO_T5 = execution_pb2.ComponentSource(component_id="text_encoder_3", omitted=True)


def plan(server: RunningServer, generation: generation_pb2.Generation) -> Any:
    request = inference_service_pb2.PlanGenerationRequest(generation=generation)
    return server.inference.PlanGeneration(request, timeout=asking.CALL_S)


def test_another_vae_makes_the_picture_of_diffusers_with_it_and_leaves_no_trace(
    server: RunningServer, root: Path
) -> None:
    before = file_of(server, made(server, asked("sdxl")))
    planned = plan(server, asked("sdxl", components=[VAE]))
    (load,) = planned.estimate.loads
    there = loaded(server, "sdxl@cpu")
    parts = {one.component_id: one.device_bytes or one.host_bytes or one.mapped_bytes for one in there.components}
    assert load.device_bytes == parts["vae"], "all other components are there"
    result = made(server, asked("sdxl", components=[VAE]))
    pipe = their_pipeline(root / "sdxl")
    pipe.vae = type(pipe.vae).from_pretrained(root / "other-vae")
    assert np.abs(shown(file_of(server, result)) - theirs(pipe)).max() <= 1
    (told,) = result.resolved.generation.components
    assert (told.component_id, told.model_id, told.omitted) == ("vae", "other-vae", False)
    assert [(one.role, one.model_id, len(one.sha256)) for one in result.resolved.used_models] == [
        ("base", "sdxl", 64),
        ("vae", "other-vae", 64),
    ]
    assert file_of(server, made(server, result.resolved.generation)) == file_of(server, result)
    assert file_of(server, made(server, asked("sdxl"))) == before


def loaded(server: RunningServer, name: str) -> Any:
    request = model_service_pb2.GetLoadedModelRequest(loaded_model_id=name)
    return server.model.GetLoadedModel(request, timeout=asking.CALL_S).loaded_model


def test_sd3_without_t5_makes_the_picture_of_diffusers_and_shares_the_rest(server: RunningServer, root: Path) -> None:
    whole = shown(file_of(server, made(server, asked("sd3"))))
    result = made(server, asked("sd3", components=[NO_T5]))
    pipe = their_pipeline(root / "sd3")
    pipe.text_encoder_3 = pipe.tokenizer_3 = None
    found = shown(file_of(server, result))
    assert np.abs(found - theirs(pipe)).max() <= 1
    assert np.abs(found - whole).max() > 1
    without = loaded(server, "sd3+text_encoder_3=@cpu")
    assert "text_encoder_3" not in {one.component_id for one in without.components}
    assert [(one.component_id, one.omitted) for one in result.resolved.generation.components] == [
        ("text_encoder_3", True)
    ]


REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "unknown": ("sdxl", {"component_id": "text_encoder_3", "omitted": True}, "INVALID_FIELD", "no component"),
    "twice": ("sdxl", {"component_id": "", "model_id": "other-vae"}, "INVALID_FIELD", "each one once"),
    "needed": ("sdxl", {"component_id": "vae", "omitted": True}, "COMPONENT_MISSING", "do not work without vae"),
    "both": (
        "sd3",
        {"component_id": "vae", "model_id": "sdxl", "omitted": True},
        "UNSUPPORTED_COMBINATION",
        "not both",
    ),
    "of another family": (
        "sdxl",
        {"component_id": "vae", "model_id": "sd3"},
        "MODEL_INCOMPATIBLE",
        "name one that fits",
    ),
    "not in the source": (
        "sdxl",
        {"component_id": "unet", "model_id": "other-vae"},
        "COMPONENT_MISSING",
        "has no component unet",
    ),
    "nowhere": ("sdxl", {"component_id": "vae", "model_id": "nowhere"}, "MODEL_NOT_FOUND", "nowhere"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_component_that_cannot_be_taken_is_refused_by_name_before_any_step(server: RunningServer, case: str) -> None:
    model, source, reason, words = REFUSED[case]
    generation = asked(model, components=[execution_pb2.ComponentSource(**source)])
    refusal = asking.refused(lambda: asking.submit(server, generation))
    told = refusal.message + " ".join(one.description for one in refusal.bad_request.field_violations)
    assert (refusal.reason, words in told) == (reason, True), told
