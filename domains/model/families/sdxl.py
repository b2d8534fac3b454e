"""Stable Diffusion XL base (Podell et al. 2023): CLIP-L and OpenCLIP-bigG, a U-Net that also reads sizes and pooled text."""

from domains.model.families.family import Family, Variant
from domains.model.families.parts import CLIP_TOKENIZERS, CLIP_TOKENS, denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import must, usual
from domains.model.families.unet import EDITING_UNET, INPAINTING, UNET_CONFIG, UNET_KEYS, inputs, unet

SDXL = Family(
    id="sdxl",
    display_name="Stable Diffusion XL",
    parts=(
        text_encoder(
            *(1, ("CLIPTextModel",), CLIP_TOKENS),
            *("conditioner.embedders.0.transformer.", "text_encoders.clip_l.transformer."),
        ),
        text_encoder(
            *(2, ("CLIPTextModelWithProjection",), CLIP_TOKENS),
            *("conditioner.embedders.1.model.", "text_encoders.clip_g.transformer."),
        ),
        denoiser("unet", "UNet2DConditionModel"),
        vae(),
        tokenizer(1, *CLIP_TOKENIZERS),
        tokenizer(2, *CLIP_TOKENIZERS),
        scheduler(),
    ),
    layouts=unet(
        diffusers=(
            # Pooled text (1280) and six numbers as 256 each.
            must("add_embedding.linear_1.weight", None, 2816),
            usual("down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight", 640, 2048),
        ),
        original=(
            must("label_emb.0.0.weight", None, 2816),
            usual("input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight", 640, 2048),
        ),
        without_diffusers=("encoder_hid_proj.", "down_blocks.0.motion_modules."),
    ),
    config={**UNET_CONFIG, "addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2816},
    config_keys=(*UNET_KEYS, "add_embedding.linear_1.weight"),
    config_without=("encoder_hid_proj.",),
    variants=(
        Variant(name=INPAINTING, signs=inputs(9), config={"in_channels": 9}, tasks=("inpainting",), computed=True),
        EDITING_UNET,
    ),
    native_px=1024,
    alignment_px=8,
    prompt_tokens=CLIP_TOKENS,
    reads_windows=True,
    reads_sizes=True,
    default_guidance=5.0,
    prediction_types=("epsilon", "v_prediction"),
    latent_channels=4,
    learned_words={"clip_l": "text_encoder", "clip_g": "text_encoder_2"},
    joins_maps=True,
    computed=True,
)
