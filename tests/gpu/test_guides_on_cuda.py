"""Networks that guide a picture, on a CUDA device and on the CPU: the latents differ by rounding alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from domains.inference.controls import Preprocessing
from domains.inference.given import Given
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.controls import ControlsOfJob
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import Guides
from domains.inference.on_device.hardware import RealHardware
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import begin, walk_together
from domains.inference.outcome import LatentsReady, RunFinished
from domains.model import on_device
from tests.domains.inference.on_device.control_files import control, given, stripes
from tests.domains.inference.on_device.image_prompt_files import given as given_pictures
from tests.domains.inference.on_device.image_prompt_files import picture
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.test_every_family import Loaded, asked, gap
from tests.domains.inference.on_device.test_transformer_image_prompts import Prompted, write_family
from tests.domains.inference.on_device.test_union_controls import write_union
from tests.domains.inference.on_device.tiny_families import write_tiny_family
from tests.domains.inference.on_device.transformer_controls import write_net

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("no_tf32")]

TOLERANCE = 1e-3
"""Of the largest latent: sums are added in another order, and each step adds to the difference of the one before."""
MAPS = stripes(48, 32), stripes(48, 32, 7)


def union_of_two_maps(folder: Path) -> Given:
    family = Loaded(write_tiny_family("sdxl", folder / "sdxl"))
    net = write_union(folder / "union", family.ours)
    controls = tuple(control(net, weight=0.8, control_type=one) for one in ("depth", "pose"))
    wanted = asked(family, sampler="euler", controls=controls, return_latents=True)
    return Given(family.model, wanted, controls=tuple(given(net, one, folder) for one in MAPS))


def z_image_net(folder: Path) -> Given:
    """A map, and the picture with a missing part."""
    family = Loaded(write_tiny_family("z_image", folder / "z_image"))
    net = write_net(folder / "net", "z_image-2.1", family.ours)
    hidden = torch.zeros(32, 48, dtype=torch.uint8)
    hidden[8:24, 16:40] = 255
    controls = control(net, weight=0.8), control(net, weight=0.8, preprocessing=Preprocessing(kind="inpaint"))
    wanted = asked(family, controls=controls, return_latents=True)
    maps = given(net, MAPS[0], folder), given(net, MAPS[1], folder, hidden=hidden)
    return Given(family.model, wanted, controls=maps)


def pictures_of(name: str) -> Callable[[Path], Given]:
    """An IP-Adapter of a transformer."""

    def made(folder: Path) -> Given:
        family = Prompted(write_family(name, folder / name), folder)
        wanted = asked(family, image_prompts=(family.shown(weight=0.7),), return_latents=True)
        files = given_pictures(family.adapter, family.encoder, [picture(1)], folder)
        return Given(family.model, wanted, image_prompts=(files,))

    return made


GUIDES: Mapping[str, Callable[[Path], Given]] = {
    "a union ControlNet of SDXL with two maps": union_of_two_maps,
    "a ControlNet of Z-Image": z_image_net,
    "an IP-Adapter of SD3": pictures_of("sd3"),
    "an IP-Adapter of FLUX.1": pictures_of("flux1"),
}


def latents(told: Given, device: str) -> Tensor:
    """The final latents that a job hands out."""
    loop = Recorder(told.model, device, "float32")
    loop.loop.submit("a", told)
    loop.run()
    assert isinstance(loop.last("a"), RunFinished), loop.last("a")
    found = [one.data for one in loop.of("a", LatentsReady) if isinstance(one, LatentsReady)]
    del loop.loaded
    loop.loop.close()
    return torch.cat([tensor for data in found for tensor in load(data).values()])


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guided_picture_is_that_of_the_cpu(guide: str, tmp_path: Path) -> None:
    told = GUIDES[guide](tmp_path)
    assert gap(latents(told, "cuda"), latents(told, "cpu")) < TOLERANCE


def test_a_controlnet_of_z_image_makes_no_step_wait_for_the_device(tmp_path: Path) -> None:
    told = z_image_net(tmp_path)
    loaded = on_device.load(told.model, "cuda")
    view, job = (
        family_of(loaded),
        ControlsOfJob("a", told.resolved, told.controls, NetworkPool(RealHardware(loaded.device))),
    )
    while not job.bring(loaded):
        pass
    with torch.inference_mode():
        found = condition(loaded, view, told.resolved, PromptCache())
        guides = Guides(controls=job.made(found.renew, loaded, view.encode_reference))
        config, device = loaded.scheduler_config, loaded.device
        trajectory = begin(view, told.resolved, config, found.conditions, device, renew=found.renew, guides=guides)
        walk_together([trajectory])  # the first step may set up libraries
        torch.cuda.set_sync_debug_mode("error")
        try:
            while not trajectory.done:
                walk_together([trajectory])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert trajectory.latents.isfinite().all()
