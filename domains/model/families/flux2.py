"""FLUX.2 dev and klein (Black Forest Labs 2025): one language model, modulations that all blocks share, a 32-channel VAE."""

from domains.model.families.family import Family, Variant
from domains.model.families.parts import denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must

FLUX2 = Family(
    id="flux2",
    display_name="FLUX.2",
    parts=(
        text_encoder(1, ("Mistral3ForConditionalGeneration", "Qwen3ForCausalLM"), 512),
        denoiser("transformer", "Flux2Transformer2DModel"),
        vae("AutoencoderKLFlux2"),
        tokenizer(1),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("single_stream_modulation.linear.weight"),
                must("double_stream_modulation_img.linear.weight"),
                must("x_embedder.weight", None, 128),
                must("context_embedder.weight"),
                must("proj_out.weight", 128, None),
            ),
        ),
    ),
    config={"_class_name": "Flux2Transformer2DModel"},
    config_keys=("single_stream_modulation.linear.weight",),
    variants=(
        Variant(
            name="klein",
            config={"guidance_embeds": None},
            pipelines=("Flux2KleinPipeline",),
            absent={
                "diffusers": ("time_guidance_embed.guidance_embedder.",),
            },
            guidance=4.0,
            reads_distilled=False,
        ),
    ),
    native_px=1024,
    alignment_px=16,
    prompt_tokens=512,
    default_guidance=1.0,
    distilled_guidance=4.0,
    prediction_types=("flow",),
    latent_channels=32,
)
