"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): two CLIPs and T5, a transformer of joint blocks, a 16-channel VAE."""

from domains.model.families.family import Family
from domains.model.families.parts import (
    CLIP_TOKENIZERS,
    CLIP_TOKENS,
    T5_TOKENIZERS,
    denoiser,
    scheduler,
    text_encoder,
    tokenizer,
    vae,
)
from domains.model.families.sign import Layout, must, usual

_CLIP = ("CLIPTextModelWithProjection",)

SD3 = Family(
    id="sd3",
    display_name="Stable Diffusion 3 and 3.5",
    parts=(
        text_encoder(1, _CLIP, CLIP_TOKENS, "text_encoders.clip_l.transformer."),
        text_encoder(2, _CLIP, CLIP_TOKENS, "text_encoders.clip_g.transformer."),
        # Published to be left out where memory is short.
        text_encoder(3, ("T5EncoderModel",), 256, "text_encoders.t5xxl.transformer.", optional=True),
        denoiser("transformer", "SD3Transformer2DModel"),
        vae(),
        tokenizer(1, *CLIP_TOKENIZERS),
        tokenizer(2, *CLIP_TOKENIZERS),
        tokenizer(3, *T5_TOKENIZERS, optional=True),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("pos_embed.proj.weight", None, 16, 2, 2),
                must("context_embedder.weight", None, 4096),
                must("time_text_embed.text_embedder.linear_1.weight", None, 2048),
                must("transformer_blocks.0.attn.add_k_proj.weight"),
                must("transformer_blocks.0.norm1_context.linear.weight"),
                must("proj_out.weight", 64, None),
            ),
            without=("single_transformer_blocks.", "controlnet_blocks.", "pos_embed_input."),
        ),
        Layout(
            name="original",
            signs=(
                must("x_embedder.proj.weight", None, 16, 2, 2),
                must("context_embedder.weight", None, 4096),
                must("y_embedder.mlp.0.weight", None, 2048),
                must("joint_blocks.0.context_block.adaLN_modulation.1.weight"),
                must("joint_blocks.0.x_block.attn.qkv.weight"),
                must("final_layer.linear.weight", 64, None),
                usual("pos_embed"),
            ),
            without=("controlnet_blocks.",),
        ),
    ),
    config={"_class_name": "SD3Transformer2DModel", "in_channels": 16},
    config_keys=("pos_embed.proj.weight", "context_embedder.weight", "transformer_blocks.0.attn.add_k_proj.weight"),
    native_px=1024,
    alignment_px=16,
    prompt_tokens=256,
    clip_tokens=CLIP_TOKENS,
    default_guidance=7.0,
    prediction_types=("flow",),
    latent_channels=16,
    learned_words={"clip_l": "text_encoder", "clip_g": "text_encoder_2"},
    computed=True,
)
