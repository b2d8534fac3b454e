"""Z-Image (Alibaba 2025): Qwen3, one transformer over text and picture, the VAE of FLUX.1."""

from domains.model.families.family import Family
from domains.model.families.parts import denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must

Z_IMAGE = Family(
    id="z_image",
    display_name="Z-Image",
    parts=(
        text_encoder(1, ("Qwen3Model", "Qwen3ForCausalLM"), 512, "text_encoders.qwen3_4b.transformer."),
        denoiser("transformer", "ZImageTransformer2DModel"),
        vae(),
        tokenizer(1, "Qwen2Tokenizer", "Qwen2TokenizerFast"),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("all_x_embedder.2-1.weight", None, 64),
                must("cap_embedder.1.weight", None, 2560),
                must("layers.0.attention.to_q.weight"),
                must("layers.0.adaLN_modulation.0.weight"),
                must("noise_refiner.0.attention.to_q.weight"),
                must("context_refiner.0.attention.to_q.weight"),
            ),
            without=("control_layers.",),
        ),
        Layout(
            name="original",
            signs=(
                must("x_embedder.weight", None, 64),
                must("cap_embedder.1.weight", None, 2560),
                must("layers.0.attention.qkv.weight"),
                must("layers.0.adaLN_modulation.0.weight"),
                must("noise_refiner.0.attention.qkv.weight"),
                must("context_refiner.0.attention.qkv.weight"),
            ),
            without=("control_layers.",),
        ),
    ),
    config={"_class_name": "ZImageTransformer2DModel"},
    config_keys=("all_x_embedder.2-1.weight", "layers.0.adaLN_modulation.0.weight"),
    native_px=1024,
    alignment_px=16,
    prompt_tokens=512,
    default_guidance=5.0,
    guidance_off=0.0,
    prediction_types=("flow",),
    even_sigmas=True,
    latent_channels=16,
    completes_maps=True,
    embeds_for_controls=True,
    computed=True,
)
