"""IP-Adapters from a folder to a picture, through the server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2, sampling_pb2
from deviceops.model.v1 import model_pb2
from domains.imaging import encode
from tests.domains.inference.on_device.image_prompt_files import (
    EDGE_PX,
    adapter_tensors,
    picture,
    write_encoder,
    write_siglip,
)
from tests.domains.inference.on_device.tiny_families import their_pipeline, write_parts, write_tiny_family
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.test_families import WIDE, pixels
from tests.server.test_models import models, scanned

TRANSFORMERS = {"flux1": ("xlabs", "image_encoder"), "sd3": ("instantx", "siglip")}
"""By family: whose names its adapter has, and the encoder that it reads with."""
_diffusers: Any = diffusers  # which imports its classes when they are asked for
SIZE_PX, SEED = 64, 11


def wide_pipeline(root: Path) -> Any:
    """Diffusers' own for the wide model."""
    pipe = _diffusers.StableDiffusionPipeline.from_pretrained(root / "wide", local_files_only=True, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as wide as Stable Diffusion 2, an adapter for it with its encoder, and an adapter without one."""
    root = tmp_path_factory.mktemp("prompted")
    write_parts(*WIDE, root / "wide")
    write_tiny_family("sdxl", root / "sdxl")
    write_tiny_family("z_image", root / "z_image")
    write_siglip(root / "siglip")
    for family, (names, _) in TRANSFORMERS.items():
        write_tiny_family(family, root / family)
        own = adapter_tensors(their_pipeline(root / family).transformer, names)
        save_file(own, root / f"shown-{family}.safetensors")
    unseen = load_file(root / "shown-sd3.safetensors")
    unseen["image_proj.proj_in.weight"] = torch.zeros(64, 7)
    save_file(unseen, root / "unseen.safetensors")
    unet: Any = wide_pipeline(root).unet
    write_encoder(root / "image_encoder")
    save_file(adapter_tensors(unet, "plain"), root / "pictured.safetensors")
    other = adapter_tensors(unet, "plain")
    other["image_proj.proj.weight"] = torch.zeros(4 * 1024, 7)
    save_file(other, root / "blind.safetensors")
    faces = adapter_tensors(unet, "plain")
    faces["image_proj.proj.2.weight"] = faces.pop("image_proj.proj.weight")
    faces["ip_adapter.0.to_q_lora.down.weight"] = torch.zeros(2, 2)
    save_file(faces, root / "faces.safetensors")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        scanned(running)
        asking.watch(running, asking.submit(running))
        yield running


def shown(seed: int = 1, width: int = EDGE_PX, height: int = EDGE_PX) -> image_pb2.ImageInput:
    whole = picture(seed, max(width, height)).numpy()
    return image_pb2.ImageInput(data=encode(np.ascontiguousarray(whole[:height, :width]), "image/png"))


def asked(model: str = "wide") -> generation_pb2.Generation:
    return generation_pb2.Generation(
        prompt="a rocket",
        negative_prompt="fog",
        model_id=model,
        width_px=SIZE_PX,
        height_px=SIZE_PX,
        sampling=sampling_pb2.Sampling(steps=2, seed=SEED, sampler="euler"),
    )


def prompted(adapter: str = "pictured", model: str = "wide", **more: Any) -> generation_pb2.Generation:
    generation = asked(model)
    given: dict[str, Any] = {"images": [shown()], **more}
    generation.image_prompts.append(conditioning_pb2.ImagePrompt(model_id=adapter, **given))
    return generation


def made(server: RunningServer, generation: generation_pb2.Generation) -> Any:
    return asking.watch(server, asking.submit(server, generation))[-1].generation_result


def test_a_scan_says_what_an_adapter_needs(server: RunningServer) -> None:
    found = models(server)
    adapter, faces = found["pictured"], found["faces"]
    assert (adapter.kind, adapter.family, adapter.state) == (
        model_pb2.MODEL_KIND_IMAGE_PROMPT_ADAPTER,
        "sd2",
        model_pb2.MODEL_STATE_AVAILABLE,
    )
    assert found["image_encoder"].state == model_pb2.MODEL_STATE_AVAILABLE
    assert faces.state == model_pb2.MODEL_STATE_INCOMPATIBLE
    assert "face recogniser" in faces.problem.message


def test_an_ip_adapter_shows_its_picture_as_in_diffusers_and_the_result_names_all_that_took_part(
    server: RunningServer, root: Path
) -> None:
    result = made(server, prompted(weight=0.6))
    resolved = result.resolved
    (told,) = resolved.generation.image_prompts
    assert (told.weight, told.end_ratio, told.mode) == (
        pytest.approx(0.6),
        1.0,
        conditioning_pb2.IMAGE_PROMPT_MODE_CONTENT_AND_STYLE,
    )
    assert [(one.role, one.model_id) for one in resolved.used_models[1:]] == [
        ("ip_adapter", "pictured"),
        ("image_encoder", "image_encoder"),
    ]
    assert [one.field for one in resolved.used_images] == ["image_prompts[0].images[0]"]
    pipe = wide_pipeline(root)
    encoder: Any = transformers.CLIPVisionModelWithProjection.from_pretrained(root / "image_encoder")
    reader = transformers.CLIPImageProcessor(size=EDGE_PX, crop_size=EDGE_PX)
    pipe.register_modules(image_encoder=encoder.eval(), feature_extractor=reader)
    pipe.load_ip_adapter(str(root), subfolder="", weight_name="pictured.safetensors", image_encoder_folder=None)
    pipe.set_ip_adapter_scale(0.6)
    theirs = pipe(
        prompt="a rocket",
        negative_prompt="fog",
        ip_adapter_image=Image.fromarray(picture(1).numpy()),
        width=SIZE_PX,
        height=SIZE_PX,
        num_inference_steps=2,
        guidance_scale=resolved.generation.sampling.guidance_scale,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    found = pixels(server, result).astype(int)
    assert np.abs(found - np.asarray(theirs).astype(int)).max() <= 1
    # What was resolved, sent again, is the same; without the adapter, the picture is the model's own.
    again = generation_pb2.Generation()
    again.CopyFrom(resolved.generation)
    assert made(server, again).images[0].file.sha256 == result.images[0].file.sha256
    plain, nothing = made(server, asked()), made(server, prompted(weight=0.0))
    assert np.array_equal(pixels(server, plain), pixels(server, nothing))
    assert np.abs(pixels(server, plain).astype(int) - found).max() > 1


def _their_picture(root: Path, family: str, resolved: generation_pb2.Generation) -> Any:
    """Of diffusers' pipeline with the family's adapter."""
    pipe, folder = their_pipeline(root / family), root / TRANSFORMERS[family][1]
    flux, size = family == "flux1", {"height": EDGE_PX, "width": EDGE_PX}
    encoder: Any = transformers.CLIPVisionModelWithProjection if flux else transformers.SiglipVisionModel
    clip, siglip = transformers.CLIPImageProcessor, transformers.SiglipImageProcessor
    reader = clip(size=EDGE_PX, crop_size=EDGE_PX) if flux else siglip(size=size)
    pipe.register_modules(image_encoder=encoder.from_pretrained(folder).eval(), feature_extractor=reader)
    pipe.load_ip_adapter(str(root), weight_name=f"shown-{family}.safetensors")
    pipe.set_ip_adapter_scale(0.6)
    sampling = resolved.sampling
    guidance = {"guidance_scale": sampling.guidance_scale}
    if flux:
        guidance = {"guidance_scale": sampling.distilled_guidance, "true_cfg_scale": sampling.guidance_scale}
    return pipe(
        prompt="a rocket",
        negative_prompt="fog",
        ip_adapter_image=Image.fromarray(picture(1, 40).numpy()[:, :33]),
        width=SIZE_PX,
        height=SIZE_PX,
        num_inference_steps=2,
        **guidance,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]


@pytest.mark.parametrize("family", list(TRANSFORMERS))
def test_an_ip_adapter_of_a_transformer_shows_its_picture_as_in_diffusers(
    server: RunningServer, root: Path, family: str
) -> None:
    adapter = models(server)[f"shown-{family}"]
    assert (adapter.compatible_families[0], adapter.state) == (family, model_pb2.MODEL_STATE_AVAILABLE)
    # Not as high as wide: CLIP's pictures are cut to a square, SigLIP's are squeezed.
    result = made(server, prompted(f"shown-{family}", family, images=[shown(1, 33, 40)], weight=0.6))
    assert [(one.role, one.model_id) for one in result.resolved.used_models[1:]] == [
        ("ip_adapter", f"shown-{family}"),
        ("image_encoder", TRANSFORMERS[family][1]),
    ]
    theirs = _their_picture(root, family, result.resolved.generation)
    found = pixels(server, result).astype(int)
    assert np.abs(found - np.asarray(theirs).astype(int)).max() <= 1
    again = made(server, result.resolved.generation)
    assert again.images[0].file.sha256 == result.images[0].file.sha256
    plain = made(server, asked(family))
    assert np.abs(pixels(server, plain).astype(int) - found).max() > 1


def _masked(generation: generation_pb2.Generation) -> None:
    generation.init_image.image.CopyFrom(shown(3, SIZE_PX, SIZE_PX))
    half = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    half[:, : SIZE_PX // 2] = 255
    generation.mask.image.data = encode(half, "image/png")


def _again(generation: generation_pb2.Generation) -> None:
    # From noise alone: what the first pass made does not count.
    generation.hires_pass.scale, generation.hires_pass.strength = 1.5, 1.0


@pytest.mark.parametrize("family", list(TRANSFORMERS))
def test_pictures_of_a_transformer_guide_a_masked_part_and_a_second_pass(server: RunningServer, family: str) -> None:
    for change in (_masked, _again):
        both = prompted(f"shown-{family}", family), asked(family)
        for one in both:
            change(one)
        found, plain = (pixels(server, made(server, one)).astype(int) for one in both)
        assert np.abs(found - plain).max() > 1
    assert found.shape == (SIZE_PX * 3 // 2, SIZE_PX * 3 // 2, 3)


def test_a_region_of_any_size_and_pictures_of_any_shape_are_taken(server: RunningServer) -> None:
    whole = made(server, prompted(images=[shown(1, 40, 60), shown(2, 90, 33)]))
    region = image_pb2.ImageInput(data=encode(np.full((10, 20), 255, np.uint8), "image/png"))
    same = made(server, prompted(images=[shown(1, 40, 60), shown(2, 90, 33)], region=region))
    assert np.abs(pixels(server, whole).astype(int) - pixels(server, same).astype(int)).max() <= 1
    assert [one.field for one in same.resolved.used_images] == [
        "image_prompts[0].images[0]",
        "image_prompts[0].images[1]",
        "image_prompts[0].region",
    ]


def _hundred() -> generation_pb2.Generation:
    generation = prompted()
    generation.image_prompts.extend([generation.image_prompts[0]] * 99)
    return generation


STYLE, FACE = conditioning_pb2.IMAGE_PROMPT_MODE_STYLE, conditioning_pb2.IMAGE_PROMPT_MODE_FACE
BAD: dict[str, tuple[Callable[[], generation_pb2.Generation], str, str]] = {
    "a_hundred": (_hundred, "INVALID_FIELD", "at most 8"),
    "no_pictures": (lambda: prompted(images=[]), "INVALID_FIELD", "reads 1..16"),
    "many_pictures": (lambda: prompted(images=[shown()] * 17), "INVALID_FIELD", "has 17 pictures"),
    "no_picture": (lambda: prompted(images=[image_pb2.ImageInput(data=b"no")]), "BAD_IMAGE", ""),
    "of_another_family": (lambda: prompted(model="sdxl"), "MODEL_INCOMPATIBLE", "sd2"),
    "no_adapter": (lambda: prompted("sdxl"), "MODEL_INCOMPATIBLE", "is a checkpoint and no IP-Adapter"),
    "for_faces": (lambda: prompted("faces"), "MODEL_INCOMPATIBLE", "face recogniser"),
    "without_its_encoder": (lambda: prompted("blind"), "COMPONENT_MISSING", "embeddings of 7"),
    "a_family_without": (lambda: prompted(model="z_image"), "UNSUPPORTED_COMBINATION", "z_image"),
    "of_flux_for_sd3": (lambda: prompted("shown-flux1", "sd3"), "MODEL_INCOMPATIBLE", "models of flux1"),
    "of_a_unet_for_flux": (lambda: prompted(model="flux1"), "MODEL_INCOMPATIBLE", "models of sd2"),
    "without_its_siglip": (
        lambda: prompted("unseen", "sd3"),
        "COMPONENT_MISSING",
        "a SigLIP image encoder with hidden",
    ),
    "a_mode_of_a_transformer": (
        lambda: prompted("shown-sd3", "sd3", mode=STYLE),
        "UNSUPPORTED_COMBINATION",
        "family sd3",
    ),
    "a_mode_without_layers": (lambda: prompted(mode=STYLE), "UNSUPPORTED_COMBINATION", "sd2"),
    "a_face": (lambda: prompted(mode=FACE), "NOT_IMPLEMENTED", "does not serve"),
    "ends_before_it_starts": (lambda: prompted(start_ratio=0.5, end_ratio=0.5), "INVALID_FIELD", "end at 0.5"),
    "unknown": (lambda: prompted("nowhere"), "MODEL_NOT_FOUND", "nowhere"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_an_image_prompt_that_cannot_guide_is_refused_before_there_is_a_job(server: RunningServer, case: str) -> None:
    generation, reason, told = BAD[case]
    refusal = asking.refused(lambda: asking.submit(server, generation()))
    said = refusal.message + "".join(one.description for one in refusal.bad_request.field_violations)
    assert (refusal.reason, told in said) == (reason, True), said
