"""Models of every computed family with random weights, small enough to run a step in milliseconds, in diffusers' layout."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from domains.model.model import Model
from tests.domains.inference.on_device.requests import embedded_model
from tests.domains.inference.on_device.tiny_model import tiny_model

Make = Callable[[Path], Any]
"""Writes one component into its folder, or makes what does it with `save_pretrained`."""

_theirs: Any = diffusers  # which imports its classes when they are asked for

_WORDS = 2014
"""Words of the embedded model's tokenizer."""


def write_tiny_family(name: str, folder: Path) -> Model:
    """The tiny model of this name."""
    return write_parts(*TINY[name], folder, WITHOUT.get(name, ()))


def write_other_sdxl(folder: Path) -> Model:
    """Another checkpoint of the family: other weights in the same shape."""
    pipeline, parts = TINY["sdxl"]
    name, make = parts["unet"]

    def reseeded(folder: Path) -> Any:
        torch.manual_seed(9)
        return make(folder)

    return write_parts(pipeline, {**parts, "unet": (name, reseeded)}, folder)


def write_parts(pipeline: str, makers: "Parts", folder: Path, without: Sequence[str] = ()) -> Model:
    """A model of these components."""
    torch.manual_seed(0)
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.36.0"}
    index |= {part: [None, None] for part in without}
    for part, (class_name, make) in makers.items():
        (folder / part).mkdir(parents=True)
        made = make(folder / part)
        if made is not None:
            made.save_pretrained(folder / part)
        library = "diffusers" if hasattr(diffusers, class_name) else "transformers"
        index[part] = [library, class_name]
    (folder / "model_index.json").write_text(json.dumps(index))
    return tiny_model(folder)


def _clip_tokenizer(folder: Path) -> None:
    for path in (Path(embedded_model().folder) / "tokenizer").iterdir():
        shutil.copyfile(path, folder / path.name)


def _clip_config(width: int, projection: int, layers: int) -> Any:
    return transformers.CLIPTextConfig(
        vocab_size=_WORDS,
        bos_token_id=2012,
        eos_token_id=2013,
        pad_token_id=2013,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        projection_dim=projection,
    )


def clip(width: int, layers: int = 3) -> Make:
    """A CLIP without a projection."""
    return lambda folder: transformers.CLIPTextModel(_clip_config(width, width, layers))


def clip_projected(width: int, projection: int = 0, layers: int = 3) -> Make:
    """A CLIP with a projection, as wide as itself unless another width is given."""
    return lambda folder: transformers.CLIPTextModelWithProjection(_clip_config(width, projection or width, layers))


def unet(**changes: Any) -> Make:
    """A U-Net of two levels."""
    shape: dict[str, Any] = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "use_linear_projection": True,
    }
    return lambda folder: _theirs.UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        norm_num_groups=8,
        **{**shape, **changes},
    )


