"""Qwen-Image (Alibaba 2025): Qwen2.5-VL, a transformer of double blocks, a VAE that also takes films."""

from domains.model.families.family import Family, Variant
from domains.model.families.parts import denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must, usual

QWEN_IMAGE = Family(
    id="qwen_image",
    display_name="Qwen-Image",
    parts=(
        text_encoder(
            *(1, ("Qwen2_5_VLForConditionalGeneration",), 1024),
            *("text_encoders.qwen25_7b.transformer.",),
        ),
        denoiser("transformer", "QwenImageTransformer2DModel"),
        vae("AutoencoderKLQwenImage"),
        tokenizer(1, "Qwen2Tokenizer", "Qwen2TokenizerFast"),
        scheduler(),
    ),
    # The authors' names are those of diffusers.
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("txt_norm.weight", None),
                must("txt_in.weight", None, 3584),
                must("img_in.weight", None, 64),
                must("transformer_blocks.0.img_mod.1.weight"),
                must("transformer_blocks.0.attn.add_q_proj.weight"),
                must("proj_out.weight", 64, None),
                usual("transformer_blocks.59.img_mod.1.weight", 18432, 3072),
            ),
            without=("controlnet_blocks.",),
        ),
    ),
    config={"_class_name": "QwenImageTransformer2DModel"},
    config_keys=("txt_norm.weight", "transformer_blocks.0.img_mod.1.weight"),
    variants=(
        # Their tensors are those of Qwen-Image.
        Variant(name="editing", pipelines=("QwenImageEditPipeline", "QwenImageEditPlusPipeline"), tasks=("editing",)),
    ),
    native_px=1328,
    alignment_px=16,
    prompt_tokens=1024,
    default_guidance=4.0,
    prediction_types=("flow",),
    latent_channels=16,
)
