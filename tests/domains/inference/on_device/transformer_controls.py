"""ControlNets of SD3, FLUX.1 and Z-Image with random values that fit tiny models, on disk, and diffusers' pipelines with
them."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.families.packing import packed, unpacked
from domains.inference.on_device.families.table import family_of
from domains.model.model import Model
from tests.domains.inference.on_device.control_files import control_model
from tests.domains.inference.on_device.requests import their_guidance
from tests.domains.inference.on_device.test_every_family import Loaded

_theirs: Any = diffusers
CLASSES = {"sd3": "SD3ControlNetModel", "flux1": "FluxControlNetModel", "z_image": "ZImageControlNetModel"}
PIPELINES = {
    "sd3": "StableDiffusion3ControlNetPipeline",
    "flux1": "FluxControlNetPipeline",
    "z_image": "ZImageControlNetPipeline",
}
KINDS: dict[str, dict[str, Any]] = {
    # Two nets of other depth than the model.
    "sd3": {"num_layers": 2, "dual_attention_layers": [], "force_zeros_for_pooled_projection": False},
    "sd3-zero-pooled": {"num_layers": 3, "force_zeros_for_pooled_projection": True},
    "sd3-without-prompt": {
        "num_layers": 2,
        "joint_attention_dim": None,
        "caption_projection_dim": 32,
        "use_pos_embed": False,
        "pos_embed_max_size": None,
        "pos_embed_type": None,
        "force_zeros_for_pooled_projection": False,
        "dual_attention_layers": [],
    },
    "flux1": {"num_layers": 1, "num_single_layers": 1},
    "flux1-union": {"num_layers": 1, "num_single_layers": 2, "num_mode": 5},
    "flux1-double-alone": {"num_layers": 1, "num_single_layers": 0, "guidance_embeds": False},
    # As published: 1.0 refines the map alone; 2.0 guides its copy of the model's refiner by its layers, 2.1 by own blocks.
    "z_image": {"control_layers_places": [0, 1], "control_in_dim": 16, "n_refiner_layers": 2},
    "z_image-2.0": {
        "control_layers_places": [0],
        "control_refiner_layers_places": [0],
        "add_control_noise_refiner": "control_layers",
        "control_in_dim": 33,
    },
    "z_image-2.1": {
        "control_layers_places": [0, 1],
        "control_refiner_layers_places": [0],
        "add_control_noise_refiner": "control_noise_refiner",
        "control_in_dim": 33,
    },
}
"""By name, which begins with the family: the options beside those of the tiny model."""


def write_net(folder: Path, kind: str, loaded: Any, seed: int = 1, **changes: Any) -> Model:
    """A ControlNet like a model's transformer, whose zero layers are not zero."""
    torch.manual_seed(seed)
    family = kind.partition("-")[0]
    config = {**loaded.modules["transformer"].config, **KINDS[kind], **changes}
    net: Any = getattr(_theirs, CLASSES[family]).from_config({k: v for k, v in config.items() if k != "out_channels"})
    for layer in _zeros_of(net, family):
        torch.nn.init.normal_(layer.weight, std=0.2)
    if getattr(net, "union", False):
        # Else one token among 512 would not show.
        torch.nn.init.normal_(net.controlnet_mode_embedder.weight, std=20.0)
    net.save_pretrained(folder)
    return control_model(folder)


def _zeros_of(net: Any, family: str) -> Sequence[Any]:
    """The layers that are zero before training."""
    if family == "z_image":
        blocks = [*net.control_layers, *(net.control_noise_refiner or ())]
        ends = [
            getattr(block, name) for block in blocks for name in ("before_proj", "after_proj") if hasattr(block, name)
        ]
        return [*ends, *net.control_all_x_embedder.values()]
    seen = net.controlnet_x_embedder if family == "flux1" else net.pos_embed_input.proj
    return [*net.controlnet_blocks, *getattr(net, "controlnet_single_blocks", ()), seen]


@contextmanager
def encoded_without_noise() -> Generator[None]:
    """Encode pictures without noise, as ours: the pipelines draw it from a generator of their own."""
    drawn = DiagonalGaussianDistribution.sample
    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()  # type: ignore[method-assign]
    try:
        yield
    finally:
        DiagonalGaussianDistribution.sample = drawn  # type: ignore[method-assign]


