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


SIGLIP = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 2,
    "patch_size": 14,
}
"""google/siglip-so400m-patch14-384 with two layers, as its config.json has it."""


def siglip(folder: Path, start: str, config: dict[str, Any] | None = None, **more: tuple[int, ...]) -> Model:
    shapes = {
        "embeddings.patch_embedding.weight": (1152, 3, 14, 14),
        "embeddings.patch_embedding.bias": (1152,),
        "embeddings.position_embedding.weight": (729, 1152),
        **{f"encoder.layers.{layer}.layer_norm1.weight": (1152,) for layer in range(2)},
        "encoder.layers.0.mlp.fc1.weight": (4304, 1152),
        "post_layernorm.weight": (1152,),
        "head.probe": (1, 1, 1152),
    }
    folder.mkdir()
    write_header(folder / "model.safetensors", {**{f"{start}{name}": one for name, one in shapes.items()}, **more})
    if config is None:
        return read_file(folder / "model.safetensors", folder.name, folder.name)
    (folder / "config.json").write_text(json.dumps(config))
    return read_component_folder(folder, folder.name, lambda path: path)


def test_a_siglip_is_told_with_the_config_of_its_vision_encoder(tmp_path: Path) -> None:
    both = {"model_type": "siglip", "text_config": {"hidden_size": 1152}, "vision_config": SIGLIP}
    found = (
        siglip(tmp_path / "vision", "", SIGLIP),
        siglip(tmp_path / "whole", "vision_model.", both, **{"text_model.head.weight": (1152, 1152)}),
        siglip(tmp_path / "alone", "vision_model."),
    )
    for model in found:
        assert (model.kind, model.state) == (ModelKind.IMAGE_ENCODER, ModelState.AVAILABLE), model.id
        assert encoder_config(model) == SIGLIP, model.id
        # What is loaded of it: neither the head nor the text encoder.
        assert model.components[0].parameter_count == 1152 * (3 * 14 * 14 + 1 + 729 + 2 + 4304 + 1), model.id


def test_an_adapter_of_sd3_reads_with_a_siglip_and_no_clip_stands_for_it(tmp_path: Path) -> None:
    own = {"time_embedding__linear_1__weight": (1280, 320), "latents": (1, 64, 1280)}
    reads = adapter(tmp_path / "sd3.safetensors", proj_in__weight=(1280, 1152), **own)
    clip = encoder_folder(tmp_path / "clip", hidden_size=1152)
    need = Need(width=1152, patches=True, siglip=True)
    assert encoder_for(reads, [clip], lambda model: model) == need
    assert need.told == "a SigLIP image encoder with hidden states of 1152 values"
    right = siglip(tmp_path / "siglip", "vision_model.")
    fits = Encoder(model=right, edge_px=384, cut=False)
    assert encoder_for(reads, [clip, right], lambda model: model) == fits
    plus = adapter(tmp_path / "plus.safetensors", proj_in__weight=(768, 1152))
    assert encoder_for(plus, [right], lambda model: model) == Need(width=1152, patches=True)


def test_a_whole_clip_gives_its_vision_encoder_to_an_adapter_of_flux(tmp_path: Path) -> None:
    vision = {**VIT_H, "hidden_size": 1280, "model_type": "clip_vision_model"}
    folder = tmp_path / "clip"
    folder.mkdir()
    text = {"text_projection.weight": (1024, 1024), "text_model.final_layer_norm.weight": (1024,), "logit_scale": ()}
    write_header(folder / "model.safetensors", {**published.header("clip_vision_h"), **text})
    config = {"model_type": "clip", "projection_dim": 1024, "vision_config": vision}
    (folder / "config.json").write_text(json.dumps(config))
    whole = read_component_folder(folder, "clip", lambda path: path)
    assert (whole.kind, whole.state) == (ModelKind.IMAGE_ENCODER, ModelState.AVAILABLE)
    assert whole.size_bytes == encoder_file(tmp_path / "vision.safetensors").size_bytes
    write_header(tmp_path / "flux.safetensors", {"ip_adapter_proj_model.proj.weight": (16384, 1024)})
    reads = read_file(tmp_path / "flux.safetensors", "flux", "flux")
    assert encoder_for(reads, [whole], lambda model: model) == Encoder(model=whole, edge_px=224)


def test_the_encoder_that_fits_and_lies_nearest_is_taken(tmp_path: Path) -> None:
    near, far = encoder_folder(tmp_path / "ip" / "image_encoder"), encoder_file(tmp_path / "a" / "far.safetensors")
    other = encoder_folder(tmp_path / "ip" / "models" / "other", projection_dim=7)
    plain = adapter(tmp_path / "ip" / "models" / "plain.safetensors", proj__weight=(3072, 1024))
    assert encoder_for(plain, [far, other, near], lambda model: model) == Encoder(model=near, edge_px=224)
    assert encoder_for(plain, [far, other], lambda model: model) == Encoder(model=far, edge_px=224)
    assert encoder_for(plain, [other], lambda model: model) == Need(width=1024, patches=False)
