"""FLUX.1 (Black Forest Labs 2024): CLIP-L (pooled) and T5, a transformer of double and single blocks, a 16-channel VAE."""

from collections.abc import Mapping

from domains.model.families.family import Family, Variant
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
from domains.model.families.sign import Layout, Sign, must, usual


def _reads(channels: int) -> Mapping[str, tuple[Sign, ...]]:
    return {
        "diffusers": (must("x_embedder.weight", None, channels),),
        "original": (must("img_in.weight", None, channels),),
    }


CONTROL = "control"
"""Variant whose denoiser reads a control map in channels beside the latents."""

FLUX1 = Family(
    id="flux1",
    display_name="FLUX.1",
    parts=(
        text_encoder(1, ("CLIPTextModel",), CLIP_TOKENS, "text_encoders.clip_l.transformer."),
        text_encoder(2, ("T5EncoderModel",), 512, "text_encoders.t5xxl.transformer."),
        denoiser("transformer", "FluxTransformer2DModel"),
        vae(),
        tokenizer(1, *CLIP_TOKENIZERS),
        tokenizer(2, *T5_TOKENIZERS),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("x_embedder.weight", None, 64),
                must("context_embedder.weight", None, 4096),
                must("time_text_embed.text_embedder.linear_1.weight", None, 768),
                must("transformer_blocks.0.attn.add_k_proj.weight"),
                must("single_transformer_blocks.0.proj_mlp.weight"),
                must("proj_out.weight", 64, None),
                usual("single_transformer_blocks.37.proj_mlp.weight", 12288, 3072),
            ),
            without=("controlnet_blocks.", "controlnet_x_embedder.", "distilled_guidance_layer."),
        ),
        Layout(
            name="original",
            signs=(
                must("img_in.weight", None, 64),
                must("txt_in.weight", None, 4096),
                must("vector_in.in_layer.weight", None, 768),
                must("double_blocks.0.img_attn.qkv.weight"),
                must("single_blocks.0.linear1.weight"),
                must("final_layer.linear.weight", 64, None),
                usual("single_blocks.37.linear1.weight", 21504, 3072),
            ),
            without=("controlnet_blocks.", "pos_embed_input.", "distilled_guidance_layer."),
        ),
    ),
    config={"_class_name": "FluxTransformer2DModel", "in_channels": 64},
    config_keys=("x_embedder.weight", "context_embedder.weight", "single_transformer_blocks.0.proj_mlp.weight"),
    variants=(
        # The picture and its mask beside the latents.
        Variant(
            name="inpainting",
            signs=_reads(384),
            config={"in_channels": 384},
            pipelines=("FluxFillPipeline",),
            tasks=("inpainting",),
            distilled_guidance=30.0,
            computed=True,
        ),
        # A control map beside the latents: depth or edges, which tensors cannot tell. Published examples have a guidance of
        # 10 for depth, and of 30 for edges.
        Variant(
            name=CONTROL,
            signs=_reads(128),
            config={"in_channels": 128},
            pipelines=("FluxControlPipeline", "FluxControlImg2ImgPipeline", "FluxControlInpaintPipeline"),
            tasks=("editing",),
            references=(1, 1),
            distilled_guidance=10.0,
            computed=True,
        ),
        # Its tensors are those of FLUX.1 dev.
        Variant(
            name="editing",
            pipelines=("FluxKontextPipeline", "FluxKontextInpaintPipeline"),
            tasks=("editing", "text_to_image"),
            references=(0, 1),
            computed=True,
        ),
        Variant(
            name="schnell",
            config={"guidance_embeds": None},
            absent={
                "diffusers": ("time_text_embed.guidance_embedder.",),
                "original": ("guidance_in.",),
            },
            reads_distilled=False,
            steps=4,
            computed=True,
        ),
    ),
    native_px=1024,
    alignment_px=16,
    prompt_tokens=512,
    default_guidance=1.0,
    distilled_guidance=3.5,
    prediction_types=("flow",),
    even_sigmas=True,
    latent_channels=16,
    learned_words={"clip_l": "text_encoder"},
    computed=True,
)
