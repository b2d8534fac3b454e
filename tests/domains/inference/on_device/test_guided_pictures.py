"""Pictures made from a picture, whole or in part, that image prompts or a ControlNet guide beside it: against diffusers'
pipelines of SDXL, FLUX.1, SD3 and Chroma, on random weights, with the same noise. `test_mixes` has those of SD 1.x."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from domains.inference.control_types import CONTROL_MODES
from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.guides import NO_GUIDES, Guides
from domains.model.model import Model
from tests.domains.inference.on_device import test_image_prompts as of_unet
from tests.domains.inference.on_device.control_files import control, stripes
from tests.domains.inference.on_device.control_files import given as control_given
from tests.domains.inference.on_device.from_picture import from_picture, gradient, latents_from, their_latents_from
from tests.domains.inference.on_device.image_prompt_files import given, image_prompt, picture
from tests.domains.inference.on_device.masked import levels, mask, masked_latents, their_masked_latents
from tests.domains.inference.on_device.test_controls import Guided as GuidedUNet
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, gap
from tests.domains.inference.on_device.test_transformer_controls import Guided, typed
from tests.domains.inference.on_device.test_transformer_image_prompts import Prompted, with_theirs, write_family
from tests.domains.inference.on_device.test_union_controls import write_union
from tests.domains.inference.on_device.tiny_families import write_tiny_family
from tests.domains.inference.on_device.transformer_controls import encoded_without_noise

_theirs: Any = diffusers
START, WHITE = gradient(48, 32), levels(48, 32, (16, 8, 40, 24))
WAYS: dict[str, dict[str, Any]] = {
    "whole": {"steps": 4, "init_image": from_picture(0.5)},
    "in_part": {"steps": 4, "init_image": from_picture(0.75), "mask": mask()},
}


def ours(family: Loaded, wanted: ResolvedGeneration, guides: Guides = NO_GUIDES, *, drawn: bool = True) -> Tensor:
    """Our final latents."""
    if wanted.mask is None:
        return latents_from(family.ours, wanted, START, guides, drawn=drawn)
    return masked_latents(family.ours, wanted, START, WHITE, guides, drawn=drawn)


def theirs(pipe: Any, wanted: ResolvedGeneration, **more: Any) -> Tensor:
    """Those of diffusers' pipeline for pictures from pictures, or for masked ones, with the parts of `pipe`."""
    if wanted.mask is None:
        found = their_latents_from(pipe, wanted, START, **more)
    else:
        found = their_masked_latents(pipe, wanted, START, WHITE, **more)
    assert found is not None, "diffusers has the pipeline"
    return found


@pytest.fixture(scope="module", params=["flux1", "sd3", "chroma"])
def prompted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prompted:
    folder = tmp_path_factory.mktemp("prompted")
    name: str = request.param
    write = write_tiny_family if name == "chroma" else write_family
    return Prompted(write(name, folder / name), folder)


@pytest.mark.parametrize("way", list(WAYS))
def test_an_image_prompt_counts_beside_the_picture_as_in_diffusers(
    prompted: Prompted, tmp_path: Path, way: str
) -> None:
    shown = picture(1)
    wanted = asked(prompted, image_prompts=(prompted.shown(weight=0.7),), **WAYS[way])
    files = [given(prompted.adapter, prompted.encoder, [shown], tmp_path)]
    found = ours(prompted, wanted, Guides(image_prompts=prompted.of(wanted, files, "job")))
    expected = theirs(with_theirs(prompted, wanted), wanted, ip_adapter_image=Image.fromarray(shown.numpy()))
    assert gap(found, expected) < TOLERANCE
    # The pictures show: it is no rounding that is compared.
    assert gap(found, ours(prompted, asked(prompted, **WAYS[way]))) > 0.01


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Guided:
    folder = tmp_path_factory.mktemp("guided")
    return Guided(write_tiny_family("flux1", folder / "flux1"), folder)


def their_pipe(guided: Guided, net: Model) -> Any:
    """Diffusers' pipeline with a ControlNet, whose parts those from pictures share."""
    parts = {name: one for name, one in guided.theirs.components.items() if one is not None}
    return _theirs.FluxControlNetPipeline(**parts, controlnet=_theirs.FluxControlNetModel.from_pretrained(net.folder))


