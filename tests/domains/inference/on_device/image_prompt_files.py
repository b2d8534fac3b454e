"""IP-Adapters and image encoders with random values that fit tiny models, on disk, and what a worker gets for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from domains.inference.controls import UsedPicture
from domains.inference.given import GivenImagePrompt
from domains.inference.image_prompts import ResolvedImagePrompt
from domains.model.fingerprint import Fingerprints, hash_of
from domains.model.kind import ModelKind
from domains.model.model import Model
from domains.model.weights_model import read_file
from tests.domains.inference.on_device.control_files import control_model, stored

EDGE_PX = 28
WIDTH, EMBEDDING = 32, 24
"""Of the encoder's layers, and of what it makes of a whole picture."""
_INNER = 64
_TEXT: dict[str, Any] = {
    "vocab_size": 16,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
"""Of the text encoders."""


def write_encoder(folder: Path, embedding: int = EMBEDDING) -> Model:
    """A CLIP vision encoder."""
    torch.manual_seed(9)
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        projection_dim=embedding,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=EDGE_PX,
        patch_size=14,
    )
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return control_model(folder)


def write_clip(folder: Path) -> Model:
    """A whole CLIP, with its text encoder, as OpenAI published them."""
    write_encoder(folder / "vision")
    torch.manual_seed(9)
    vision = transformers.CLIPVisionConfig.from_pretrained(folder / "vision").to_dict()
    text = transformers.CLIPTextConfig(**_TEXT).to_dict()
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING)
    transformers.CLIPModel(config).save_pretrained(folder)
    return control_model(folder)


def write_siglip(folder: Path, *, whole: bool = False) -> Model:
    """The vision encoder of a SigLIP, as wide as the CLIP. `whole`: with its text encoder, as Google published them."""
    torch.manual_seed(8)
    config = transformers.SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=EDGE_PX,
        patch_size=14,
    )
    if whole:
        text = transformers.SiglipTextConfig(**_TEXT)
        both = transformers.SiglipConfig(text_config=text.to_dict(), vision_config=config.to_dict())
        transformers.SiglipModel(both).save_pretrained(folder)
    else:
        transformers.SiglipVisionModel(config).save_pretrained(folder)
    return control_model(folder)


def adapter_tensors(denoiser: Any, variant: str, seed: int = 1) -> dict[str, Tensor]:
    """The tensors of an IP-Adapter as it is published: `plain`, `plus` or `full` for a U-Net, `xlabs` or `diffusers` (their
    names) for FLUX.1, `instantx` for SD3."""
    made = {"xlabs": _xlabs, "diffusers": _as_diffusers, "instantx": _instantx}.get(variant)
    shapes = _of_unet(denoiser, variant) if made is None else made(denoiser)
    generator = torch.Generator().manual_seed(seed)
    # Strong enough to show in the pictures.
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def _of_unet(unet: Any, variant: str) -> dict[str, tuple[int, ...]]:
    read = unet.config.cross_attention_dim
    layers = [module for name, module in unet.named_modules() if name.endswith("attn2")]
    shapes = {"plain": _plain, "plus": _plus, "full": _full}[variant](read)
    for place, layer in enumerate(layers):
        for name in ("to_k_ip", "to_v_ip"):
            shapes[f"ip_adapter.{2 * place + 1}.{name}.weight"] = (layer.to_k.weight.shape[0], read)
    return shapes


def _xlabs(transformer: Any) -> dict[str, tuple[int, ...]]:
    read, width = transformer.config.joint_attention_dim, transformer.inner_dim
    shapes = {name.replace("image_proj", "ip_adapter_proj_model"): shape for name, shape in _plain(read).items()}
    for place in range(len(transformer.transformer_blocks)):
        for name in ("k", "v"):
            layer = f"double_blocks.{place}.processor.ip_adapter_double_stream_{name}_proj"
            shapes |= {f"{layer}.weight": (width, read), f"{layer}.bias": (width,)}
    return shapes


def _as_diffusers(transformer: Any) -> dict[str, tuple[int, ...]]:
    changed = {"ip_adapter_proj_model": "image_proj", "double_blocks": "ip_adapter", "processor.": ""}
    changed |= {f"ip_adapter_double_stream_{name}_proj": f"to_{name}_ip" for name in ("k", "v")}
    found: dict[str, tuple[int, ...]] = {}
    for published, shape in _xlabs(transformer).items():
        name = published
        for old, new in changed.items():
            name = name.replace(old, new)
        found[name] = shape
    return found


