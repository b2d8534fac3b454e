"""ControlNets of SD3 and FLUX.1 with random values that fit tiny models, on disk, and diffusers' pipelines with them."""

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
CLASSES = {"sd3": "SD3ControlNetModel", "flux1": "FluxControlNetModel"}
PIPELINES = {"sd3": "StableDiffusion3ControlNetPipeline", "flux1": "FluxControlNetPipeline"}
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
}
"""By name, which begins with the family: the options beside those of the tiny model."""


def write_net(folder: Path, kind: str, loaded: Any, seed: int = 1, **changes: Any) -> Model:
    """A ControlNet like a model's transformer, whose zero layers are not zero."""
    torch.manual_seed(seed)
    family = kind.partition("-")[0]
    config = {**loaded.modules["transformer"].config, **KINDS[kind], **changes}
    net: Any = getattr(_theirs, CLASSES[family]).from_config({k: v for k, v in config.items() if k != "out_channels"})
    zeros = [*net.controlnet_blocks, *getattr(net, "controlnet_single_blocks", ())]
    seen = net.controlnet_x_embedder if family == "flux1" else net.pos_embed_input.proj
    for layer in (*zeros, seen):
        torch.nn.init.normal_(layer.weight, std=0.2)
    if getattr(net, "union", False):
        # Else one token among 512 would not show.
        torch.nn.init.normal_(net.controlnet_mode_embedder.weight, std=20.0)
    net.save_pretrained(folder)
    return control_model(folder)


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
    flux = wanted.family == "flux1"
    kind = getattr(_theirs, CLASSES[wanted.family])
    built = getattr(_theirs, PIPELINES[wanted.family])(
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