def vae(channels: int, **changes: Any) -> Make:
    """A latent pixel is 4×4 pixels, where published models have 8×8: tests need few."""
    shape: dict[str, Any] = {
        "block_out_channels": (16, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    return lambda folder: _theirs.AutoencoderKL(
        norm_num_groups=8, sample_size=32, latent_channels=channels, **{**shape, **changes}
    )


def _scheduler(kind: Any, **options: Any) -> Make:
    return lambda folder: kind(**options)


def trained(prediction_type: str) -> Make:
    return _scheduler(
        _theirs.EulerDiscreteScheduler,
        prediction_type=prediction_type,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
    )


_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,"


def t5_tokenizer(folder: Path) -> Any:
    """A T5 tokenizer of letters."""
    words = ["<pad>", "</s>", "<unk>", "▁", *_LETTERS]
    return transformers.T5Tokenizer(vocab=[(word, -float(place)) for place, word in enumerate(words)], extra_ids=4)


def t5(width: int, inner: int = 0, layers: int = 2) -> Make:
    """T5's encoder."""
    return lambda folder: transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=64,
            d_model=width,
            d_kv=8,
            d_ff=inner or 2 * width,
            num_layers=layers,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


T5_WORDS = ("T5Tokenizer", t5_tokenizer)


def flow(**options: Any) -> Make:
    return _scheduler(_theirs.FlowMatchEulerDiscreteScheduler, **options)


def sd3(text: int, pooled: int) -> Make:
    """A transformer of SD3 for text encoders of these widths."""
    return lambda folder: _theirs.SD3Transformer2DModel(
        sample_size=16,
        in_channels=16,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=text,
        caption_projection_dim=32,
        pooled_projection_dim=pooled,
        pos_embed_max_size=48,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


def flux(*, guidance: bool, text: int = 32, pooled: int = 16, **changes: Any) -> Make:
    """A transformer of FLUX.1 for text encoders of these widths."""
    return lambda folder: _theirs.FluxTransformer2DModel(
        **{"in_channels": 64, "num_layers": 1, "num_single_layers": 2, **changes},
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=text,
        pooled_projection_dim=pooled,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 4, 8),
    )


def umt5(width: int, layers: int = 2) -> Make:
    """UMT5's encoder."""
    return lambda folder: transformers.UMT5EncoderModel(
        transformers.UMT5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=2 * width, num_layers=layers, num_heads=2)
    )


def _chroma(folder: Path) -> Any:
    return _theirs.ChromaTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=16,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )


def _auraflow(folder: Path) -> Any:
    made = _theirs.AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=48 * 48,
    )
    # Else the few tokens of a prompt would not show among its padding.
    for weight in made.parameters():
        weight.data *= 3
    return made


def _qwen_tokenizer(folder: Path) -> Any:
    letters = sorted(ByteLevel.alphabet())
    made = transformers.Qwen2Tokenizer(vocab={letter: place for place, letter in enumerate(letters)}, merges=[])
    made.chat_template = "{% for one in messages %}[{{ one.role }}] {{ one.content }}{% endfor %}[assistant]"
    return made


def qwen3(width: int, layers: int = 3) -> Make:
    """Qwen3."""
    return lambda folder: transformers.Qwen3Model(
        transformers.Qwen3Config(
            vocab_size=320,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=1024,
        )
    )


