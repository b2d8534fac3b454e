"""FLUX.1 Depth and Canny, and Stable Diffusion 2 Depth, which read a map beside their latents, against diffusers' pipelines:
on random weights, with the same map and noise."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from domains.errors import InvalidRequest
from domains.inference.controls import PictureSource
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.guidance import default_distilled
from domains.inference.input_picture import InputPicture
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.packing import packed, unpacked
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.inpainting import masked_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import begin, walk_together
from domains.inference.references import Reference
from domains.inference.resolution.request_files import RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.model.model import ModelState
from domains.model.on_device import OnDeviceModel, load
from tests.domains.inference.on_device.control_files import stripes
from tests.domains.inference.on_device.from_picture import encoded, their_latents_from
from tests.domains.inference.on_device.masked import scene_of, their_masked_latents
from tests.domains.inference.on_device.requests import their_guidance
from tests.domains.inference.on_device.test_editing import asked
from tests.domains.inference.on_device.test_every_family import TOLERANCE, gap
from tests.domains.inference.on_device.test_guided_pictures import START, WAYS, WHITE
from tests.domains.inference.on_device.tiny_families import TINY, flux, unet, write_parts
from tests.domains.inference.on_device.transformer_controls import encoded_without_noise

MAP, OTHER = stripes(48, 32), stripes(48, 32, 77)
_theirs: Any = diffusers


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> OnDeviceModel:
    reads = ("FluxTransformer2DModel", flux(guidance=True, in_channels=128, out_channels=64))
    parts = {**TINY["flux1"][1], "transformer": reads}
    model = write_parts("FluxControlPipeline", parts, tmp_path_factory.mktemp("control") / "flux1")
    assert (model.family, model.variant, model.state, model.problem) == ("flux1", "control", ModelState.AVAILABLE, "")
    return load(model, "cpu")


def wants(loaded: OnDeviceModel, way: str) -> ResolvedGeneration:
    """Diffusers' pipelines for these models read no negative prompt."""
    changes = {"steps": 3, "seeds": (3, 9)} if way == "noise" else WAYS[way]
    return asked(loaded.model, guidance_scale=1.0, **changes)


def ours(loaded: OnDeviceModel, wanted: ResolvedGeneration, map_px: Tensor = MAP) -> Tensor:
    """Our final latents. The picture's latents are the middle of their distribution."""
    view, config, start, masked = family_of(loaded), loaded.scheduler_config, None, None
    with torch.inference_mode():
        found = condition(loaded, view, wanted, PromptCache(), pictures=[view.encode_reference(map_px)])
        if wanted.init_image is not None:
            scene = scene_of(wanted, START, WHITE)
            start = encoded(view, torch.from_numpy(scene.start), drawn=False)
            shape = view.latent_shape(wanted.width_px, wanted.height_px)
            masked = None if wanted.mask is None else masked_of(wanted, scene, shape)
        trajectory = begin(view, wanted, config, found.conditions, loaded.device, start, masked=masked)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


def theirs(loaded: OnDeviceModel, wanted: ResolvedGeneration) -> Tensor:
    pipe = _theirs.FluxControlPipeline.from_pretrained(loaded.model.folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.asarray(MAP))
    with encoded_without_noise():
        if wanted.mask is not None:
            found = their_masked_latents(pipe, wanted, START, WHITE, control_image=image)
        elif wanted.init_image is not None:
            found = their_latents_from(pipe, wanted, START, control_image=image)
        else:
            shape = family_of(loaded).latent_shape(wanted.width_px, wanted.height_px)
            drawn = [torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)) for seed in wanted.seeds]
            made = pipe(
                prompt=[wanted.prompt] * len(drawn),
                control_image=image,
                width=wanted.width_px,
                height=wanted.height_px,
                num_inference_steps=wanted.steps,
                **their_guidance(wanted),
                latents=packed(torch.cat(drawn)),
                output_type="latent",
            ).images
            found = unpacked(made, *shape[1:])
    assert found is not None, "diffusers has the pipeline"
    return found


@pytest.mark.parametrize("way", ["noise", *WAYS])
def test_the_latents_with_a_map_beside_them_are_those_of_diffusers(loaded: OnDeviceModel, way: str) -> None:
    wanted = wants(loaded, way)
    found = ours(loaded, wanted)
    assert gap(found, theirs(loaded, wanted)) < TOLERANCE
    assert gap(found, ours(loaded, wanted, OTHER)) > 0.01


READ = InputPicture(blob_id="b-1", sha256="0" * 64, width_px=300, height_px=200)


def test_the_map_has_the_size_of_the_result_and_is_asked_for(loaded: OnDeviceModel) -> None:
    one = (Reference(image=PictureSource(blob_id="b-1")),)
    wanted = Generation(prompt="x", references=one, width_px=64, height_px=96)
    found = resolve(wanted, loaded.model, RequestFiles(references=[READ]))
    assert [(one.width_px, one.height_px) for one in found.references] == [(64, 96)]
    assert found.distilled_guidance == default_distilled(loaded.model) == 10.0
    with pytest.raises(InvalidRequest, match="sees 1"):
        resolve(Generation(prompt="x"), loaded.model, RequestFiles())


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> OnDeviceModel:
    reads = unet(cross_attention_dim=32, attention_head_dim=(2, 4), in_channels=5, out_channels=4)
    parts = {**TINY["sd2"][1], "unet": ("UNet2DConditionModel", reads)}
    model = write_parts("StableDiffusionPipeline", parts, tmp_path_factory.mktemp("depth") / "sd2")
    assert (model.family, model.variant, model.state, model.problem) == ("sd2", "depth", ModelState.AVAILABLE, "")
    return load(model, "cpu")


@pytest.mark.parametrize("changes", [{}, {"seeds": (3, 9), "guidance_scale": 1.0}])
def test_the_latents_with_a_depth_map_beside_them_are_those_of_diffusers(
    depth: OnDeviceModel, changes: dict[str, Any]
) -> None:
    wanted = asked(depth.model, **WAYS["whole"], **changes)
    plain = _theirs.StableDiffusionPipeline.from_pretrained(
        depth.model.folder, dtype=torch.float32, safety_checker=None
    )
    kept = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    pipe = _theirs.StableDiffusionDepth2ImgPipeline(
        **{name: plain.components[name] for name in kept}, depth_estimator=None, feature_extractor=None
    )
    pipe.set_progress_bar_config(disable=True)
    count, grey = len(wanted.seeds), MAP[..., :1].expand(-1, -1, 3)
    with encoded_without_noise():
        expected = pipe(
            prompt=[wanted.prompt] * count,
            negative_prompt=[wanted.negative_prompt] * count,
            image=[Image.fromarray(np.asarray(START))] * count,
            depth_map=grey[..., 0][None].float(),
            strength=0.5,
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in wanted.seeds],
            output_type="latent",
        ).images
    found = ours(depth, wanted, grey)
    assert gap(found, expected) < TOLERANCE
    assert gap(found, ours(depth, wanted, OTHER)) > 0.01
    assert torch.isfinite(ours(depth, wanted, torch.zeros_like(MAP))).all()
