"""SDXL's union ControlNet in our engine against diffusers' pipeline, on random weights: same maps, noise and latents."""

from collections.abc import Callable, Sequence
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
from domains.inference.controls import ControlBalance, UsedPicture
from domains.inference.kept_readings import kept_readings
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.tensor_bytes import bytes_of
from domains.inference.on_device.trajectory import walk_together
from domains.model.header_facts import header_facts
from domains.model.model import Model
from tests.domains.inference.on_device.control_files import EMBEDDING, control, control_model, given, stripes
from tests.domains.inference.on_device.test_controls import Guided, begun, ours, walked
from tests.domains.inference.on_device.test_every_family import TOLERANCE, asked, gap
from tests.domains.inference.on_device.tiny_families import write_tiny_family

_theirs: Any = diffusers
MAPS, TYPES = [stripes(48, 32, phase) for phase in (0, 5, 11)], 6
MAP = MAPS[0]
Apart = Sequence[Sequence[int]]
OF_MAPS = ("controlnet_cond", "control_type_idx", "conditioning_scale")


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


def theirs(family: Guided, wanted: Any, pixels: Sequence[Tensor] = MAPS[:1], apart: Apart | None = None) -> Tensor:
    """Of diffusers' pipeline with all maps in one forward. `apart`: in several ones, by the places of their maps, whose
    residuals are added; there a forward none of whose maps counts adds nothing."""
    net = _theirs.ControlNetUnionModel.from_pretrained(family.nets[-1].folder)
    if apart is not None:
        net.forward = summed(net.forward, apart)
    built = _theirs.StableDiffusionXLControlNetUnionPipeline(
        **{**family.theirs.components, "add_watermarker": False}, controlnet=net
    )
    built.set_progress_bar_config(disable=True)
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    return built(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        control_image=[Image.fromarray(np.asarray(one)) for one in pixels],
        control_mode=[CONTROL_MODES["sdxl"][one.control_type] for one in wanted.controls],
        width=wanted.width_px,
        height=wanted.height_px,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        controlnet_conditioning_scale=[one.weight for one in wanted.controls],
        control_guidance_start=[one.start_ratio for one in wanted.controls],
        control_guidance_end=[one.end_ratio for one in wanted.controls],
        guess_mode=wanted.controls[0].balance is ControlBalance.CONTROL,
        latents=torch.randn((1, *shape), generator=torch.Generator().manual_seed(wanted.seeds[0])),
        output_type="latent",
    ).images


def summed(forward: Callable[..., Any], apart: Apart) -> Callable[..., Any]:
    def found(sample: Tensor, *time: Any, control_type: Tensor, **more: Any) -> Any:
        totals: list[Tensor] = []
        for places in apart:
            own = {name: [more[name][place] for place in places] for name in OF_MAPS}
            # In guess mode diffusers gives a type for the row without the prompt, too, which the network does not read.
            types = torch.zeros_like(control_type[: len(sample)])
            types[:, own["control_type_idx"]] = 1
            down, middle = forward(sample, *time, control_type=types, **{**more, **own})
            residuals = [one * float(any(own["conditioning_scale"])) for one in (*down, middle)]
            totals = [one + more for one, more in zip(totals, residuals, strict=True)] if totals else residuals
        return totals[:-1], totals[-1]

    return found


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


EVERY: list[dict[str, Any]] = [
    {"control_type": "line_art", "weight": 0.6},
    {"control_type": "depth", "weight": 1.3},
    {"control_type": "segmentation", "weight": 0.4},
]
GUESSED = {"balance": ControlBalance.CONTROL}
HALF, MIDDLE = {"end_ratio": 0.5}, {"start_ratio": 0.25, "end_ratio": 0.75}
SOMEWHERE = {"region": UsedPicture(blob_id="b-3", sha256="0" * 64)}
TOGETHER: dict[str, tuple[list[dict[str, Any]], Apart | None]] = {
    "two": (EVERY[:2], None),
    "three": (EVERY, None),
    "two_of_a_type": ([EVERY[0], {"control_type": "canny", "weight": 1.4}], None),
    "without_the_prompt": ([{**one, **GUESSED} for one in EVERY[:2]], [(0, 1)]),
    "two_in_some_steps": ([{**one, **MIDDLE} for one in EVERY[:2]], [(0, 1)]),
    "two_and_one_of_other_steps": ([EVERY[0], {**EVERY[1], **HALF}, EVERY[2]], [(0, 2), (1,)]),
    "two_and_one_with_a_region": ([{**EVERY[0], **SOMEWHERE}, *EVERY[1:]], [(0,), (1, 2)]),
}


