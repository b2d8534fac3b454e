"""Checkpoints in one file, written from diffusers folders: each component under the names of its authors.

The names are those of `tests.domains.model.published.make`, which inverts diffusers' conversions; values are joined and
turned here as the authors store them.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains.model.single_file import beside
from tests.domains.model.published import make

Tensors = dict[str, Tensor]
_QKV = {"to_q": ("to_q", "to_k", "to_v"), "add_q_proj": ("add_q_proj", "add_k_proj", "add_v_proj")}


def stored(folder: Path, component: str) -> Tensors:
    """The tensors of a component in its folder."""
    found: Tensors = {}
    for path in sorted((folder / component).glob("*.safetensors")):
        found |= load_file(path)
    return found


def config(folder: Path, component: str) -> dict[str, object]:
    """The config of a component in its folder."""
    return json.loads((folder / component / "config.json").read_text())


def _shapes(of: Tensors) -> make.Shapes:
    return {name: tuple(tensor.shape) for name, tensor in of.items()}


def ldm_unet(folder: Path) -> Tensors:
    """A U-Net as latent-diffusion names it."""
    of = stored(folder, "unet")
    levels = len(config(folder, "unet")["block_out_channels"])  # pyright: ignore[reportArgumentType]
    layers = int(str(config(folder, "unet")["layers_per_block"]))
    return dict(zip(make.ldm_unet(_shapes(of), levels, layers), of.values(), strict=True))


def ldm_vae(folder: Path) -> Tensors:
    """A VAE as latent-diffusion names it, with its attention as convolutions."""
    of = stored(folder, "vae")
    levels = len(config(folder, "vae")["block_out_channels"])  # pyright: ignore[reportArgumentType]
    named = make.ldm_vae(_shapes(of), levels)
    return {new: value.reshape(named[new]) for new, value in zip(named, of.values(), strict=True)}


def open_clip(folder: Path, component: str) -> Tensors:
    """A CLIP text encoder as OpenCLIP names it: queries, keys and values joined, the projection turned."""
    of = {_outer(name): value for name, value in stored(folder, component).items()}
    kept = {name: value for name, value in of.items() if not re.search(r"self_attn\.[kv]_proj", name)}
    made: Tensors = {}
    for new, (name, value) in zip(make.open_clip(_shapes(of)), kept.items(), strict=True):
        beside_it = [of[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"] if "q_proj" in name else [value]
        made[new] = value.T if new == "text_projection" else torch.cat(beside_it)
    return made


def clip(folder: Path, component: str) -> Tensors:
    """A CLIP text encoder as transformers 4 names it."""
    return {_outer(name): value for name, value in stored(folder, component).items()}


def _outer(name: str) -> str:
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def sd3(folder: Path) -> Tensors:
    """SD3's transformer as its authors name it."""
    return _joined(stored(folder, "transformer"), make.sd3_original, last="norm1_context")


def flux(folder: Path) -> Tensors:
    """FLUX.1's transformer as its authors name it."""
    return _joined(stored(folder, "transformer"), make.flux_original)


def _joined(of: Tensors, names: Callable[[make.Shapes], make.Shapes], last: str = "") -> Tensors:
    """The tensors with queries, keys and values joined, and shift before scale where their authors have it so.

    `last`: the norm of the last block that is stored so too.
    """
    dropped = r"attn2?\.(to_[kv]|add_[kv]_proj)\.|single_transformer_blocks\.\d+\.proj_mlp"
    kept = [name for name in of if not re.search(dropped, name)]
    blocks = max(int(found[1]) for name in of if (found := re.match(r"transformer_blocks\.(\d+)\.", name)))
    swapped = ("norm_out.linear.", f"transformer_blocks.{blocks}.{last}.linear." if last else "norm_out.linear.")
    made: Tensors = {}
    for new, name in zip(names(_shapes(of)), kept, strict=True):
        value = torch.cat(_beside(of, name))
        made[new] = torch.cat(value.chunk(2)[::-1]) if name.startswith(swapped) else value
    return made


def _beside(of: Tensors, name: str) -> list[Tensor]:
    found = re.search(r"\.(to_q|add_q_proj)\.", name)
    if found is None:
        return [of[name]]
    mlp = name.replace("attn.to_q", "proj_mlp")
    parts = [of[name.replace(found[1], one)] for one in _QKV[found[1]]]
    return [*parts, of[mlp]] if mlp in of and mlp != name else parts


def t5(folder: Path, component: str) -> Tensors:
    """T5's encoder, whose embedding has two names and is stored once."""
    return {name: value for name, value in stored(folder, component).items() if "embed_tokens" not in name}


def contents(family: str, folder: Path) -> Tensors:
    """All tensors of the single file of a model in a folder."""
    parts: Mapping[str, Mapping[str, Callable[[], Tensors]]] = {
        "sd1": {
            "model.diffusion_model.": lambda: ldm_unet(folder),
            "first_stage_model.": lambda: ldm_vae(folder),
            "cond_stage_model.transformer.": lambda: clip(folder, "text_encoder"),
        },
        "sd2": {
            "model.diffusion_model.": lambda: ldm_unet(folder),
            "first_stage_model.": lambda: ldm_vae(folder),
            "cond_stage_model.model.": lambda: open_clip(folder, "text_encoder"),
        },
        "sdxl": {
            "model.diffusion_model.": lambda: ldm_unet(folder),
            "first_stage_model.": lambda: ldm_vae(folder),
            "conditioner.embedders.0.transformer.": lambda: clip(folder, "text_encoder"),
            "conditioner.embedders.1.model.": lambda: open_clip(folder, "text_encoder_2"),
        },
        "sd3": {
            "model.diffusion_model.": lambda: sd3(folder),
            "first_stage_model.": lambda: ldm_vae(folder),
            "text_encoders.clip_l.transformer.": lambda: clip(folder, "text_encoder"),
            "text_encoders.clip_g.transformer.": lambda: clip(folder, "text_encoder_2"),
            "text_encoders.t5xxl.transformer.": lambda: t5(folder, "text_encoder_3"),
        },
        "flux1": {
            "model.diffusion_model.": lambda: flux(folder),
            "vae.": lambda: ldm_vae(folder),
            "text_encoders.clip_l.transformer.": lambda: clip(folder, "text_encoder"),
            "text_encoders.t5xxl.transformer.": lambda: t5(folder, "text_encoder_2"),
        },
    }
    return {start + name: value for start, part in parts[family].items() for name, value in part().items()}


def write_single(file: Path, tensors: Tensors) -> Path:
    """Write a checkpoint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, file)
    return file


def give_configs(file: Path, folder: Path) -> None:
    """Put the configs and tokenizers of a folder beside a checkpoint."""
    for path in folder.glob("*/*"):
        if path.suffix != ".safetensors":
            place = beside(file) / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
