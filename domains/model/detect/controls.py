"""ControlNets, T2I adapters and IP-Adapters by their tensors."""

from domains.model.detect.network import Network, layout
from domains.model.families.sign import Layout, Sign, must, usual
from domains.model.kind import ModelKind

_UNET = "ControlNetModel"
_LINEAR = (must("down_blocks.0.attentions.0.proj_in.weight", None, None),)
_CONVOLUTION = (must("down_blocks.0.attentions.0.proj_in.weight", None, None, 1, 1),)
_CROSS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_ORIGINAL_CROSS = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def _unet(*signs: Sign, without: tuple[str, ...] = ()) -> Layout:
    return Layout(
        name="diffusers",
        signs=(
            must("controlnet_cond_embedding.conv_in.weight", None, None, 3, 3),
            must("controlnet_down_blocks.0.weight", None, None, 1, 1),
            must("controlnet_mid_block.weight", None, None, 1, 1),
            must("conv_in.weight", None, 4, 3, 3),
            *signs,
        ),
        without=without,
    )


def _original(*signs: Sign, without: tuple[str, ...] = ()) -> Layout:
    return Layout(
        name="original",
        signs=(
            must("input_hint_block.0.weight", None, None, 3, 3),
            must("zero_convs.0.0.weight", None, None, 1, 1),
            must("middle_block_out.0.weight", None, None, 1, 1),
            must("input_blocks.0.0.weight", None, 4, 3, 3),
            *signs,
        ),
        without=without,
    )


def _net(family: str, *layouts: Layout, architecture: str = _UNET, variant: str = "") -> Network:
    return Network(
        kind=ModelKind.CONTROLNET, architecture=architecture, layouts=layouts, families=(family,), variant=variant
    )


UNION = "union"
"""Variant of ControlNets that are told the type of their map."""

_ADDED = ("add_embedding.", "class_embedding.")

_TYPES = "controlnet_mode_embedder."

CONTROLNETS = (
    # Without attention it knows nothing of the text: its widths alone decide which U-Nets it fits.
    Network(
        kind=ModelKind.CONTROLNET,
        architecture=_UNET,
        layouts=(
            _unet(
                must("down_blocks.0.resnets.0.conv1.weight", None, None, 3, 3),
                without=("down_blocks.0.attentions.", "down_blocks.1.attentions.", *_ADDED),
            ),
        ),
        families=("sd1", "sd2"),
    ),
    _net(
        "sd1",
        _unet(*_CONVOLUTION, usual(_CROSS, 320, 768), without=_ADDED),
        _original(
            must("input_blocks.1.1.proj_in.weight", None, None, 1, 1),
            usual(_ORIGINAL_CROSS, 320, 768),
            without=("label_emb.",),
        ),
    ),
    _net(
        "sd2",
        _unet(*_LINEAR, usual(_CROSS, 320, 1024), without=_ADDED),
        _original(
            must("input_blocks.1.1.proj_in.weight", None, None),
            usual(_ORIGINAL_CROSS, 320, 1024),
            without=("label_emb.",),
        ),
    ),
    _net(
        "sdxl",
        _unet(
            must("add_embedding.linear_1.weight", None, 2816),
            usual("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight", 640, 2048),
            without=("task_embedding",),
        ),
        _original(
            must("label_emb.0.0.weight", None, 2816),
            usual("input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", 640, 2048),
        ),
    ),
    _net(
        "sdxl",
        _unet(
            must("add_embedding.linear_1.weight", None, 2816),
            must("task_embedding", None, None),
            must("control_add_embedding.linear_1.weight", None, None),
            usual("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight", 640, 2048),
        ),
        architecture="ControlNetUnionModel",
        variant=UNION,
    ),
    _net(
        "sd3",
        layout(
            must("controlnet_blocks.0.weight", None, None),
            must("pos_embed_input.proj.weight", None, None, 2, 2),
            must("context_embedder.weight", None, 4096),
            must("transformer_blocks.0.attn.add_k_proj.weight"),
        ),
        # Of SD 3.5 Large: its blocks read no prompt, and the picture comes with the model's positions.
        layout(
            must("controlnet_blocks.0.weight", None, None),
            must("pos_embed_input.proj.weight", None, None, 2, 2),
            must("time_text_embed.text_embedder.linear_1.weight", None, 2048),
            must("transformer_blocks.0.attn.to_q.weight", None, None),
            without=("context_embedder.", "transformer_blocks.0.attn.add_k_proj."),
            name="without_prompt",
        ),
        architecture="SD3ControlNetModel",
    ),
    _net(
        "flux1",
        layout(
            must("controlnet_blocks.0.weight", None, None),
            must("controlnet_x_embedder.weight", None, None),
            must("context_embedder.weight", None, 4096),
            must("time_text_embed.text_embedder.linear_1.weight", None, 768),
            without=(_TYPES,),
        ),
        layout(
            must("controlnet_blocks.0.weight", None, None),
            must("double_blocks.0.img_attn.qkv.weight"),
            must("txt_in.weight", None, 4096),
            must("vector_in.in_layer.weight", None, 768),
            name="original",
        ),
        architecture="FluxControlNetModel",
    ),
    _net(
        "flux1",
        layout(
            must(f"{_TYPES}weight", None, None),
            must("controlnet_blocks.0.weight", None, None),
            must("controlnet_x_embedder.weight", None, None),
            must("context_embedder.weight", None, 4096),
            must("time_text_embed.text_embedder.linear_1.weight", None, 768),
        ),
        architecture="FluxControlNetModel",
        # Told the type of its map.
        variant=UNION,
    ),
    _net(
        "qwen_image",
        layout(
            must("controlnet_blocks.0.weight", None, None),
            must("controlnet_x_embedder.weight", None, None),
            must("txt_norm.weight", 3584),
            must("transformer_blocks.0.img_mod.1.weight"),
        ),
        architecture="QwenImageControlNetModel",
    ),
    _net(
        "z_image",
        layout(
            must("control_all_x_embedder.2-1.weight", None, None),
            must("control_layers.0.before_proj.weight", None, None),
            must("control_layers.0.after_proj.weight", None, None),
            must("control_layers.0.adaLN_modulation.0.weight", None, None),
            must("control_layers.0.attention.to_q.weight", None, None),
            usual("control_layers.5.attention.to_q.weight", None, None),
            # A model that has them, too, is no ControlNet alone.
            without=("layers.", "cap_embedder."),
        ),
        architecture="ZImageControlNetModel",
    ),
    _net(
        "sana",
        layout(
            must("controlnet_blocks.0.weight", None, None),
            must("input_block.weight", None, None),
            must("patch_embed.proj.weight", None, 32, 1, 1),
            must("caption_projection.linear_1.weight", None, 2304),
            must("transformer_blocks.0.ff.conv_inverted.weight"),
        ),
        architecture="SanaControlNetModel",
    ),
)


