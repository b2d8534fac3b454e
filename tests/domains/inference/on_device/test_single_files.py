"""Checkpoints in one file make the pictures of the same components in a diffusers folder, to the bit."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains.inference.given import Given
from domains.inference.outcome import RunFinished
from domains.model.conversion import ConversionOrder
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelLayout, ModelState
from domains.model.on_device import load
from domains.model.on_device.convert_child import convert
from domains.model.weights_model import read_file
from tests.domains.inference.on_device import tiny_families as tiny
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.single_files import contents, give_configs, ldm_vae, stored, write_single
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

ATTENTION_FIRST: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_TEXT, _POOLED = 4096, 2048
"""Widths by which SD3 and FLUX.1 are known."""
_PROJECTION = "text_projection.weight"

_SD3: tiny.Parts = {
    **tiny.TINY["sd3"][1],
    # In the file without its projection, which is then the identity.
    "text_encoder": ("CLIPTextModelWithProjection", tiny.clip_projected(16)),
    "text_encoder_2": ("CLIPTextModelWithProjection", tiny.clip_projected(16, _POOLED - 16)),
    "text_encoder_3": ("T5EncoderModel", tiny.t5(_TEXT, 8)),
    "transformer": ("SD3Transformer2DModel", tiny.sd3(_TEXT, _POOLED)),
}
_FLUX: tiny.Parts = {
    **tiny.TINY["flux1"][1],
    "text_encoder": ("CLIPTextModel", tiny.clip(768)),
    "text_encoder_2": ("T5EncoderModel", tiny.t5(_TEXT, 8)),
    "transformer": ("FluxTransformer2DModel", tiny.flux(guidance=True, text=_TEXT, pooled=768)),
}


def _with_identity(folder: Path) -> Model:
    """SD3 whose first projection is the identity, which its authors' file leaves out."""
    tiny.write_parts("StableDiffusion3Pipeline", _SD3, folder)
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    tensors[_PROJECTION] = torch.eye(*tensors[_PROJECTION].shape)
    save_file(tensors, path)
    return tiny_model(folder)


SINGLE: Mapping[str, Callable[[Path], Model]] = {
    "sd1": write_tiny_model,
    "sd2": lambda folder: tiny.write_parts(
        "StableDiffusionPipeline",
        {
            **tiny.TINY["sd2"][1],
            "unet": (
                "UNet2DConditionModel",
                tiny.unet(**ATTENTION_FIRST, cross_attention_dim=32, attention_head_dim=(2, 4)),
            ),
        },
        folder,
    ),
    "sdxl": lambda folder: tiny.write_tiny_family("sdxl", folder),
    "sd3": _with_identity,
    "flux1": lambda folder: tiny.write_parts("FluxPipeline", _FLUX, folder),
}
"""A tiny model of each family that is published in one file, with what its authors' names are known by."""


@pytest.fixture(scope="module", params=list(SINGLE))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    model = SINGLE[request.param](tmp_path_factory.mktemp("single") / request.param)
    assert (model.family, model.problem) == (request.param, "")
    return model


def single(place: Path, model: Model, change: Callable[[Tensor], Tensor] = lambda one: one) -> Model:
    """The same model as one file."""
    tensors = contents(model.family, Path(model.folder))
    tensors.pop(f"text_encoders.clip_l.transformer.{_PROJECTION}", None)
    file = write_single(place / "one.safetensors", {name: change(one) for name, one in tensors.items()})
    give_configs(file, Path(model.folder))
    return read_file(file, "one", "one")


def picture(model: Model) -> bytes:
    """The pixels of a short job."""
    recorder = Recorder(model)
    try:
        asked = request(model, width_px=48, height_px=32, sampler=model.default_sampler, steps=2)
        recorder.loop.submit("a", Given(recorder.loaded.model, asked))
        recorder.run()
        assert isinstance(recorder.last("a"), RunFinished), recorder.last("a")
        (file,) = recorder.files("a")
        pixels = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        assert pixels.std() > 1, "a flat picture shows nothing"
        return pixels.tobytes()
    finally:
        recorder.loop.close()


def aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy all weights: a library's sums differ in their last bit where a mapped file aligns a tensor otherwise."""

    def nothing(file: object) -> None: ...

    monkeypatch.setattr("domains.model.on_device.weights.mapped", nothing)


def test_a_single_file_makes_the_picture_of_its_folder(
    folder: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned(monkeypatch)
    one = single(tmp_path, folder)
    assert (one.family, one.state, one.problem) == (folder.family, ModelState.AVAILABLE, "")
    assert one.layout is ModelLayout.FILE
    assert {part.id for part in one.components} == {part.id for part in folder.components}
    assert picture(one) == picture(folder)


def test_a_single_file_becomes_the_folder_that_it_was_made_of(folder: Model, tmp_path: Path) -> None:
    one = single(tmp_path, folder)
    place = tmp_path / "folder"
    order = ConversionOrder(model=one, layout=ModelLayout.DIFFUSERS, part=str(place))
    written = convert(order, lambda done, total: None)
    made = tiny_model(place)
    assert (made.family, made.state, made.problem) == (folder.family, ModelState.AVAILABLE, "")
    assert {part.id for part in made.components} == {part.id for part in folder.components}
    assert written.written_bytes == sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    assert (written.converted, written.max_absolute_error) == (0, None)
    theirs = getattr(diffusers, json.loads((place / "model_index.json").read_text())["_class_name"])
    before, after = theirs.from_pretrained(folder.folder), theirs.from_pretrained(place)
    for part in (part.id for part in folder.components if part.parameter_count):
        values = getattr(after, part).state_dict()
        assert all(torch.equal(values[name], value) for name, value in getattr(before, part).state_dict().items()), part
    text = stored(place, "text_encoder")
    assert all(name.startswith(("text_model.", "text_projection.")) for name in text), "as published files name them"


def test_the_weights_of_a_single_file_are_those_of_its_folder(folder: Model, tmp_path: Path) -> None:
    ours, theirs = load(single(tmp_path, folder), "cpu"), load(folder, "cpu")
    assert ours.modules.keys() == theirs.modules.keys()
    for part, module in theirs.modules.items():
        found = ours.modules[part].state_dict()
        for name, value in module.state_dict().items():
            assert torch.equal(found[name], value), f"{part} {name}"


def with_positions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}


def with_averages(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = "model.diffusion_model."
    averaged = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": torch.zeros_like(value)
        for name, value in tensors.items()
        if name.startswith(start)
    }
    return {**tensors, **averaged, "model_ema.decay": torch.tensor(0.9999)}


def in_double(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in tensors.items()}


@pytest.mark.parametrize("change", [with_positions, with_averages, in_double])
def test_an_odd_file_loads_as_its_plain_twin(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    folder = write_tiny_model(tmp_path / "sd1")
    plain = single(tmp_path / "plain", folder)
    odd = write_single(tmp_path / "odd" / "one.safetensors", change(contents("sd1", Path(folder.folder))))
    give_configs(odd, Path(folder.folder))
    ours, theirs = load(read_file(odd, "one", "one"), "cpu"), load(plain, "cpu")
    for part, module in theirs.modules.items():
        found = ours.modules[part].state_dict()
        assert all(torch.equal(found[name], value) for name, value in module.state_dict().items()), part


def test_a_half_precision_file_has_the_rounded_weights(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "sd1")
    half, whole = load(single(tmp_path, folder, Tensor.half), "cpu"), load(folder, "cpu")
    found = half.modules["unet"].state_dict()
    assert all(
        torch.equal(found[name], value.half().float()) for name, value in whole.modules["unet"].state_dict().items()
    )


def test_a_bare_vae_is_a_vae_and_no_checkpoint(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "sd1")
    bare = read_file(write_single(tmp_path / "vae.safetensors", ldm_vae(Path(folder.folder))), "vae", "vae")
    assert (bare.kind, bare.state) == (ModelKind.VAE, ModelState.INCOMPATIBLE)