def their_controlled(
    family: Loaded,
    wanted: ResolvedGeneration,
    nets: Sequence[Model],
    pixels: Sequence[Tensor],
    modes: Sequence[Any],
    pipe: Any = None,
    **more: Any,
) -> Tensor:
    """Latents of diffusers' pipeline with these networks and maps. `pipe`: the one whose components it has."""
    if wanted.family == "z_image":
        return _their_z_image(family, wanted, nets, pixels, **more)
    flux = wanted.family == "flux1"
    kind = getattr(_theirs, CLASSES[wanted.family])
    name = "StableDiffusion3ControlNetInpaintingPipeline" if "control_mask" in more else PIPELINES[wanted.family]
    built = getattr(_theirs, name)(
        **{name: one for name, one in (pipe or family.theirs).components.items() if one is not None},
        controlnet=[kind.from_pretrained(net.folder) for net in nets],
    )
    built.set_progress_bar_config(disable=True)
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    noise = torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds])
    pictures = len(wanted.seeds)
    with encoded_without_noise():
        found = built(
            prompt=[wanted.prompt] * pictures,
            control_image=[Image.fromarray(np.asarray(one)) for one in pixels],
            width=wanted.width_px,
            height=wanted.height_px,
            num_inference_steps=wanted.steps,
            **their_guidance(wanted),
            controlnet_conditioning_scale=[one.weight for one in wanted.controls],
            control_guidance_start=[one.start_ratio for one in wanted.controls],
            control_guidance_end=[one.end_ratio for one in wanted.controls],
            latents=packed(noise) if flux else noise,
            output_type="latent",
            **({"control_mode": list(modes)} if flux else {}),
            **more,
        ).images
    return unpacked(found, *shape[1:]) if flux else found


def _their_z_image(
    family: Loaded, wanted: ResolvedGeneration, nets: Sequence[Model], pixels: Sequence[Tensor], **more: Any
) -> Tensor:
    """The pipeline knows one network in all steps; here its network is the sum of several, each in its own steps."""
    name = "ZImageControlNetInpaintPipeline" if "mask_image" in more else "ZImageControlNetPipeline"
    parts = {part: one for part, one in family.theirs.components.items() if one is not None}
    made = [_theirs.ZImageControlNetModel.from_pretrained(net.folder) for net in nets]
    built = [getattr(_theirs, name)(**parts, controlnet=net) for net in made]
    first, forwards, step = built[0], [net.forward for net in made], iter(range(wanted.steps))
    first.set_progress_bar_config(disable=True)
    others = [_seen(first.vae, net, one) for net, one in zip(made[1:], pixels[1:], strict=True)]

    def summed(x: Any, t: Any, caps: Any, context: Any, conditioning_scale: float) -> dict[int, Tensor]:
        now, found = next(step), dict[int, Tensor]()
        hints = [context, *([one] * len(x) for one in others)]
        for forward, hint, control in zip(forwards, hints, wanted.controls, strict=False):
            if now in control.steps_of(wanted.steps):
                for place, one in forward(x, t, caps, hint, control.weight).items():
                    found[place] = found.get(place, 0) + one
        return found

    made[0].forward = summed
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    noise = torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds])
    return first(
        prompt=[wanted.prompt] * len(wanted.seeds),
        control_image=Image.fromarray(np.asarray(pixels[0])),
        width=wanted.width_px,
        height=wanted.height_px,
        num_inference_steps=wanted.steps,
        **their_guidance(wanted),
        latents=noise,
        output_type="latent",
        **more,
    ).images


def _seen(vae: Any, net: Any, pixels: Tensor) -> Tensor:
    """(channels, 1, h/8, w/8): a map's latents, with zeros for what the network sees beside them."""
    picture = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
    latents = (vae.encode(picture).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
    more = net.config.control_in_dim - latents.shape[1]
    return torch.nn.functional.pad(latents[0, :, None], (0, 0, 0, 0, 0, 0, 0, more))
