"""Stable Diffusion 2.x: OpenCLIP-H, a U-Net whose attention blocks begin with a linear layer, a 4-channel VAE."""

from domains.model.families.family import Family, Variant
from domains.model.families.parts import CLIP_TOKENIZERS, CLIP_TOKENS, denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import must, usual
from domains.model.families.unet import DEPTH, INPAINTING, UNET_CONFIG, UNET_KEYS, inputs, unet

SD2 = Family(
    id="sd2",
    display_name="Stable Diffusion 2.x",
    parts=(
        text_encoder(1, ("CLIPTextModel",), CLIP_TOKENS, "cond_stage_model.model."),
        denoiser("unet", "UNet2DConditionModel"),
        vae(),
        tokenizer(1, *CLIP_TOKENIZERS),
        scheduler(),
    ),
    layouts=unet(
        diffusers=(
            must("down_blocks.0.attentions.0.proj_in.weight", None, None),
            usual("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", 320, 1024),
        ),
        original=(
            must("input_blocks.1.1.proj_in.weight", None, None),
            usual("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 320, 1024),
        ),
        # The upscaler and unCLIP condition on a class.
        without_diffusers=("add_embedding.", "class_embedding.", "encoder_hid_proj.", "down_blocks.0.motion_modules."),
        without_original=("label_emb.",),
    ),
    config={**UNET_CONFIG, "addition_embed_type": None, "class_embed_type": None, "use_linear_projection": True},
    config_keys=UNET_KEYS,
    config_without=("add_embedding.", "class_embedding."),
    variants=(
        Variant(name=INPAINTING, signs=inputs(9), config={"in_channels": 9}, tasks=("inpainting",), computed=True),
        Variant(
            name=DEPTH,
            signs=inputs(5),
            config={"in_channels": 5},
            pipelines=("StableDiffusionDepth2ImgPipeline",),
            tasks=("editing",),
            references=(1, 1),
            computed=True,
        ),
    ),
    native_px=768,
    alignment_px=8,
    prompt_tokens=CLIP_TOKENS,
    reads_windows=True,
    default_guidance=7.5,
    prediction_types=("v_prediction", "epsilon"),
    latent_channels=4,
    learned_words={"": "text_encoder"},
    computed=True,
)
