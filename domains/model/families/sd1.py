"""Stable Diffusion 1.x (Rombach et al. 2022): CLIP-L, a U-Net that reads it, a 4-channel VAE.

Names and widths prove little (the embedded model has widths of its own); the structure of the U-Net does: its attention
blocks begin with a convolution, where later families have a linear layer.
"""

from domains.model.families.family import Family, Variant
from domains.model.families.parts import CLIP_TOKENIZERS, CLIP_TOKENS, denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import must, usual
from domains.model.families.unet import EDITING_UNET, INPAINTING, UNET_CONFIG, UNET_KEYS, inputs, unet

SD1 = Family(
    id="sd1",
    display_name="Stable Diffusion 1.x",
    parts=(
        text_encoder(1, ("CLIPTextModel",), CLIP_TOKENS, "cond_stage_model.transformer."),
        denoiser("unet", "UNet2DConditionModel"),
        vae(),
        tokenizer(1, *CLIP_TOKENIZERS),
        scheduler(),
    ),
    layouts=unet(
        diffusers=(
            must("down_blocks.0.attentions.0.proj_in.weight", None, None, 1, 1),
            usual("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", 320, 768),
        ),
        original=(
            must("input_blocks.1.1.proj_in.weight", None, None, 1, 1),
            usual("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 320, 768),
        ),
        # SDXL conditions on size and pooled text; upscalers on a noise level.
        without_diffusers=("add_embedding.", "class_embedding.", "encoder_hid_proj.", "down_blocks.0.motion_modules."),
        without_original=("label_emb.",),
    ),
    # Stable Diffusion 2.x has linear layers there, and another text encoder.
    config={**UNET_CONFIG, "addition_embed_type": None, "class_embed_type": None, "use_linear_projection": None},
    config_keys=UNET_KEYS,
    config_without=("add_embedding.", "class_embedding."),
    variants=(
        Variant(name=INPAINTING, signs=inputs(9), config={"in_channels": 9}, tasks=("inpainting",), computed=True),
        EDITING_UNET,
    ),
    native_px=512,
    alignment_px=8,
    prompt_tokens=CLIP_TOKENS,
    reads_windows=True,
    # Between 3 and 7.5, the best values of the embedded model and of published ones.
    default_guidance=5.0,
    prediction_types=("epsilon", "v_prediction", "sample"),
    latent_channels=4,
    learned_words={"": "text_encoder"},
    computed=True,
)