def _t2i(architecture: str, families: tuple[str, ...], channels: int) -> Network:
    """`channels`: 64 or 256 (the picture, 8 or 16 times smaller) times 3, or 1 for one that reads grey."""
    return Network(
        kind=ModelKind.T2I_ADAPTER,
        architecture=architecture,
        families=families,
        layouts=(
            layout(
                must("adapter.conv_in.weight", None, channels, 3, 3),
                must("adapter.body.0.resnets.0.block1.weight", None, None, 3, 3),
                must("adapter.body.0.resnets.0.block2.weight", None, None, 1, 1),
            ),
            layout(
                must("conv_in.weight", None, channels, 3, 3),
                must("body.0.block1.weight", None, None, 3, 3),
                must("body.0.block2.weight", None, None, 1, 1),
                name="original",
            ),
        ),
    )


T2I_ADAPTERS = (
    _t2i("T2IAdapter", ("sd1", "sd2"), 192),
    _t2i("T2IAdapter", ("sdxl",), 768),
    _t2i("T2IAdapter", ("sd1", "sd2"), 64),
    _t2i("T2IAdapter", ("sdxl",), 256),
    Network(
        kind=ModelKind.T2I_ADAPTER,
        architecture="T2IAdapter",
        variant="light",
        families=("sd1", "sd2"),
        layouts=(
            layout(
                must("adapter.body.0.in_conv.weight", None, 192, 1, 1),
                must("adapter.body.0.out_conv.weight", None, None, 1, 1),
                must("adapter.body.0.resnets.0.block1.weight", None, None, 3, 3),
            ),
        ),
    ),
)


def _prompted(family: str, width: int, variant: str, *signs: Sign) -> Network:
    return Network(
        kind=ModelKind.IMAGE_PROMPT_ADAPTER,
        architecture="IPAdapter",
        variant=variant,
        families=(family,),
        layouts=(layout(must("ip_adapter.1.to_k_ip.weight", None, width), *signs),),
    )


_PROJECTIONS = {
    "": (must("image_proj.proj.weight", None, None), must("image_proj.norm.weight", None)),
    "plus": (must("image_proj.latents", 1, None, None), must("image_proj.proj_in.weight", None, None)),
    "full": (must("image_proj.proj.0.weight", None, None), must("image_proj.proj.3.weight", None)),
    "face_id": (must("image_proj.proj.2.weight", None, None), must("ip_adapter.0.to_q_lora.down.weight")),
}
"""By variant: how the picture becomes tokens."""

_PROMPTED_TRANSFORMERS = {
    # Chroma is made from FLUX.1, and has double blocks of the same shapes.
    ("flux1", "chroma"): (
        layout(
            must("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight", None, None),
            must("double_blocks.0.processor.ip_adapter_double_stream_v_proj.weight", None, None),
            must("double_blocks.0.processor.ip_adapter_double_stream_k_proj.bias", None),
            must("ip_adapter_proj_model.proj.weight", None, None),
            must("ip_adapter_proj_model.norm.weight", None),
            usual("double_blocks.18.processor.ip_adapter_double_stream_k_proj.weight", 3072, 4096),
        ),
        layout(
            must("ip_adapter.0.to_k_ip.bias", None),
            must("ip_adapter.0.to_k_ip.weight", None, 4096),
            must("image_proj.proj.weight", None, None),
            must("image_proj.norm.weight", 4096),
            usual("ip_adapter.18.to_k_ip.weight", 3072, 4096),
            name="diffusers",
        ),
    ),
    ("sd3",): (
        layout(
            must("ip_adapter.0.norm_ip.linear.weight", None, None),
            must("ip_adapter.0.norm_ip_k.weight", None),
            must("ip_adapter.0.to_k_ip.weight", None, None),
            must("image_proj.latents", 1, None, None),
            must("image_proj.time_embedding.linear_1.weight", None, None),
            usual("ip_adapter.37.to_k_ip.weight", 2432, 2432),
            usual("image_proj.proj_in.weight", 1280, 1152),
        ),
    ),
}
"""By families: the adapters of transformers, as XLabs (or diffusers) and InstantX name their tensors."""

IMAGE_PROMPT_ADAPTERS = (
    *(
        _prompted(family, width, variant, *signs)
        for family, width in (("sd1", 768), ("sd2", 1024), ("sdxl", 2048))
        for variant, signs in _PROJECTIONS.items()
    ),
    *(
        Network(kind=ModelKind.IMAGE_PROMPT_ADAPTER, architecture="IPAdapter", families=families, layouts=layouts)
        for families, layouts in _PROMPTED_TRANSFORMERS.items()
    ),
)
