"""VAEs by their tensors. Families whose VAEs have the same class and latents cannot be told apart by a header."""

from domains.model.detect.network import Network, layout
from domains.model.families import FAMILIES
from domains.model.families.sign import Layout, must, usual
from domains.model.kind import ModelKind


def _families(class_name: str, channels: int) -> tuple[str, ...]:
    """Families whose VAE is of this class, with so many latent channels."""
    return tuple(
        family.id
        for family in FAMILIES.values()
        for part in family.parts
        if part.kind is ModelKind.VAE and class_name in part.classes and family.latent_channels == channels
    )


def _kl(channels: int) -> tuple[Layout, ...]:
    """The layouts of AutoencoderKL."""
    return (
        Layout(
            name="diffusers",
            signs=(
                must("decoder.conv_in.weight", None, channels, 3, 3),
                must("encoder.conv_in.weight", None, 3, 3, 3),
                must("decoder.conv_out.weight", 3, None, 3, 3),
                must("decoder.mid_block.resnets.0.conv1.weight", None, None, 3, 3),
                must("decoder.up_blocks.0.resnets.0.conv1.weight", None, None, 3, 3),
                usual("encoder.conv_out.weight", 2 * channels, 512, 3, 3),
            ),
            without=("bn.",),
        ),
        Layout(
            name="original",
            signs=(
                must("decoder.conv_in.weight", None, channels, 3, 3),
                must("encoder.conv_in.weight", None, 3, 3, 3),
                must("decoder.conv_out.weight", 3, None, 3, 3),
                must("decoder.mid.block_1.conv1.weight", None, None, 3, 3),
                must("decoder.up.0.block.0.conv1.weight", None, None, 3, 3),
                usual("encoder.conv_out.weight", 2 * channels, 512, 3, 3),
            ),
            without=("quantize.",),
        ),
    )


def _network(architecture: str, channels: int, *layouts: Layout) -> Network:
    families = _families(architecture, channels)
    return Network(kind=ModelKind.VAE, architecture=architecture, layouts=layouts, families=families)


VAES = (
    _network("AutoencoderKL", 4, *_kl(4)),
    _network("AutoencoderKL", 16, *_kl(16)),
    _network(
        "AutoencoderKLFlux2",
        32,
        layout(
            must("bn.running_mean", None),
            must("decoder.conv_in.weight", None, 32, 3, 3),
            must("encoder.conv_in.weight", None, 3, 3, 3),
            must("decoder.conv_out.weight", 3, None, 3, 3),
        ),
    ),
    _network(
        "AutoencoderKLQwenImage",
        16,
        layout(
            must("decoder.conv_in.weight", None, 16, 3, 3, 3),
            must("encoder.conv_in.weight", None, 3, 3, 3, 3),
            must("decoder.mid_block.attentions.0.to_qkv.weight"),
            must("post_quant_conv.weight", 16, 16, 1, 1, 1),
        ),
    ),
    _network(
        "AutoencoderDC",
        32,
        layout(
            must("encoder.down_blocks.0.0.conv1.weight", None, None, 3, 3),
            must("decoder.conv_in.weight", None, 32, 3, 3),
            must("decoder.up_blocks.0.0.conv.weight"),
            must("decoder.norm_out.weight", None),
        ),
    ),
    Network(
        kind=ModelKind.VAE,
        architecture="AutoencoderTiny",
        layouts=(
            layout(
                must("decoder.layers.0.weight", None, None, 3, 3),
                must("encoder.layers.0.weight", None, 3, 3, 3),
                must("encoder.layers.1.conv.0.weight", None, None, 3, 3),
                must("decoder.layers.18.weight", 3, None, 3, 3),
            ),
        ),
    ),
)
"""The VAEs of the families, and the tiny one, which several families have with the same tensors."""
