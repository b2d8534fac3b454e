"""SANA (NVIDIA 2024): Gemma 2, a transformer with linear attention, a VAE that makes pictures 32 times smaller."""

from domains.model.families.family import Family
from domains.model.families.parts import denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must

SANA = Family(
    id="sana",
    display_name="SANA",
    parts=(
        text_encoder(1, ("Gemma2Model", "Gemma2ForCausalLM"), 300),
        denoiser("transformer", "SanaTransformer2DModel"),
        vae("AutoencoderDC"),
        tokenizer(1, "GemmaTokenizer", "GemmaTokenizerFast"),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("patch_embed.proj.weight", None, 32, 1, 1),
                must("caption_projection.linear_1.weight", None, 2304),
                must("caption_norm.weight", None),
                must("transformer_blocks.0.ff.conv_inverted.weight"),
                must("proj_out.weight", 32, None),
            ),
            without=("controlnet_blocks.",),
        ),
    ),
    config={"_class_name": "SanaTransformer2DModel"},
    config_keys=("caption_norm.weight", "transformer_blocks.0.ff.conv_inverted.weight"),
    native_px=1024,
    alignment_px=32,
    prompt_tokens=300,
    default_guidance=4.5,
    prediction_types=("flow",),
    latent_channels=32,
)
