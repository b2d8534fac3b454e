"""Each computed family from a folder to a picture, through the server."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.model.v1 import execution_pb2, model_pb2, model_service_pb2
from domains.model.families import COMPUTED, FAMILIES
from tests.domains.inference.on_device.single_files import contents, give_configs, write_single
from tests.domains.inference.on_device.tiny_families import TINY, family_of_name, their_pipeline, write_tiny_family
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.test_models import models, scanned

EDGE_PX, SEED = 64, 11
SINGLE = "one-file"
"""The tiny SDXL as a single file."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each family."""
    root = tmp_path_factory.mktemp("families")
    for name in TINY:
        write_tiny_family(name, root / name)
    file = write_single(root / f"{SINGLE}.safetensors", contents("sdxl", root / "sdxl"))
    give_configs(file, root / "sdxl")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        scanned(running)
        # A device is listed once its worker has tried it.
        asking.watch(running, asking.submit(running))
        yield running


def asked(name: str) -> generation_pb2.Generation:
    return generation_pb2.Generation(
        model_id=name,
        prompt="a rocket",
        negative_prompt="fog",
        width_px=EDGE_PX,
        height_px=EDGE_PX,
        sampling=sampling_pb2.Sampling(steps=2, seed=SEED),
        previews=generation_pb2.PreviewOptions(every_steps=1, max_edge_px=16),
    )


@pytest.mark.parametrize("name", list(TINY))
def test_a_family_makes_the_picture_that_diffusers_makes(server: RunningServer, root: Path, name: str) -> None:
    updates = asking.watch(server, asking.submit(server, asked(name)))
    assert "preview" in asking.kinds(updates)
    result = updates[-1].generation_result
    ours = np.asarray(Image.open(io.BytesIO(asking.blob(server, result.images[0].file.blob_id))).convert("RGB"))
    theirs = their_picture(root / name, result.resolved.generation)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_a_single_file_makes_the_picture_of_its_folder(server: RunningServer) -> None:
    pictures: list[Any] = []
    for name in (SINGLE, "sdxl"):
        updates = asking.watch(server, asking.submit(server, asked(name)))
        blob = asking.blob(server, updates[-1].generation_result.images[0].file.blob_id)
        pictures.append(np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).astype(int))
    # Mapped weights lie at other places in the two files, which changes the last bit of sums.
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_a_model_of_parts_makes_the_picture_of_its_parts(server: RunningServer) -> None:
    vae = execution_pb2.ComponentSource(component_id="vae", model_id=SINGLE)
    source = model_service_pb2.ModelPartsSource(base_model_id="sdxl", components=[vae])
    request = model_service_pb2.RegisterModelRequest(model_id="mix", parts_source=source)
    made = server.model.RegisterModel(request, timeout=asking.CALL_S)
    assert (made.model.id, made.model.state) == ("mix", model_pb2.MODEL_STATE_AVAILABLE)
    assert made.model.id in models(server)
    pictures: list[Any] = []
    for name in ("mix", "sdxl"):
        updates = asking.watch(server, asking.submit(server, asked(name)))
        blob = asking.blob(server, updates[-1].generation_result.images[0].file.blob_id)
        pictures.append(np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_parts_that_do_not_fit_are_refused_with_the_field(server: RunningServer) -> None:
    vae = execution_pb2.ComponentSource(component_id="vae", model_id="flux1")
    source = model_service_pb2.ModelPartsSource(base_model_id="sdxl", components=[vae])
    request = model_service_pb2.RegisterModelRequest(model_id="wrong", parts_source=source)
    refusal = asking.refused(lambda: server.model.RegisterModel(request, timeout=asking.CALL_S))
    assert (refusal.reason, "latent_channels=16" in refusal.message) == ("MODEL_INCOMPATIBLE", True)
    assert "wrong" not in models(server)


def their_picture(folder: Path, resolved: generation_pb2.Generation) -> Any:
    family = family_of_name(folder.name)
    pipe = their_pipeline(folder)
    picture = pipe(
        prompt=resolved.prompt,
        **({"negative_prompt": resolved.negative_prompt} if FAMILIES[family].guidance_off is not None else {}),
        height=resolved.height_px,
        width=resolved.width_px,
        num_inference_steps=resolved.sampling.steps,
        guidance_scale=resolved.sampling.guidance_scale,
        generator=torch.Generator().manual_seed(resolved.sampling.seeds[0]),
    ).images[0]
    return np.asarray(picture)


def test_each_family_says_what_its_requests_may_contain(server: RunningServer) -> None:
    request = inference_service_pb2.GetInferenceCapabilitiesRequest()
    told = server.inference.GetInferenceCapabilities(request, timeout=asking.CALL_S)
    assert {one.family for one in told.capabilities} == {"sd1", *map(family_of_name, TINY)} == set(COMPUTED)
    assert {name: model.family for name, model in models(server).items() if name in TINY} == {
        name: family_of_name(name) for name in TINY
    }
    for capability in told.capabilities:
        guidance = next(field for field in capability.fields if field.field == "sampling.guidance_scale")
        assert float(guidance.default_value) == FAMILIES[capability.family].default_guidance
        flow = FAMILIES[capability.family].flow
        assert ("dpmpp_2m" in capability.samplers, "sgm_uniform" in capability.sigma_schedules) == (not flow, not flow)
        assert capability.samplers[0] == "euler"
        assert capability.prompt_window_tokens == FAMILIES[capability.family].prompt_tokens


def test_a_sampler_that_does_not_walk_a_family_is_refused_with_those_that_do(server: RunningServer) -> None:
    flow = asked("flux1")
    flow.sampling.sampler = "dpmpp_2m"
    refusal = asking.refused(lambda: asking.submit(server, flow))
    assert refusal.reason == "UNSUPPORTED_COMBINATION"
    (violation,) = refusal.bad_request.field_violations
    assert violation.field == "spec.generation.sampling.sampler"
    assert "euler, heun" in violation.description


def test_a_distilled_model_takes_few_steps_by_itself(server: RunningServer) -> None:
    request = inference_service_pb2.GetInferenceCapabilitiesRequest(model_id="flux1-schnell")
    (model,) = server.inference.GetInferenceCapabilities(request, timeout=asking.CALL_S).models
    assert (model.default_steps, model.default_guidance_scale, model.default_sampler) == (4, 0.0, "euler")