@pytest.mark.parametrize("case", list(TOGETHER))
def test_maps_of_one_union_controlnet_are_read_together_as_in_diffusers(
    family: Guided, tmp_path: Path, case: str
) -> None:
    told, apart = TOGETHER[case]
    net, pixels = family.nets[-1], MAPS[: len(told)]
    wanted = asked(family, controls=tuple(control(net, **one) for one in told), sampler="euler", steps=4)
    whole = torch.full((32, 48, 1), 255, dtype=torch.uint8)
    maps = [
        given(net, one, tmp_path, None if resolved.region is None else whole)
        for one, resolved in zip(pixels, wanted.controls, strict=True)
    ]
    found = ours(family, wanted, maps)
    assert gap(found, theirs(family, wanted, pixels, apart)) < TOLERANCE
    alone = [(place,) for place in range(len(told))]
    assert gap(found, theirs(family, wanted, pixels, alone)) > 10 * TOLERANCE


def test_a_map_without_weight_leaves_the_bytes_of_the_other_alone(family: Guided, tmp_path: Path) -> None:
    net = family.nets[-1]
    told = control(net, **EVERY[0]), control(net, **{**EVERY[1], "weight": 0.0})
    maps = [given(net, one, tmp_path) for one in MAPS[:2]]
    alone = ours(family, asked(family, controls=told[:1]), maps[:1])
    assert torch.equal(ours(family, asked(family, controls=told), maps), alone)


def test_maps_that_are_read_together_keep_one_reading_of_an_earlier_prompt(family: Guided, tmp_path: Path) -> None:
    net = family.nets[-1]
    told = tuple(control(net, **one) for one in EVERY)
    wanted = asked(family, controls=told, steps=4, sampler="euler", guidance_end_ratio=0.5)
    with torch.inference_mode():
        controls = family.of(wanted, [given(net, one, tmp_path) for one in MAPS])
        held: list[int] = []
        for step in range(wanted.steps):
            (present,) = controls.at(step)
            held.append(bytes_of(controls.tensors()) - bytes_of(present.tensors()))
    ((found,),) = kept_readings(wanted)
    (sizes,) = (one.reading for one in (header_facts(net) or {}).values())
    forecast = 4 * (sizes.of_token * found.tokens * found.prompts + sizes.of_prompt * found.pooled)
    # Beside them a few numbers for each prompt: the task's 16 channels, and whether it counts.
    assert 0 <= max(held) - forecast <= (4 * 16 + 1) * found.prompts


def test_a_job_whose_maps_are_read_together_goes_on_after_a_pause_with_the_same_bits(
    family: Guided, tmp_path: Path
) -> None:
    net, maps = family.nets[-1], [given(family.nets[-1], one, tmp_path) for one in MAPS]
    told = tuple(control(net, **one, **HALF) for one in EVERY[:2])
    # The last map counts in all steps, and is read by itself.
    wanted = asked(family, controls=(*told, control(net, **EVERY[2])), steps=4, sampler="euler_a")
    whole = ours(family, wanted, maps)
    with torch.inference_mode():
        paused = begun(family, wanted, maps)
        walk_together([paused])
        kept = {name: one.clone() for name, one in paused.kept().items()}
        resumed = begun(family, wanted, maps)
        resumed.restore(kept, paused.place)
        assert resumed.index == 1
        assert torch.equal(walked(resumed), whole)


def test_types_and_pictures_of_jobs_that_share_a_forward_stay_apart(family: Guided, tmp_path: Path) -> None:
    net, plain = family.nets[-1], family.nets[0]
    mixed = [
        asked(family, controls=(control(net, control_type="canny"),), seeds=(1, 2)),
        asked(family, controls=(control(net, control_type="depth"), control(plain))),
        asked(family, controls=(control(net, control_type="tile", weight=0.0),), guidance_scale=1.0),
        asked(family, controls=(control(net, control_type="normal"),), guidance_scale=1.0),
        asked(family, controls=tuple(control(net, **one) for one in EVERY), seeds=(3, 4)),
        asked(family, controls=(control(plain), *(control(net, **one) for one in EVERY[:2])), guidance_scale=1.0),
    ]
    nets = {one.id: one for one in family.nets}
    maps = [
        [given(nets[one.model_id], pixels, tmp_path) for one, pixels in zip(job.controls, MAPS, strict=False)]
        for job in mixed
    ]
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
