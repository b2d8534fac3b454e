"""Edges that fit together: as diffusers with circular convolutions, along each axis alone, in no other job's forward."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.init_image import InitImage
from domains.inference.masks import InpaintMask
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.family import StepRows, regardless
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.on_device.wrapping import Wraps, wrapping
from domains.inference.seamless import seamless_violations
from domains.model.families import FAMILIES
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, load
from tests.domains.inference.on_device.from_picture import gradient
from tests.domains.inference.on_device.reference import final_latents, reference_latents, reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_families import their_pipeline, write_tiny_family

WAYS: list[Wraps] = [(True, False), (False, True), (True, True)]
SIZE = {"width_px": 64, "height_px": 32}


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def loaded(request: pytest.FixtureRequest, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> OnDeviceModel:
    if request.param == "sd1":
        return load(tiny, "cpu")
    return load(write_tiny_family(request.param, tmp_path_factory.mktemp("seamless") / request.param), "cpu")


def asked(model: Model, wraps: Wraps, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {"sampler": "euler", "steps": 3, **SIZE}
    plain |= {"seamless_x": wraps[0], "seamless_y": wraps[1]}
    return request(model, **{**plain, **changes})


def circular(modules: Sequence[nn.Module]) -> None:
    """Have torch's own convolutions wrap at all edges."""
    for layer in (one for module in modules for one in module.modules() if isinstance(one, nn.Conv2d)):
        layer.padding_mode = "circular"


@pytest.mark.filterwarnings("ignore")
def test_the_latents_are_those_of_diffusers_with_circular_convolutions(loaded: OnDeviceModel) -> None:
    wanted = asked(loaded.model, (True, True), seeds=(3, 9), guidance_scale=3.0)
    ours = final_latents(loaded, wanted)
    if wanted.family == "sd1":
        pipeline = reference_pipeline(loaded.model)
        circular([pipeline.unet])
        theirs = reference_latents(pipeline, wanted)
    else:
        pipeline = their_pipeline(Path(loaded.model.folder))
        circular([pipeline.unet])
        shape = family_of(loaded).latent_shape(64, 32)
        noise = [torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds]
        texts = {"prompt": [wanted.prompt] * 2, "num_inference_steps": wanted.steps, "guidance_scale": 3.0}
        theirs = pipeline(**texts, height=32, width=64, latents=torch.cat(noise), output_type="latent").images
    assert float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) < 1e-4
    assert float((ours - final_latents(loaded, asked(loaded.model, (False, False), seeds=(3, 9)))).abs().max()) > 1e-3


def moved(x: Tensor, axis: int, by: int) -> Tensor:
    return x.roll(by, dims=3 - axis)


@pytest.mark.parametrize("wraps", WAYS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_picture_moves_round_the_axes_that_wrap_and_no_other(loaded: OnDeviceModel, wraps: Wraps, axis: int) -> None:
    """Denoiser, decoder and encoder give a moved result for a moved input exactly where no edge is left."""
    family, wanted = family_of(loaded), asked(loaded.model, wraps)
    with torch.inference_mode():
        conditions = condition(loaded, family, wanted, PromptCache()).conditions
        latents = torch.randn((1, *family.latent_shape(64, 32)), generator=torch.Generator().manual_seed(1))

        def denoised(one: Tensor) -> Tensor:
            rows = StepRows(latents=one, timestep=torch.tensor(500.0), conditions=conditions, wraps=wraps)
            return family.denoise([rows], regardless)[0]

        edge = 64 // latents.shape[3]
        picture = gradient(64, 32)
        with wrapping(wraps):
            decoded, encoded = family.decode(latents)[0][0], family.encode_picture(picture).mean
            far_decoded = family.decode(moved(latents, axis, 4))[0][0]
            far_encoded = family.encode_picture(picture.roll(4 * edge, dims=1 - axis)).mean
        gaps = (
            float((denoised(moved(latents, axis, 4)) - moved(denoised(latents), axis, 4)).abs().max()),
            float((far_encoded - moved(encoded, axis, 4)).abs().max()),
            int((far_decoded.int() - decoded.int().roll(4 * edge, dims=1 - axis)).abs().max()) - 1,
        )
    assert all(gap < 1e-4 for gap in gaps) if wraps[axis] else all(gap > 1e-4 for gap in gaps), gaps


def test_jobs_of_other_edges_have_forwards_of_their_own(loaded: OnDeviceModel) -> None:
    jobs = [
        asked(loaded.model, wraps, seeds=(seed,)) for seed, wraps in enumerate([*WAYS, (False, False), (True, True)])
    ]
    alone = [final_latents(loaded, one) for one in jobs]
    family = family_of(loaded)

    def begun(wanted: ResolvedGeneration) -> Trajectory:
        found = condition(loaded, family, wanted, PromptCache())
        return begin(family, wanted, loaded.scheduler_config, found.conditions, loaded.device)

    with torch.inference_mode():
        group = [begun(one) for one in jobs]
        assert len({one.alike for one in group}) == 4
        while not group[0].done:
            walk_together(group)
    for one, latents in zip(group, alone, strict=True):
        assert float((one.latents - latents).abs().max() / latents.abs().max().clamp(min=1)) < 1e-4


def test_what_has_no_edges_to_fit_is_refused_by_name() -> None:
    texture = Generation(prompt="x", seamless_x=True, seamless_y=True)
    assert [one.field for one in seamless_violations(texture, FAMILIES["flux1"])] == [
        *("generation.seamless_x", "generation.seamless_y")
    ]
    assert not list(seamless_violations(texture, FAMILIES["sdxl"]))
    zoomed = InpaintMask(blob_id="b-2", zoom_to_mask=True)
    part = Generation(prompt="x", init_image=InitImage(blob_id="b-1"), mask=zoomed, seamless_y=True)
    assert [one.field for one in seamless_violations(part, FAMILIES["sd1"])] == ["generation.seamless_y"]
