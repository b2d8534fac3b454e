"""SDXL's union ControlNet in our engine against diffusers' pipeline, on random weights: same map, noise and latents."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from domains.errors import FailedPrecondition
from domains.inference.control_types import CONTROL_MODES
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.trajectory import walk_together
from domains.model.model import Model
from tests.domains.inference.on_device.control_files import EMBEDDING, control, control_model, given, stripes
from tests.domains.inference.on_device.test_controls import Guided, begun, ours
from tests.domains.inference.on_device.test_every_family import TOLERANCE, asked, gap
from tests.domains.inference.on_device.tiny_families import write_tiny_family

_theirs: Any = diffusers
MAP, TYPES = stripes(48, 32), 6


def write_union(folder: Path, loaded: Any) -> Model:
    torch.manual_seed(4)
    config = {name: one for name, one in loaded.modules["unet"].config.items() if name != "up_block_types"}
    net: Any = _theirs.ControlNetUnionModel.from_config(
        {
            **config,
            "conditioning_embedding_out_channels": EMBEDDING[4],
            "num_control_type": TYPES,
            **{"num_trans_channel": 16, "num_trans_head": 4, "num_proj_channel": 16},
        }
    )
    zeros = (*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out)
    for module in (*zeros, net.spatial_ch_projs):
        torch.nn.init.normal_(module.weight, std=0.3)
    net.save_pretrained(folder)
    return control_model(folder)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Guided:
    folder = tmp_path_factory.mktemp("union")
    found = Guided(write_tiny_family("sdxl", folder / "sdxl"), folder)
    found.nets.append(write_union(folder / "union", found.ours))
    return found


def theirs(family: Guided, wanted: Any) -> Tensor:
    (one,) = wanted.controls
    net = _theirs.ControlNetUnionModel.from_pretrained(family.nets[-1].folder)
    built = _theirs.StableDiffusionXLControlNetUnionPipeline(
        **{**family.theirs.components, "add_watermarker": False}, controlnet=net
    )
    built.set_progress_bar_config(disable=True)
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    return built(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        control_image=[Image.fromarray(np.asarray(MAP))],
        control_mode=[CONTROL_MODES["sdxl"][one.control_type]],
        width=wanted.width_px,
        height=wanted.height_px,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        controlnet_conditioning_scale=one.weight,
        control_guidance_end=one.end_ratio,
        latents=torch.randn((1, *shape), generator=torch.Generator().manual_seed(wanted.seeds[0])),
        output_type="latent",
    ).images


@pytest.mark.parametrize("changes", [{}, {"control_type": "depth", "weight": 0.7, "end_ratio": 0.5}])
def test_the_latents_with_a_union_controlnet_are_those_of_diffusers(
    family: Guided, tmp_path: Path, changes: dict[str, Any]
) -> None:
    net = family.nets[-1]
    assert (net.variant, net.compatible_families) == ("union", ("sdxl",))
    told = {"control_type": "line_art", **changes}
    wanted = asked(family, controls=(control(net, **told),), sampler="euler", steps=4)
    found = ours(family, wanted, [given(net, MAP, tmp_path)])
    assert gap(found, theirs(family, wanted)) < TOLERANCE
    other = asked(family, controls=(control(net, **{**told, "control_type": "pose"}),), sampler="euler", steps=4)
    assert gap(ours(family, other, [given(net, MAP, tmp_path)]), found) > 10 * TOLERANCE


def test_types_and_pictures_of_jobs_that_share_a_forward_stay_apart(family: Guided, tmp_path: Path) -> None:
    net, plain = family.nets[-1], family.nets[0]
    mixed = [
        asked(family, controls=(control(net, control_type="canny"),), seeds=(1, 2)),
        asked(family, controls=(control(net, control_type="depth"), control(plain))),
        asked(family, controls=(control(net, control_type="tile", weight=0.0),), guidance_scale=1.0),
        asked(family, controls=(control(net, control_type="normal"),), guidance_scale=1.0),
    ]
    nets = {one.id: one for one in family.nets}
    maps = [[given(nets[one.model_id], MAP, tmp_path) for one in job.controls] for job in mixed]
    alone = [ours(family, wanted, some) for wanted, some in zip(mixed, maps, strict=True)]
    with torch.inference_mode():
        group = [begun(family, *one, f"job {place}") for place, one in enumerate(zip(mixed, maps, strict=True))]
        while left := [one for one in group if not one.done]:
            walk_together(left)
    for trajectory, latents in zip(group, alone, strict=True):
        assert gap(trajectory.latents, latents) < TOLERANCE


def test_a_type_beyond_those_of_the_network_is_refused(family: Guided, tmp_path: Path) -> None:
    net = family.nets[-1]
    wanted = asked(family, controls=(control(net, control_type="tile"),))
    with pytest.raises(FailedPrecondition, match="knows 6 types of maps, and tile is number 6"):
        family.of(wanted, [given(net, MAP, tmp_path)])
