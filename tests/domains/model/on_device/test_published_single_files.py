"""Single files as they are published find all their tensors with the shipped configs. Headers only: no weight is read."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from domains.errors import ErrorReason
from domains.model.families.sign import Tensors
from domains.model.model import Model, ModelState
from domains.model.on_device import load
from domains.model.on_device.components import BUILDERS, build
from domains.model.on_device.single_file import finder
from domains.model.on_device.tokenizer import fit, tokenizer, tokenizer_of
from domains.model.on_device.weights import plan
from domains.model.on_device.widths import check_widths
from domains.model.single_file import beside
from domains.model.weight_file import WeightFile
from domains.model.weights_model import read_file
from tests.domains.inference.on_device.tiny_families import t5_tokenizer
from tests.domains.model import published
from tests.domains.model.headers import write_header


def flux(name: str) -> Tensors:
    """A checkpoint of FLUX.1 as ComfyUI writes it."""
    parts = {
        "model.diffusion_model.": f"flux1_{name}_original",
        "text_encoders.clip_l.transformer.": "clip_l_text_encoder",
        "text_encoders.t5xxl.transformer.": "t5_xxl_text_encoder",
        "vae.": "flux1_ldm_vae",
    }
    return {start + key: shape for start, part in parts.items() for key, shape in published.header(part).items()}


def sd35(size: str) -> Tensors:
    """The same of SD3.5, without T5."""
    rest = {
        name: shape
        for name, shape in published.header("sd3_single").items()
        if not name.startswith("model.diffusion_model.")
    }
    denoiser = published.header(f"sd35_{size}_original")
    return {**denoiser, **rest} if "model." in next(iter(denoiser)) else {**_under(denoiser), **rest}


def _under(tensors: Tensors) -> Tensors:
    return {f"model.diffusion_model.{name}": shape for name, shape in tensors.items()}


FILES: Mapping[str, Tensors] = {
    **{name: published.header(name) for name in ("sd1_single", "sd1_single_ema", "sd2_single", "sdxl_single")},
    "sd3_single": published.header("sd3_single"),
    "sd35_medium": sd35("medium"),
    "sd35_large": sd35("large"),
    "flux1_dev": flux("dev"),
    "flux1_schnell": flux("schnell"),
}


def written(folder: Path, name: str, *, words: bool = True) -> Model:
    """The model in a file with this header; `words`: give the tokenizer of T5 too, which is not shipped."""
    file = write_header(folder / f"{name}.safetensors", FILES[name])
    if words and name.startswith("flux1"):
        place = beside(file) / "tokenizer_2"
        place.mkdir(parents=True)
        t5_tokenizer(place).save_pretrained(place)
    return read_file(file, name, name)


@pytest.mark.parametrize("name", list(FILES))
def test_every_tensor_of_a_published_file_has_its_place(tmp_path: Path, name: str) -> None:
    model = written(tmp_path, name)
    assert (model.state, model.problem) == (ModelState.AVAILABLE, "")
    ids = {component.id for component in model.components}
    modules: dict[str, torch.nn.Module] = {}
    with WeightFile(model, f"{name}.safetensors") as file:
        for part, builder in BUILDERS[model.family].items():
            if part in ids:
                modules[part] = build(model, part, builder, len(file.tensors))
                slots = plan(
                    modules[part],
                    part,
                    [file],
                    torch.float16,
                    torch.channels_last,
                    finder(model.family, part, modules[part]),
                )
                assert len(slots) >= len(modules[part].state_dict()) - 1
    check_widths(model.family, modules)


@pytest.mark.parametrize("name", ["sd1_single", "sd2_single", "sdxl_single", "sd3_single"])
def test_the_shipped_tokenizers_fit_their_text_encoders(tmp_path: Path, name: str) -> None:
    model = written(tmp_path, name)
    for part in (component.id for component in model.components if component.id.startswith("text_encoder")):
        encoder = build(model, part, BUILDERS[model.family][part], 1000)
        words = tokenizer(model, tokenizer_of(part))
        fit(words, tokenizer_of(part), encoder, 77)
        # Ids as OpenAI's CLIP gives them (`clip.tokenize`).
        assert words("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_a_tokenizer_that_is_not_shipped_is_asked_for(tmp_path: Path) -> None:
    model = written(tmp_path, "flux1_dev", words=False)
    assert (model.state, model.reason) == (ModelState.INCOMPATIBLE, ErrorReason.COMPONENT_MISSING)
    assert "give the tokenizer" in model.problem
    assert "flux1_dev.components/tokenizer_2/" in model.problem


def test_a_text_encoder_with_words_of_its_own_needs_its_own_tokenizer(tmp_path: Path) -> None:
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    file = write_header(tmp_path / "a.safetensors", {**FILES["sd1_single"], name: (50_000, 768)})
    model = read_file(file, "a", "a")
    assert (model.reason, "lacks tokenizer" in model.problem) == (ErrorReason.COMPONENT_MISSING, True)


def test_without_a_text_encoder_the_component_is_named(tmp_path: Path) -> None:
    tensors = {name: shape for name, shape in FILES["sd1_single"].items() if not name.startswith("cond_stage_model.")}
    model = read_file(write_header(tmp_path / "a.safetensors", tensors), "a", "a")
    assert (model.reason, "lacks text_encoder" in model.problem) == (ErrorReason.COMPONENT_MISSING, True)


def test_a_scheduler_beside_the_file_counts_instead_of_the_shipped_one(tmp_path: Path) -> None:
    file = write_header(tmp_path / "a.safetensors", FILES["sd1_single"])
    assert read_file(file, "a", "a").prediction_type == "epsilon"
    place = beside(file) / "scheduler" / "scheduler_config.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction"}))
    model = read_file(file, "a", "a")
    assert (model.prediction_type, model.default_sampler) == ("v_prediction", "euler")


def test_a_marker_of_v_prediction_in_the_file_counts(tmp_path: Path) -> None:
    file = write_header(tmp_path / "a.safetensors", {**FILES["sdxl_single"], "v_pred": ()})
    assert read_file(file, "a", "a").prediction_type == "v_prediction"


def test_a_link_beside_the_file_is_not_followed(tmp_path: Path) -> None:
    file = write_header(tmp_path / "a.safetensors", FILES["sd1_single"])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "scheduler_config.json").write_text('{"_class_name": "EulerDiscreteScheduler"}')
    beside(file).mkdir()
    (beside(file) / "scheduler").symlink_to(outside)
    assert read_file(file, "a", "a").default_sampler == "pndm"


def test_a_file_that_has_changed_since_its_scan_is_refused(tmp_path: Path) -> None:
    model = written(tmp_path, "sd1_single")
    write_header(tmp_path / "sd1_single.safetensors", FILES["sd1_single"], "F32")
    with pytest.raises(Exception, match="scan again"):
        load(model, "cpu")
