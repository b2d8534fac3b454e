"""Chroma (Lodestone Rock 2025): FLUX.1 schnell with one layer in place of all modulations; T5 alone, real guidance."""

from domains.model.families.family import Family
from domains.model.families.parts import T5_TOKENIZERS, denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must

CHROMA = Family(
    id="chroma",
    display_name="Chroma",
    base="flux1",
    parts=(
        text_encoder(1, ("T5EncoderModel",), 512, "text_encoders.t5xxl.transformer."),
        denoiser("transformer", "ChromaTransformer2DModel"),
        vae(),
        tokenizer(1, *T5_TOKENIZERS),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("distilled_guidance_layer.in_proj.weight"),
                must("x_embedder.weight", None, 64),
                must("context_embedder.weight", None, 4096),
                must("transformer_blocks.0.attn.add_k_proj.weight"),
                must("single_transformer_blocks.0.proj_mlp.weight"),
            ),
        ),
    ),
    config={"_class_name": "ChromaTransformer2DModel"},
    config_keys=("distilled_guidance_layer.in_proj.weight",),
    native_px=1024,
    alignment_px=16,
    prompt_tokens=512,
    default_guidance=5.0,
    prediction_types=("flow",),
    even_sigmas=True,
    latent_channels=16,
    computed=True,
)