@pytest.mark.parametrize("kind", ["flux1", "flux1-union"])
@pytest.mark.parametrize("way", list(WAYS))
def test_a_controlnet_guides_beside_the_picture_as_in_diffusers(
    guided: Guided, tmp_path: Path, way: str, kind: str
) -> None:
    """Of FLUX.1 alone: diffusers has no such pipeline for other transformers. It has none with a negative prompt."""
    net, map_px, told = guided.nets[kind], stripes(48, 32), typed(kind)
    wanted = asked(guided, guidance_scale=1.0, controls=(control(net, weight=0.8, end_ratio=0.7, **told),), **WAYS[way])
    controls = guided.of(wanted, [control_given(net, map_px, tmp_path)])
    found = ours(guided, wanted, Guides(controls=controls), drawn=False)
    pipe = their_pipe(guided, net)
    with encoded_without_noise():
        expected = theirs(
            pipe,
            wanted,
            control_image=Image.fromarray(np.asarray(map_px)),
            controlnet_conditioning_scale=0.8,
            control_guidance_end=0.7,
            control_mode=CONTROL_MODES["flux1"][told["control_type"]] if told else None,
        )
    assert gap(found, expected) < TOLERANCE
    assert gap(found, ours(guided, asked(guided, guidance_scale=1.0, **WAYS[way]), drawn=False)) > 0.01


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> GuidedUNet:
    folder = tmp_path_factory.mktemp("sdxl")
    return GuidedUNet(write_tiny_family("sdxl", folder / "sdxl"), folder)


@pytest.mark.parametrize("way", list(WAYS))
def test_an_image_prompt_of_sdxl_counts_beside_the_picture_as_in_diffusers(tmp_path: Path, way: str) -> None:
    family = of_unet.Prompted(write_tiny_family("sdxl", tmp_path / "sdxl"), tmp_path)
    shown, adapter = picture(1), family.adapters["plain"]
    prompts = (image_prompt(adapter, family.encoder, weight=0.7),)
    wanted = asked(family, sampler="euler", image_prompts=prompts, **WAYS[way])
    files = [given(adapter, family.encoder, [shown], tmp_path)]
    found = ours(family, wanted, Guides(image_prompts=family.of(wanted, files)))
    pipe = of_unet.with_theirs(family, wanted)
    expected = theirs(pipe, wanted, ip_adapter_image=[[Image.fromarray(shown.numpy())]])
    assert gap(found, expected) < TOLERANCE
    assert gap(found, ours(family, asked(family, sampler="euler", **WAYS[way]))) > 0.01


@pytest.mark.parametrize("kind", ["ControlNet", "ControlNetUnion"])
@pytest.mark.parametrize("way", list(WAYS))
def test_a_controlnet_of_sdxl_guides_beside_the_picture_as_in_diffusers(
    sdxl: GuidedUNet, tmp_path: Path, way: str, kind: str
) -> None:
    union = kind == "ControlNetUnion"
    net = write_union(tmp_path / "union", sdxl.ours) if union else sdxl.nets[0]
    told = [{"control_type": "depth"}, {"control_type": "pose"}] if union else [{}, {}]
    maps = [stripes(48, 32), stripes(48, 32, 7)]
    # In steps in which no map counts, diffusers adds what a union network finds in maps of weight 0.
    end = 1.0 if union else 0.7
    controls = tuple(control(net, weight=0.8, end_ratio=end, **one) for one in told)
    wanted = asked(sdxl, sampler="euler", controls=controls, **WAYS[way])
    found = ours(sdxl, wanted, Guides(controls=sdxl.of(wanted, [control_given(net, one, tmp_path) for one in maps])))
    load = getattr(_theirs, f"{kind}Model").from_pretrained
    nets = load(net.folder) if union else [load(net.folder) for _ in maps]
    pipe = getattr(_theirs, f"StableDiffusionXL{kind}Pipeline")(
        **{**sdxl.theirs.components, "add_watermarker": False}, controlnet=nets
    )
    modes = {"control_mode": [CONTROL_MODES["sdxl"][one["control_type"]] for one in told]} if union else {}
    expected = theirs(
        pipe,
        wanted,
        control_image=[Image.fromarray(np.asarray(one)) for one in maps],
        controlnet_conditioning_scale=[0.8, 0.8],
        control_guidance_end=[end, end],
        **modes,
    )
    assert gap(found, expected) < TOLERANCE
    assert gap(found, ours(sdxl, asked(sdxl, sampler="euler", **WAYS[way]))) > 0.01
