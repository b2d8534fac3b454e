"""AuraFlow (Fal 2024): UMT5, a transformer of joint and single blocks with register tokens, a 4-channel VAE."""

from domains.model.families.family import Family
from domains.model.families.parts import T5_TOKENIZERS, denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must

AURAFLOW = Family(
    id="auraflow",
    display_name="AuraFlow",
    parts=(
        text_encoder(1, ("UMT5EncoderModel",), 256, "text_encoders.pile_t5xl.transformer."),
        denoiser("transformer", "AuraFlowTransformer2DModel"),
        vae(),
        tokenizer(1, *T5_TOKENIZERS, "LlamaTokenizer", "LlamaTokenizerFast"),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("register_tokens", 1, None, None),
                must("context_embedder.weight", None, 2048),
                must("pos_embed.proj.weight", None, 16),
                must("joint_transformer_blocks.0.attn.add_k_proj.weight"),
                must("single_transformer_blocks.0.attn.to_q.weight"),
            ),
        ),
    ),
    config={"_class_name": "AuraFlowTransformer2DModel"},
    config_keys=("register_tokens", "joint_transformer_blocks.0.attn.add_k_proj.weight"),
    native_px=1024,
    alignment_px=16,
    prompt_tokens=256,
    default_guidance=3.5,
    prediction_types=("flow",),
    latent_channels=4,
    computed=True,
)
