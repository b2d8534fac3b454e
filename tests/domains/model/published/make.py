"""Writes the headers beside this file: `python -m tests.domains.model.published.make`. Needs torch, reads no weights."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders import single_file_utils as convert
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from tests.domains.model.published import FOLDER, Shapes, text_of

SD_UNET: Mapping[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD2_UNET = {
    **SD_UNET,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
XL_UNET: Mapping[str, Any] = {
    "sample_size": 128,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
REFINER_UNET = {
    **XL_UNET,
    "attention_head_dim": (6, 12, 24, 24),
    "block_out_channels": (384, 768, 1536, 1536),
    "cross_attention_dim": 1280,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "projection_class_embeddings_input_dim": 2560,
}
UPSCALER_UNET: Mapping[str, Any] = {
    "in_channels": 7,
    "attention_head_dim": 8,
    "block_out_channels": (256, 512, 512, 1024),
    "cross_attention_dim": 1024,
    "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
    "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
    "only_cross_attention": (True, True, True, False),
    "num_class_embeds": 1000,
    "use_linear_projection": True,
}
KL: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
KL16 = {**KL, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
SD3: Mapping[str, Any] = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
    "pos_embed_max_size": 192,
}
SD35_LARGE = {
    **SD3,
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}
SD35_MEDIUM = {**SD3, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13)), "pos_embed_max_size": 384}
PIXART: Mapping[str, Any] = {"caption_channels": 4096, "use_additional_conditions": False}

# name: (class of diffusers, config)
DIFFUSERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sd1_unet": ("UNet2DConditionModel", SD_UNET),
    "sd1_inpainting_unet": ("UNet2DConditionModel", {**SD_UNET, "in_channels": 9}),
    "sd1_pix2pix_unet": ("UNet2DConditionModel", {**SD_UNET, "in_channels": 8}),
    "sd2_unet": ("UNet2DConditionModel", SD2_UNET),
    "sd2_depth_unet": ("UNet2DConditionModel", {**SD2_UNET, "in_channels": 5}),
    "sd2_inpainting_unet": ("UNet2DConditionModel", {**SD2_UNET, "in_channels": 9}),
    "sdxl_pix2pix_unet": ("UNet2DConditionModel", {**XL_UNET, "in_channels": 8}),
    "sd2_upscaler_unet": ("UNet2DConditionModel", UPSCALER_UNET),
    "sdxl_unet": ("UNet2DConditionModel", XL_UNET),
    "sdxl_inpainting_unet": ("UNet2DConditionModel", {**XL_UNET, "in_channels": 9}),
    "sdxl_refiner_unet": ("UNet2DConditionModel", REFINER_UNET),
    "kolors_unet": (
        "UNet2DConditionModel",
        {
            **XL_UNET,
            "encoder_hid_dim": 4096,
            "encoder_hid_dim_type": "text_proj",
            "projection_class_embeddings_input_dim": 5632,
        },
    ),
    "sd3_transformer": ("SD3Transformer2DModel", SD3),
    "sd35_large_transformer": ("SD3Transformer2DModel", SD35_LARGE),
    "sd35_medium_transformer": ("SD3Transformer2DModel", SD35_MEDIUM),
    "flux1_dev_transformer": ("FluxTransformer2DModel", {"guidance_embeds": True}),
    "flux1_schnell_transformer": ("FluxTransformer2DModel", {}),
    "flux1_fill_transformer": (
        "FluxTransformer2DModel",
        {"guidance_embeds": True, "in_channels": 384, "out_channels": 64},
    ),
    "flux1_depth_transformer": (
        "FluxTransformer2DModel",
        {"guidance_embeds": True, "in_channels": 128, "out_channels": 64},
    ),
    "chroma_transformer": ("ChromaTransformer2DModel", {}),
    "flux2_dev_transformer": ("Flux2Transformer2DModel", {}),
    "flux2_klein_transformer": (
        "Flux2Transformer2DModel",
        {
            "guidance_embeds": False,
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
        },
    ),
    "qwen_image_transformer": ("QwenImageTransformer2DModel", {}),
    "z_image_transformer": ("ZImageTransformer2DModel", {}),
    "lumina2_transformer": ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),
    "sana_transformer": ("SanaTransformer2DModel", {}),
    "pixart_sigma_transformer": ("PixArtTransformer2DModel", PIXART),
    "pixart_alpha_transformer": ("PixArtTransformer2DModel", {**PIXART, "use_additional_conditions": True}),
    "auraflow_transformer": ("AuraFlowTransformer2DModel", {}),
    "cogview4_transformer": ("CogView4Transformer2DModel", {}),
    "sd_vae": ("AutoencoderKL", KL),
    "flux1_vae": ("AutoencoderKL", KL16),
    "flux2_vae": ("AutoencoderKLFlux2", {}),
    "qwen_image_vae": ("AutoencoderKLQwenImage", {}),
    "sana_vae": ("AutoencoderDC", {}),
    "tiny_vae": ("AutoencoderTiny", {}),
    "sd1_controlnet": ("ControlNetModel", SD_UNET | {"sample_size": None}),
    "sd2_controlnet": ("ControlNetModel", SD2_UNET | {"sample_size": None}),
    "sdxl_controlnet": ("ControlNetModel", {**XL_UNET, "up_block_types": None, "sample_size": None}),
    "sdxl_union_controlnet": (
        "ControlNetUnionModel",
        {**XL_UNET, "up_block_types": None, "sample_size": None, "num_control_type": 8},
    ),
    "sd3_controlnet": ("SD3ControlNetModel", {**SD3, "num_layers": 12}),
    "flux1_controlnet": ("FluxControlNetModel", {"num_layers": 5, "num_single_layers": 0, "guidance_embeds": True}),
    "sd35_large_controlnet": (
        "SD3ControlNetModel",
        {
            "num_layers": 19,
            "num_attention_heads": 38,
            "joint_attention_dim": None,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": None,
            "pos_embed_type": None,
            "use_pos_embed": False,
        },
    ),
    "flux1_union_controlnet": (
        "FluxControlNetModel",
        {"num_layers": 5, "num_single_layers": 10, "guidance_embeds": True, "num_mode": 10},
    ),
    "qwen_image_controlnet": ("QwenImageControlNetModel", {"num_layers": 5}),
    # Z-Image-Turbo-Fun-Controlnet-Union and -Union-2.1.
    "z_image_controlnet": (
        "ZImageControlNetModel",
        {"control_layers_places": [*range(0, 30, 5)], "control_in_dim": 16},
    ),
    "z_image_21_controlnet": (
        "ZImageControlNetModel",
        {
            "control_layers_places": [*range(0, 30, 2)],
            "control_refiner_layers_places": [0, 1],
            "control_in_dim": 33,
            "add_control_noise_refiner": "control_noise_refiner",
        },
    ),
    "sana_controlnet": ("SanaControlNetModel", {}),
    "sd1_t2i_adapter": ("T2IAdapter", {}),
    "sd1_light_t2i_adapter": ("T2IAdapter", {"adapter_type": "light_adapter", "num_res_blocks": 4}),
    "sdxl_t2i_adapter": (
        "T2IAdapter",
        {"adapter_type": "full_adapter_xl", "downscale_factor": 16, "channels": [320, 640, 1280, 1280]},
    ),
}

CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
T5 = {"vocab_size": 32128, "d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "d_kv": 64}
T5_11 = {**T5, "feed_forward_proj": "gated-gelu"}

# name: (model class of transformers, config class, config)
TRANSFORMERS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "clip_l_text_encoder": ("CLIPTextModel", "CLIPTextConfig", CLIP_L),
    "open_clip_h_text_encoder": ("CLIPTextModel", "CLIPTextConfig", CLIP_H),
    "open_clip_g_text_encoder": ("CLIPTextModelWithProjection", "CLIPTextConfig", CLIP_G),
    "t5_xxl_text_encoder": ("T5EncoderModel", "T5Config", T5_11),
    "clip_vision_h": (
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
            "projection_dim": 1024,
        },
    ),
    "sam_segmenter": ("SamModel", "SamConfig", {}),
    "dpt_depth": ("DPTForDepthEstimation", "DPTConfig", {}),
    "depth_anything": ("DepthAnythingForDepthEstimation", "DepthAnythingConfig", {}),
    "segformer": ("SegformerForSemanticSegmentation", "SegformerConfig", {"num_labels": 150}),
    "mobilenet_nsfw": ("MobileNetV2ForImageClassification", "MobileNetV2Config", {"num_labels": 5}),
    "vit_pose": ("VitPoseForPoseEstimation", "VitPoseConfig", {}),
    "swin2sr_upscaler": ("Swin2SRForImageSuperResolution", "Swin2SRConfig", {}),
}


def of_diffusers(class_name: str, config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of a model of diffusers."""
    known = {name: value for name, value in config.items() if value is not None}
    with torch.device("meta"):
        return shapes(getattr(diffusers, class_name)(**known))