def _instantx(transformer: Any) -> dict[str, tuple[int, ...]]:
    width, head = transformer.inner_dim, transformer.config.attention_head_dim
    time = "image_proj.time_embedding"
    shapes = _plus(width) | {
        f"{time}.linear_1.weight": (_INNER, 32),
        f"{time}.linear_1.bias": (_INNER,),
        f"{time}.linear_2.weight": (_INNER, _INNER),
        f"{time}.linear_2.bias": (_INNER,),
    }
    for layer in range(4):
        place = f"image_proj.layers.{layer}.2.1"
        shapes |= {f"{place}.weight": (4 * _INNER, _INNER), f"{place}.bias": (4 * _INNER,)}
    for place in range(len(transformer.attn_processors)):
        layer = f"ip_adapter.{place}"
        shapes |= {
            f"{layer}.norm_ip.linear.weight": (2 * width, _INNER),
            f"{layer}.norm_ip.linear.bias": (2 * width,),
            f"{layer}.to_k_ip.weight": (width, width),
            f"{layer}.to_v_ip.weight": (width, width),
            **{f"{layer}.{name}.weight": (head,) for name in ("norm_q", "norm_k", "norm_ip_k")},
        }
    return shapes


def _plain(read: int) -> dict[str, tuple[int, ...]]:
    return {
        "image_proj.proj.weight": (4 * read, EMBEDDING),
        "image_proj.proj.bias": (4 * read,),
        **_norm("image_proj.norm", read),
    }


def _full(read: int) -> dict[str, tuple[int, ...]]:
    return {
        "image_proj.proj.0.weight": (WIDTH, WIDTH),
        "image_proj.proj.0.bias": (WIDTH,),
        "image_proj.proj.2.weight": (read, WIDTH),
        "image_proj.proj.2.bias": (read,),
        **_norm("image_proj.proj.3", read),
    }


def _plus(read: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "image_proj.latents": (1, 6, _INNER),
        "image_proj.proj_in.weight": (_INNER, WIDTH),
        "image_proj.proj_in.bias": (_INNER,),
        "image_proj.proj_out.weight": (read, _INNER),
        "image_proj.proj_out.bias": (read,),
        **_norm("image_proj.norm_out", read),
    }
    for layer in range(4):
        place = f"image_proj.layers.{layer}"
        shapes |= {
            **_norm(f"{place}.0.norm1", _INNER),
            **_norm(f"{place}.0.norm2", _INNER),
            f"{place}.0.to_q.weight": (128, _INNER),
            f"{place}.0.to_kv.weight": (256, _INNER),
            f"{place}.0.to_out.weight": (_INNER, 128),
            **_norm(f"{place}.1.0", _INNER),
            f"{place}.1.1.weight": (4 * _INNER, _INNER),
            f"{place}.1.3.weight": (_INNER, 4 * _INNER),
        }
    return shapes


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def write_adapter(path: Path, denoiser: Any, variant: str = "plain", seed: int = 1) -> Model:
    """An IP-Adapter as the catalogue gives it when a job names it. Tiny ones have no width by which a scan could tell their
    family."""
    save_file(adapter_tensors(denoiser, variant, seed), path)
    model = read_file(path, path.stem, path.stem)
    stamps = Fingerprints().stamps(path.parent, {path.name: path})
    return msgspec.structs.replace(
        model, kind=ModelKind.IMAGE_PROMPT_ADAPTER, folder=str(path.parent), files=stamps, sha256=hash_of(stamps)
    )


def picture(seed: int, edge: int = EDGE_PX) -> Tensor:
    """(edge, edge, 3) uint8."""
    return torch.randint(0, 256, (edge, edge, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def image_prompt(adapter: Model, encoder: Model, count: int = 1, **changes: Any) -> ResolvedImagePrompt:
    """The image prompt as a request's resolution names it."""
    plain = ResolvedImagePrompt(
        model_id=adapter.id,
        model_sha256=adapter.sha256,
        encoder_model_id=encoder.id,
        encoder_sha256=encoder.sha256,
        edge_px=EDGE_PX,
        images=(UsedPicture(blob_id="b-3", sha256="0" * 64),) * count,
    )
    return msgspec.structs.replace(plain, **changes)


def given(
    adapter: Model,
    encoder: Model,
    pictures: Sequence[Tensor],
    folder: Path,
    region: Tensor | None = None,
    negative: Tensor | None = None,
) -> GivenImagePrompt:
    """What a worker gets for it."""

    def kept(pixels: Tensor | None) -> Any:
        return None if pixels is None else stored(pixels, folder, f"p{hash(pixels.numpy().tobytes())}")

    return GivenImagePrompt(
        model=adapter,
        encoder=encoder,
        images=tuple(kept(one) for one in pictures),
        region=kept(region),
        negative_image=kept(negative),
    )
