"""Lumina-Image 2.0 (Shanghai AI Lab 2025): Gemma 2, one transformer over text and picture, the VAE of FLUX.1."""

from domains.model.families.family import Family
from domains.model.families.parts import denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must

LUMINA2 = Family(
    id="lumina2",
    display_name="Lumina-Image 2.0",
    parts=(
        text_encoder(1, ("Gemma2Model",), 256, "text_encoders.gemma2_2b.transformer."),
        denoiser("transformer", "Lumina2Transformer2DModel"),
        vae(),
        tokenizer(1, "GemmaTokenizer", "GemmaTokenizerFast"),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("time_caption_embed.caption_embedder.1.weight", None, 2304),
                must("x_embedder.weight", None, 64),
                must("layers.0.attn.to_q.weight"),
                must("noise_refiner.0.attn.to_q.weight"),
                must("context_refiner.0.attn.to_q.weight"),
            ),
        ),
    ),
    config={"_class_name": "Lumina2Transformer2DModel"},
    config_keys=("time_caption_embed.caption_embedder.1.weight",),
    native_px=1024,
    alignment_px=16,
    prompt_tokens=256,
    default_guidance=4.0,
    prediction_types=("flow",),
    latent_channels=16,
)