def of_transformers(class_name: str, config_class: str, config: Mapping[str, Any]) -> Shapes:
    """The same of transformers, with the outer level that published files of CLIP have."""
    with torch.device("meta"):
        made = shapes(getattr(transformers, class_name)(getattr(transformers, config_class)(**config)))
    outer = {"CLIPText": "text_model.", "CLIPVision": "vision_model."}
    start = next((outer[name] for name in outer if class_name.startswith(name)), "")
    return {
        key if not start or key.startswith((start, "text_projection.", "visual_projection.")) else start + key: shape
        for key, shape in made.items()
    }


def shapes(module: Any) -> Shapes:
    """Names and shapes of its parameters and stored buffers."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


# The names of the authors' code (CompVis latent-diffusion) for those of diffusers, from the inverse of diffusers'
# `scripts/convert_diffusers_to_original_stable_diffusion.py`, for any number of levels.
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def ldm_unet(of: Shapes, levels: int, layers: int = 2) -> Shapes:
    """The shapes of a U-Net of diffusers under the names of latent-diffusion."""
    return {_ldm_name(name, levels, layers, of): shape for name, shape in of.items()}


def _ldm_name(name: str, levels: int, layers: int, of: Shapes) -> str:
    simple = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "class_embedding": "label_emb",
    }
    stem, _, leaf = name.rpartition(".")
    if stem in simple:
        return f"{simple[stem]}.{leaf}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        number = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{number}.{_within(found[1], found[3])}"
    if found := re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.+)", name):
        level, number = int(found[2]), int(found[4])
        place = 1 + level * (layers + 1) + number if found[1] == "down" else level * (layers + 1) + number
        side = "input" if found[1] == "down" else "output"
        inner = 1 if found[3] == "attentions" else 0
        return f"{side}_blocks.{place}.{inner}.{_within(found[3], found[5])}"
    if found := re.fullmatch(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.+)", name):
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op.{found[2]}"
    found = re.fullmatch(r"up_blocks\.(\d)\.upsamplers\.0\.conv\.(.+)", name)
    assert found, name
    level = int(found[1])
    inner = 2 if any(key.startswith(f"up_blocks.{level}.attentions.") for key in of) else 1
    return f"output_blocks.{level * (layers + 1) + layers}.{inner}.conv.{found[2]}"


def _within(what: str, path: str) -> str:
    if what == "attentions":
        return path
    part, _, leaf = path.rpartition(".")
    return f"{_RESNET[part]}.{leaf}"


_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def ldm_vae(of: Shapes, levels: int = 4) -> Shapes:
    """The shapes of AutoencoderKL under the names of latent-diffusion."""
    made: Shapes = {}
    for name, shape in of.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        if found := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", new):
            new = f"{found[1]}.mid.attn_1.{_VAE_ATTENTION[found[2]]}.{found[3]}"
            if found[2] != "group_norm" and found[3] == "weight":
                shape = (*shape, 1, 1)
        made[new] = shape
    return made


def open_clip(of: Shapes) -> Shapes:
    """The shapes of a CLIP text encoder under the names of OpenCLIP."""
    made: Shapes = {}
    for name, shape in of.items():
        new = name.removeprefix("text_model.").replace("encoder.layers.", "transformer.resblocks.")
        new = new.replace("layer_norm", "ln_").replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        new = new.replace("self_attn.out_proj", "attn.out_proj").replace("final_ln_.", "ln_final.")
        if "_proj." in new and "self_attn." in new:
            if "q_proj" not in new:
                continue
            new = new.replace("self_attn.q_proj.", "attn.in_proj_")
            shape = (3 * shape[0], *shape[1:])
        new = {
            "embeddings.token_embedding.weight": "token_embedding.weight",
            "embeddings.position_embedding.weight": "positional_embedding",
            "final_layer_norm.weight": "ln_final.weight",
            "final_ln_weight": "ln_final.weight",
            "text_projection.weight": "text_projection",
        }.get(new, new)
        made[new] = shape
    return made


def joined(**parts: Shapes) -> Shapes:
    """Components in one file, under their prefixes (`__` for a dot)."""
    return {
        f"{prefix.replace('__', '.')}.{key}": shape for prefix, part in parts.items() for key, shape in part.items()
    }


def flux_original(of: Shapes) -> Shapes:
    """FLUX.1 under the names of Black Forest Labs."""
    made: Shapes = {}
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (
            r"time_text_embed\.timestep_embedder\.linear_(\d)",
            lambda m: f"time_in.{'in' if m[1] == '1' else 'out'}_layer",
        ),
        (r"time_text_embed\.text_embedder\.linear_(\d)", lambda m: f"vector_in.{'in' if m[1] == '1' else 'out'}_layer"),
        (
            r"time_text_embed\.guidance_embedder\.linear_(\d)",
            lambda m: f"guidance_in.{'in' if m[1] == '1' else 'out'}_layer",
        ),
        (r"context_embedder", "txt_in"),
        (r"x_embedder", "img_in"),
        (r"^proj_out", "final_layer.linear"),
        (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
        (r"single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
        (r"single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight", r"single_blocks.\1.norm.query_norm.scale"),
        (r"single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight", r"single_blocks.\1.norm.key_norm.scale"),
        (r"single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
        (r"^transformer_blocks\.(\d+)\.norm1\.linear", r"double_blocks.\1.img_mod.lin"),
        (r"^transformer_blocks\.(\d+)\.norm1_context\.linear", r"double_blocks.\1.txt_mod.lin"),
        (r"^transformer_blocks\.(\d+)\.attn\.norm_q\.weight", r"double_blocks.\1.img_attn.norm.query_norm.scale"),
        (r"^transformer_blocks\.(\d+)\.attn\.norm_k\.weight", r"double_blocks.\1.img_attn.norm.key_norm.scale"),
        (r"^transformer_blocks\.(\d+)\.attn\.norm_added_q\.weight", r"double_blocks.\1.txt_attn.norm.query_norm.scale"),
        (r"^transformer_blocks\.(\d+)\.attn\.norm_added_k\.weight", r"double_blocks.\1.txt_attn.norm.key_norm.scale"),
        (r"^transformer_blocks\.(\d+)\.attn\.to_out\.0", r"double_blocks.\1.img_attn.proj"),
        (r"^transformer_blocks\.(\d+)\.attn\.to_add_out", r"double_blocks.\1.txt_attn.proj"),
        (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"double_blocks.\1.img_mlp.0"),
        (r"^transformer_blocks\.(\d+)\.ff\.net\.2", r"double_blocks.\1.img_mlp.2"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"double_blocks.\1.txt_mlp.0"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.net\.2", r"double_blocks.\1.txt_mlp.2"),
        (r"^transformer_blocks\.(\d+)\.attn\.to_q", r"double_blocks.\1.img_attn.qkv"),
        (r"^transformer_blocks\.(\d+)\.attn\.add_q_proj", r"double_blocks.\1.txt_attn.qkv"),
    ]
    for name, shape in of.items():
        if re.search(r"single_transformer_blocks\.\d+\.attn\.to_q", name):
            mlp = of[name.replace("attn.to_q", "proj_mlp")]
            made[re.sub(r"single_transformer_blocks\.(\d+)\.attn\.to_q", r"single_blocks.\1.linear1", name)] = (
                3 * shape[0] + mlp[0],
                *shape[1:],
            )
            continue
        if re.search(r"attn\.(to_[kv]|add_[kv]_proj)\.|single_transformer_blocks\.\d+\.proj_mlp", name):
            continue
        new = name
        for pattern, put in rules:
            new, count = re.subn(pattern, put, new, count=1)
            if count:
                break
        triple = re.search(r"attn\.(to_q|add_q_proj)\.", name)
        made[new] = (3 * shape[0], *shape[1:]) if triple else shape
    return made


def sd3_original(of: Shapes) -> Shapes:
    """Stable Diffusion 3 under the names of Stability AI."""
    last = max(int(m[1]) for name in of if (m := re.match(r"transformer_blocks\.(\d+)\.", name)))
    rules: list[tuple[str, str]] = [
        (r"^pos_embed\.pos_embed$", "pos_embed"),
        (r"^pos_embed\.proj", "x_embedder.proj"),
        (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
        (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
        (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
        (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
        (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
        (r"^proj_out", "final_layer.linear"),
        (r"^transformer_blocks\.(\d+)\.norm1\.linear", r"joint_blocks.\1.x_block.adaLN_modulation.1"),
        (r"^transformer_blocks\.(\d+)\.norm1_context\.linear", r"joint_blocks.\1.context_block.adaLN_modulation.1"),
        (r"^transformer_blocks\.(\d+)\.attn\.to_q", r"joint_blocks.\1.x_block.attn.qkv"),
        (r"^transformer_blocks\.(\d+)\.attn2\.to_q", r"joint_blocks.\1.x_block.attn2.qkv"),
        (r"^transformer_blocks\.(\d+)\.attn\.add_q_proj", r"joint_blocks.\1.context_block.attn.qkv"),
        (r"^transformer_blocks\.(\d+)\.attn\.to_out\.0", r"joint_blocks.\1.x_block.attn.proj"),
        (r"^transformer_blocks\.(\d+)\.attn2\.to_out\.0", r"joint_blocks.\1.x_block.attn2.proj"),
        (r"^transformer_blocks\.(\d+)\.attn\.to_add_out", r"joint_blocks.\1.context_block.attn.proj"),
        (r"^transformer_blocks\.(\d+)\.attn\.norm_q", r"joint_blocks.\1.x_block.attn.ln_q"),
        (r"^transformer_blocks\.(\d+)\.attn\.norm_k", r"joint_blocks.\1.x_block.attn.ln_k"),
        (r"^transformer_blocks\.(\d+)\.attn2\.norm_q", r"joint_blocks.\1.x_block.attn2.ln_q"),
        (r"^transformer_blocks\.(\d+)\.attn2\.norm_k", r"joint_blocks.\1.x_block.attn2.ln_k"),
        (r"^transformer_blocks\.(\d+)\.attn\.norm_added_q", r"joint_blocks.\1.context_block.attn.ln_q"),
        (r"^transformer_blocks\.(\d+)\.attn\.norm_added_k", r"joint_blocks.\1.context_block.attn.ln_k"),
        (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"joint_blocks.\1.x_block.mlp.fc1"),
        (r"^transformer_blocks\.(\d+)\.ff\.net\.2", r"joint_blocks.\1.x_block.mlp.fc2"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"joint_blocks.\1.context_block.mlp.fc1"),
        (r"^transformer_blocks\.(\d+)\.ff_context\.net\.2", r"joint_blocks.\1.context_block.mlp.fc2"),
    ]
    made: Shapes = {}
    for name, shape in of.items():
        if re.search(r"attn2?\.(to_[kv]|add_[kv]_proj)\.", name):
            continue
        new = next((re.sub(pattern, put, name) for pattern, put in rules if re.search(pattern, name)), name)
        made[new] = (3 * shape[0], *shape[1:]) if re.search(r"attn2?\.(to_q|add_q_proj)\.", name) else shape
    assert f"joint_blocks.{last}.x_block.mlp.fc1.weight" in made
    return made


def z_image_original(of: Shapes) -> Shapes:
    """Z-Image under the names of its authors."""
    made: Shapes = {}
    for name, shape in of.items():
        if re.search(r"attention\.to_[kv]\.", name):
            continue
        new = name.replace("all_x_embedder.2-1.", "x_embedder.").replace("all_final_layer.2-1.", "final_layer.")
        new = new.replace("attention.to_q.", "attention.qkv.").replace("attention.to_out.0.", "attention.out.")
        new = new.replace("attention.norm_q.", "attention.q_norm.").replace("attention.norm_k.", "attention.k_norm.")
        made[new] = (3 * shape[0], *shape[1:]) if ".attention.to_q." in name else shape
    return made


def check(name: str, converter: Callable[..., Any], original: Shapes, expected: Shapes, **more: Any) -> None:
    """Have diffusers convert the original names, and compare with its own model."""
    given = {key: torch.empty(shape, device="meta") for key, shape in original.items()}
    got = {key: tuple(tensor.shape) for key, tensor in converter(given, **more).items()}
    lacks, extra = expected.keys() - got.keys(), got.keys() - expected.keys()
    other = [key for key in expected.keys() & got.keys() if expected[key] != got[key]]
    if lacks or extra or other:
        raise AssertionError(name, sorted(lacks)[:5], sorted(extra)[:5], other[:5])


def singles(of: Mapping[str, Shapes]) -> dict[str, Shapes]:
    """Single files as they are published."""
    vae, vae16 = ldm_vae(of["sd_vae"]), ldm_vae(of["flux1_vae"])
    clip_l, clip_h, clip_g = (of[f"{name}_text_encoder"] for name in ("clip_l", "open_clip_h", "open_clip_g"))
    unets: dict[str, Shapes] = {}
    for name in ("sd1", "sd1_inpainting", "sd1_pix2pix", "sd2", "sd2_depth", "sdxl", "sdxl_inpainting", "sdxl_refiner"):
        unets[name] = ldm_unet(of[f"{name}_unet"], 4)
        config = dict(UNet2DConditionModel(**_small(DIFFUSERS[f"{name}_unet"][1])).config)
        prefixed = joined(model__diffusion_model=unets[name])
        check(name, convert.convert_ldm_unet_checkpoint, prefixed, of[f"{name}_unet"], config=config)
    config = {"down_block_types": [""] * 4, "up_block_types": [""] * 4}
    check("vae", convert.convert_ldm_vae_checkpoint, joined(first_stage_model=vae), of["sd_vae"], config=config)
    check("vae16", convert.convert_ldm_vae_checkpoint, joined(vae=vae16), of["flux1_vae"], config=config)
    flux = {name: flux_original(of[f"flux1_{name}_transformer"]) for name in ("dev", "schnell", "fill", "depth")}
    for name, original in flux.items():
        check(name, convert.convert_flux_transformer_checkpoint_to_diffusers, original, of[f"flux1_{name}_transformer"])
    sd3 = {name: sd3_original(of[f"{name}_transformer"]) for name in ("sd3", "sd35_large", "sd35_medium")}
    for name, original in sd3.items():
        check(name, convert.convert_sd3_transformer_checkpoint_to_diffusers, original, of[f"{name}_transformer"])
    z_image = z_image_original(of["z_image_transformer"])
    check("z_image", convert.convert_z_image_transformer_checkpoint_to_diffusers, z_image, of["z_image_transformer"])
    positions: Shapes = {"text_model.embeddings.position_ids": (1, 77)}
    noise: Shapes = {"betas": (1000,), "alphas_cumprod": (1000,), "model_ema.decay": (), "model_ema.num_updates": ()}
    ema = {f"model_ema.diffusion_model{key.replace('.', '')}": shape for key, shape in unets["sd1"].items()}
    sd1_text = {**clip_l, **positions}
    projected = open_clip({**clip_g, "text_projection.weight": (1280, 1280)})
    return {
        "sd1_single": joined(
            model__diffusion_model=unets["sd1"], first_stage_model=vae, cond_stage_model__transformer=sd1_text
        ),
        "sd1_single_ema": {
            **joined(
                model__diffusion_model=unets["sd1"], first_stage_model=vae, cond_stage_model__transformer=sd1_text
            ),
            **ema,
            **noise,
        },
        "sd1_inpainting_single": joined(
            model__diffusion_model=unets["sd1_inpainting"],
            first_stage_model=vae,
            cond_stage_model__transformer=sd1_text,
        ),
        "sd1_pix2pix_single": joined(
            model__diffusion_model=unets["sd1_pix2pix"], first_stage_model=vae, cond_stage_model__transformer=sd1_text
        ),
        "sd2_single": joined(
            model__diffusion_model=unets["sd2"], first_stage_model=vae, cond_stage_model__model=open_clip(clip_h)
        ),
        "sd2_depth_single": joined(
            model__diffusion_model=unets["sd2_depth"], first_stage_model=vae, cond_stage_model__model=open_clip(clip_h)
        ),
        "sdxl_single": joined(
            model__diffusion_model=unets["sdxl"],
            first_stage_model=vae,
            conditioner__embedders__0__transformer=clip_l,
            conditioner__embedders__1__model=projected,
        ),
        "sdxl_inpainting_single": joined(
            model__diffusion_model=unets["sdxl_inpainting"],
            first_stage_model=vae,
            conditioner__embedders__0__transformer=clip_l,
            conditioner__embedders__1__model=projected,
        ),
        "sdxl_refiner_single": joined(
            model__diffusion_model=unets["sdxl_refiner"],
            first_stage_model=vae,
            conditioner__embedders__0__model=projected,
        ),
        "sd3_single": joined(
            model__diffusion_model=sd3["sd3"],
            first_stage_model=vae16,
            text_encoders__clip_l__transformer=clip_l,
            text_encoders__clip_g__transformer=clip_g,
        ),
        "sd35_large_original": joined(model__diffusion_model=sd3["sd35_large"]),
        "sd35_medium_original": joined(model__diffusion_model=sd3["sd35_medium"]),
        **{f"flux1_{name}_original": original for name, original in flux.items()},
        "z_image_original": z_image,
        "sd1_ldm_unet": unets["sd1"],
        "sd_ldm_vae": vae,
        "flux1_ldm_vae": vae16,
    }


def _small(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}


def main() -> None:
    of = {name: of_diffusers(*made) for name, made in DIFFUSERS.items()}
    of |= {name: of_transformers(*made) for name, made in TRANSFORMERS.items()}
    with torch.device("meta"):
        of |= singles(of)
    for name, made in of.items():
        (FOLDER / f"{name}.txt").write_text(text_of(made), encoding="utf-8")
    print(len(of), "headers", file=sys.stderr)


if __name__ == "__main__":
    main()
