"""Which image encoder an IP-Adapter reads its pictures with."""

import json
from pathlib import Path
from typing import Any

import pytest

from domains.errors import FailedPrecondition
from domains.model.image_encoders import Encoder, Need, encoder_config, encoder_for, need_of
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState
from domains.model.weights_model import read_component_folder, read_file
from tests.domains.model import published
from tests.domains.model.headers import write_header

VIT_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1024,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "hidden_act": "gelu",
}
"""laion/CLIP-ViT-H-14-laion2B-s32B-b79K, as its config.json has it."""


def encoder_file(path: Path) -> Model:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_header(path, published.header("clip_vision_h"))
    return read_file(path, path.stem, str(path.parent.name) + "-" + path.stem)


def encoder_folder(folder: Path, **config: Any) -> Model:
    folder.mkdir(parents=True)
    write_header(folder / "model.safetensors", published.header("clip_vision_h"))
    (folder / "config.json").write_text(json.dumps({**VIT_H, **config}))
    return read_component_folder(folder, folder.name, lambda path: path)


def adapter(path: Path, **tensors: tuple[int, ...]) -> Model:
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {"ip_adapter.1.to_k_ip.weight": (320, 768), "image_proj.norm.weight": (768,)}
    write_header(path, {**shapes, **{f"image_proj.{name.replace('__', '.')}": one for name, one in tensors.items()}})
    return read_file(path, path.stem, path.stem)


def test_a_published_encoder_in_one_file_has_the_config_of_its_folder(tmp_path: Path) -> None:
    model = encoder_file(tmp_path / "clip_vision_h.safetensors")
    assert (model.kind, model.state) == (ModelKind.IMAGE_ENCODER, ModelState.AVAILABLE)
    assert encoder_config(model) == VIT_H


def test_an_encoder_of_no_published_size_needs_its_config(tmp_path: Path) -> None:
    shapes = {
        name: tuple(64 if size == 1280 else size for size in one)
        for name, one in published.header("clip_vision_h").items()
    }
    write_header(tmp_path / "small.safetensors", shapes)
    with pytest.raises(FailedPrecondition, match=r"has no config\.json"):
        encoder_config(read_file(tmp_path / "small.safetensors", "small", "small"))


def test_an_adapter_says_what_it_reads(tmp_path: Path) -> None:
    plain = adapter(tmp_path / "plain.safetensors", proj__weight=(3072, 1024))
    plus = adapter(tmp_path / "plus.safetensors", latents=(1, 16, 768), proj_in__weight=(768, 1280))
    assert need_of(plain) == Need(width=1024, patches=False)
    assert need_of(plus) == Need(width=1280, patches=True)


def test_the_encoder_that_fits_and_lies_nearest_is_taken(tmp_path: Path) -> None:
    near, far = encoder_folder(tmp_path / "ip" / "image_encoder"), encoder_file(tmp_path / "a" / "far.safetensors")
    other = encoder_folder(tmp_path / "ip" / "models" / "other", projection_dim=7)
    plain = adapter(tmp_path / "ip" / "models" / "plain.safetensors", proj__weight=(3072, 1024))
    assert encoder_for(plain, [far, other, near], lambda model: model) == Encoder(model=near, edge_px=224)
    assert encoder_for(plain, [far, other], lambda model: model) == Encoder(model=far, edge_px=224)
    assert encoder_for(plain, [other], lambda model: model) == Need(width=1024, patches=False)
