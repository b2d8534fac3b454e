"""Signs that all families with a U-Net of Stable Diffusion share."""

from collections.abc import Mapping
from typing import Any

from domains.model.families.family import Variant
from domains.model.families.sign import Layout, Sign, must

UNET_CONFIG: Mapping[str, Any] = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4}

UNET_KEYS = (
    *("conv_in.weight", "time_embedding.linear_1.weight"),
    *("mid_block.resnets.0.conv1.weight", "conv_out.weight"),
)


def unet(
    *,
    diffusers: tuple[Sign, ...],
    original: tuple[Sign, ...] = (),
    without_diffusers: tuple[str, ...] = (),
    without_original: tuple[str, ...] = (),
) -> tuple[Layout, ...]:
    """The layouts of a U-Net with 4 latent channels: what all have, and what is this family's.

    `original` empty: the family is published under the names of diffusers alone.
    """
    layouts = (
        Layout(
            name="diffusers",
            signs=(
                must("conv_in.weight", None, 4, 3, 3),
                must("time_embedding.linear_1.weight", None, None),
                must("mid_block.resnets.0.conv1.weight", None, None, 3, 3),
                must("conv_out.weight", 4, None, 3, 3),
                *diffusers,
            ),
            # The encoder of a ControlNet has the same names.
            without=("controlnet_cond_embedding.", "controlnet_down_blocks.", *without_diffusers),
        ),
        Layout(
            name="original",
            signs=(
                must("input_blocks.0.0.weight", None, 4, 3, 3),
                must("time_embed.0.weight", None, None),
                must("middle_block.0.in_layers.2.weight", None, None, 3, 3),
                must("out.2.weight", 4, None, 3, 3),
                *original,
            ),
            without=("input_hint_block.", *without_original),
        ),
    )
    return layouts if original else layouts[:1]


INPAINTING = "inpainting"
"""Variant of models that read a mask, and the picture without the masked part."""


EDITING = "editing"
"""Variant of models that see a picture beside the prompt."""

DEPTH = "depth"
"""Variant of models that see a depth map beside the prompt."""


def inputs(channels: int) -> Mapping[str, tuple[Sign, ...]]:
    """Signs of a variant whose U-Net reads more channels."""
    return {
        "diffusers": (must("conv_in.weight", None, channels, 3, 3),),
        "original": (must("input_blocks.0.0.weight", None, channels, 3, 3),),
    }


EDITING_UNET = Variant(
    name=EDITING,
    signs=inputs(8),
    config={"in_channels": 8},
    tasks=("editing",),
    references=(1, 1),
    image_guidance=1.5,
    computed=True,
)
"""InstructPix2Pix (Brooks et al. 2022): the picture's latents beside its own."""