def z_image(**changes: Any) -> Make:
    """Z-Image's transformer."""
    plain = {"n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32}

    def make(folder: Path) -> Any:
        made = _theirs.ZImageTransformer2DModel(dim=32, axes_dims=[4, 4, 8], **{**plain, **changes})
        # Tokens that fill up a picture or a prompt are zero before training, and would not show.
        for token in (made.x_pad_token, made.cap_pad_token):
            torch.nn.init.normal_(token)
        return made

    return make


FLOW_VAE = (
    "AutoencoderKL",
    vae(16, scaling_factor=0.36, shift_factor=0.12, use_quant_conv=False, use_post_quant_conv=False),
)

CLIP_WORDS = ("CLIPTokenizer", _clip_tokenizer)

Parts = Mapping[str, tuple[str, Make]]

_SD3: Parts = {
    "text_encoder": ("CLIPTextModelWithProjection", clip_projected(8)),
    "text_encoder_2": ("CLIPTextModelWithProjection", clip_projected(16)),
    "tokenizer": CLIP_WORDS,
    "tokenizer_2": CLIP_WORDS,
    "transformer": ("SD3Transformer2DModel", sd3(32, 24)),
    "vae": FLOW_VAE,
    "scheduler": ("FlowMatchEulerDiscreteScheduler", flow(shift=3.0)),
}

_FLUX1: Parts = {
    "text_encoder": ("CLIPTextModel", clip(16)),
    "text_encoder_2": ("T5EncoderModel", t5(32)),
    "tokenizer": CLIP_WORDS,
    "tokenizer_2": T5_WORDS,
    "transformer": ("FluxTransformer2DModel", flux(guidance=True)),
    "vae": FLOW_VAE,
    "scheduler": ("FlowMatchEulerDiscreteScheduler", flow(shift=3.0, use_dynamic_shifting=True)),
}

WITHOUT: Mapping[str, tuple[str, ...]] = {"sd3-without-t5": ("text_encoder_3", "tokenizer_3")}
"""Components that a model leaves out, by name."""

TINY: Mapping[str, tuple[str, Parts]] = {
    "sd2": (
        "StableDiffusionPipeline",
        {
            "text_encoder": ("CLIPTextModel", clip(32)),
            "tokenizer": CLIP_WORDS,
            "unet": ("UNet2DConditionModel", unet(cross_attention_dim=32, attention_head_dim=(2, 4))),
            "vae": ("AutoencoderKL", vae(4)),
            "scheduler": ("EulerDiscreteScheduler", trained("v_prediction")),
        },
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {
            "text_encoder": ("CLIPTextModel", clip(16)),
            "text_encoder_2": ("CLIPTextModelWithProjection", clip_projected(32)),
            "tokenizer": CLIP_WORDS,
            "tokenizer_2": CLIP_WORDS,
            "unet": (
                "UNet2DConditionModel",
                unet(
                    cross_attention_dim=48,
                    attention_head_dim=(2, 4),
                    transformer_layers_per_block=(1, 2),
                    addition_embed_type="text_time",
                    addition_time_embed_dim=464,
                    # Pooled text and six numbers: the width by which SDXL is told from its refiner.
                    projection_class_embeddings_input_dim=32 + 6 * 464,
                ),
            ),
            "vae": ("AutoencoderKL", vae(4)),
            "scheduler": ("EulerDiscreteScheduler", trained("epsilon")),
        },
    ),
    "sd3": (
        "StableDiffusion3Pipeline",
        {**_SD3, "text_encoder_3": ("T5EncoderModel", t5(32)), "tokenizer_3": T5_WORDS},
    ),
    "sd3-without-t5": ("StableDiffusion3Pipeline", _SD3),
    "flux1": ("FluxPipeline", _FLUX1),
    "flux1-schnell": (
        "FluxPipeline",
        {
            **_FLUX1,
            "transformer": ("FluxTransformer2DModel", flux(guidance=False)),
            "scheduler": ("FlowMatchEulerDiscreteScheduler", flow(shift=1.0)),
        },
    ),
    "chroma": (
        "ChromaPipeline",
        {
            "text_encoder": ("T5EncoderModel", t5(32)),
            "tokenizer": T5_WORDS,
            "transformer": ("ChromaTransformer2DModel", _chroma),
            "vae": FLOW_VAE,
            "scheduler": ("FlowMatchEulerDiscreteScheduler", flow(shift=1.0, use_dynamic_shifting=True)),
        },
    ),
    "auraflow": (
        "AuraFlowPipeline",
        {
            "text_encoder": ("UMT5EncoderModel", umt5(32)),
            "tokenizer": T5_WORDS,
            "transformer": ("AuraFlowTransformer2DModel", _auraflow),
            "vae": ("AutoencoderKL", vae(4)),
            "scheduler": ("FlowMatchEulerDiscreteScheduler", flow(shift=1.73)),
        },
    ),
    "z_image": (
        "ZImagePipeline",
        {
            "text_encoder": ("Qwen3Model", qwen3(32)),
            "tokenizer": ("Qwen2Tokenizer", _qwen_tokenizer),
            "transformer": ("ZImageTransformer2DModel", z_image()),
            "vae": FLOW_VAE,
            "scheduler": ("FlowMatchEulerDiscreteScheduler", flow(shift=3.0)),
        },
    ),
}
"""By name, which begins with the family: the class of the pipeline, and of each component its class and how it is made."""


def family_of_name(name: str) -> str:
    """The family of a tiny model."""
    return name.partition("-")[0]


def their_pipeline(folder: Path) -> Any:
    """Diffusers' own pipeline of a tiny model, in float32."""
    absent = dict.fromkeys(WITHOUT.get(folder.name, ()))
    found = getattr(_theirs, TINY[folder.name][0]).from_pretrained(folder, dtype=torch.float32, **absent)
    found.set_progress_bar_config(disable=True)
    return found
