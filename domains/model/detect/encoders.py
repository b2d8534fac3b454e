"""Text and image encoders by their tensors. The families are those whose published models have an encoder of this size."""

from domains.model.detect.network import Network, layout
from domains.model.families.sign import Layout, must, usual
from domains.model.kind import ModelKind

_VISION = ("vision_model.",)


def _clip(width: int, *, projected: bool = False) -> Layout:
    extra = (must("text_projection.weight", None, width),) if projected else ()
    return layout(
        must("text_model.embeddings.token_embedding.weight", None, width),
        must("text_model.encoder.layers.0.self_attn.q_proj.weight", width, width),
        must("text_model.encoder.layers.0.mlp.fc1.weight", None, width),
        must("text_model.final_layer_norm.weight", width),
        usual("text_model.embeddings.position_embedding.weight", 77, width),
        *extra,
        without=_VISION,
    )


def _decoder_only(width: int, *keys: str) -> Layout:
    return layout(
        must("model.embed_tokens.weight", None, width),
        must("model.layers.0.self_attn.q_proj.weight", None, width),
        *(must(f"model.layers.0.{key}.weight") for key in keys),
        without=("visual.", "model.visual."),
    )


def _text(architecture: str, families: tuple[str, ...], *layouts: Layout) -> Network:
    return Network(kind=ModelKind.TEXT_ENCODER, architecture=architecture, layouts=layouts, families=families)


ENCODERS = (
    _text("CLIPTextModel", ("sd1", "sdxl", "sd3", "flux1"), _clip(768)),
    _text("CLIPTextModel", ("sd2",), _clip(1024)),
    _text("CLIPTextModelWithProjection", ("sdxl", "sdxl_refiner", "sd3"), _clip(1280, projected=True)),
    _text(
        "T5EncoderModel",
        ("sd3", "flux1", "chroma", "pixart"),
        layout(
            must("encoder.block.0.layer.0.SelfAttention.q.weight", 4096, 4096),
            must("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 32, 64),
            must("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", None, 4096),
            must("encoder.block.23.layer.1.DenseReluDense.wo.weight", 4096, None),
            must("encoder.final_layer_norm.weight", 4096),
            usual("shared.weight", 32128, 4096),
            without=("decoder.",),
        ),
    ),
    _text(
        "Gemma2Model",
        ("lumina2", "sana"),
        _decoder_only(2304, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
    _text("Qwen3Model", ("z_image",), _decoder_only(2560, "self_attn.q_norm", "self_attn.k_norm")),
    Network(
        kind=ModelKind.IMAGE_ENCODER,
        architecture="CLIPVisionModelWithProjection",
        own=("vision_model.", "visual_projection."),
        layouts=(
            layout(
                must("vision_model.embeddings.patch_embedding.weight", None, 3, None, None),
                must("vision_model.embeddings.class_embedding", None),
                must("vision_model.encoder.layers.0.self_attn.q_proj.weight"),
                must("vision_model.post_layernorm.weight", None),
                usual("visual_projection.weight", 1024, 1280),
                without=("text_model.", "concept_embeds"),
            ),
            layout(
                must("vision_model.embeddings.class_embedding", None),
                must("vision_model.embeddings.patch_embedding.weight", None, 3, None, None),
                must("visual_projection.weight", None, None),
                must("text_projection.weight", None, None),
                must("logit_scale"),
                name="with its text encoder",
            ),
        ),
    ),
    Network(
        kind=ModelKind.IMAGE_ENCODER,
        architecture="SiglipVisionModel",
        # Without the head, which IP-Adapters do not read.
        own=tuple(
            f"{start}{part}." for start in ("vision_model.", "") for part in ("embeddings", "encoder", "post_layernorm")
        ),
        layouts=tuple(
            layout(
                must(f"{start}embeddings.patch_embedding.bias", None),
                must(f"{start}embeddings.patch_embedding.weight", None, 3, None, None),
                must(f"{start}encoder.layers.0.layer_norm1.weight", None),
                must(f"{start}encoder.layers.0.mlp.fc1.weight", None, None),
                must(f"{start}post_layernorm.weight", None),
                usual(f"{start}head.probe", 1, 1, 1152),
                without=(f"{start}embeddings.class_embedding",),
                name=name,
            )
            for name, start in (("published", "vision_model."), ("of transformers 5", ""))
        ),
    ),
)
