"""What a model folder is told to be, whole or spoilt."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domains.errors import PermissionDenied
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model, ModelState
from domains.model.roots import Roots
from tests.domains.model.folders import (
    INDEX,
    SCHEDULER,
    UNET,
    UNET_TENSORS,
    copy_of_embedded,
    write_json,
    write_model,
    write_weights,
)

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def read(folder: Path) -> Model:
    return read_folder(folder.resolve(), "it", Roots([folder.parent]).inside, Fingerprints())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "roots" / "model")


def test_the_demo_model_is_told_right(tmp_path: Path) -> None:
    model = read(copy_of_embedded(tmp_path / "roots" / "emoji-sd"))
    assert (model.state, model.problem) == (ModelState.AVAILABLE, "")
    assert model.family == "sd1"
    assert (model.native_width_px, model.native_height_px) == (256, 256)
    assert model.prediction_type == "v_prediction"
    assert (model.default_sampler, model.default_sigma_schedule) == ("dpmpp_2m", "normal")
    assert 1022 <= len(model.known_prompts) <= 4000
    parameters = {part.id: part.parameter_count for part in model.components}
    assert 8.9e6 < parameters["unet"] < 9.1e6
    assert parameters["tokenizer"] == 0
    assert {part.precision for part in model.components} == {"float16", ""}
    assert model.size_bytes == sum(part.size_bytes for part in model.components) > 26e6


def test_a_plain_folder_has_the_defaults_of_its_family(folder: Path) -> None:
    model = read(folder)
    assert (model.state, model.family, model.native_width_px) == (ModelState.AVAILABLE, "sd1", 512)
    assert (model.prediction_type, model.default_sampler) == ("epsilon", "euler")


def test_a_scheduler_unlike_ours_gives_no_default_sampler(folder: Path) -> None:
    write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": "PNDMScheduler"})
    assert (read(folder).state, read(folder).default_sampler) == (ModelState.AVAILABLE, "")


def _sdxl(folder: Path) -> None:
    write_json(folder / "unet" / "config.json", {**UNET, "addition_embed_type": "text_time"})
    write_weights(folder / WEIGHTS, (*UNET_TENSORS, "add_embedding.linear_1.weight"))


def _inpainting(folder: Path) -> None:
    write_json(folder / "unet" / "config.json", {**UNET, "in_channels": 9})


def _sd2(folder: Path) -> None:
    write_json(folder / "unet" / "config.json", {**UNET, "use_linear_projection": True})


def _empty_unet(folder: Path) -> None:
    write_weights(folder / WEIGHTS, ("something.else",))


def _without_vae(folder: Path) -> None:
    write_json(folder / "model_index.json", {name: entry for name, entry in INDEX.items() if name != "vae"})


def _odd_prediction(folder: Path) -> None:
    write_json(folder / "scheduler" / "scheduler_config.json", {**SCHEDULER, "prediction_type": "x" * 10_000})


def _only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def _no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _no_component(folder: Path) -> None:
    (folder / "vae").rename(folder / "vea")


def _nothing_in_the_index(folder: Path) -> None:
    write_json(folder / "model_index.json", {})


INCOMPATIBLE: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (_sdxl, ("sd1", "addition_embed_type='text_time'", "add_embedding.")),
    (_inpainting, ("in_channels=9",)),
    (_sd2, ("use_linear_projection=True",)),
    (_empty_unet, ("no tensor conv_in.weight",)),
    (_without_vae, ("component vae is missing",)),
    (_odd_prediction, ("prediction_type", "v_prediction")),
    (_only_pickle, ("unet", "pickle", "safetensors")),
    (_no_weights, ("unet", "no safetensors file")),
    (_no_component, ("vae",)),
    (_nothing_in_the_index, ("component unet is missing",)),
]


@pytest.mark.parametrize(("spoil", "evidence"), INCOMPATIBLE, ids=[spoil.__name__ for spoil, _ in INCOMPATIBLE])
def test_an_unusable_model_says_why(folder: Path, spoil: Callable[[Path], None], evidence: tuple[str, ...]) -> None:
    spoil(folder)
    model = read(folder)
    assert model.state is ModelState.INCOMPATIBLE
    assert all(word in model.problem for word in evidence), model.problem
    assert len(model.problem) < 1000


def _overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    def overwrite(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return overwrite


def _truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)


def _whole_numbers(folder: Path) -> None:
    write_weights(folder / WEIGHTS, UNET_TENSORS, dtype="int32")


def _pipe(folder: Path) -> None:
    (folder / "unet" / "config.json").unlink()
    os.mkfifo(folder / "unet" / "config.json")


def _index_is_a_folder(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    (folder / "model_index.json").mkdir()


CORRUPT: list[tuple[str, Callable[[Path], None], str]] = [
    ("header of 8 GB", _overwrite(WEIGHTS, (8 * 10**9).to_bytes(8, "little") + b"{}"), "8000000000"),
    ("empty weights", _overwrite(WEIGHTS, b""), "0 bytes"),
    ("truncated weights", _truncate, "cut off"),
    ("weights of whole numbers", _whole_numbers, "dtype I32"),
    ("index no JSON", _overwrite("model_index.json", b"{"), "model_index.json"),
    ("index a list", _overwrite("model_index.json", b"[]"), "no JSON object"),
    ("index of 2 MB", _overwrite("model_index.json", b" " * 2_000_000), "larger than"),
    ("index a folder", _index_is_a_folder, "model_index.json"),
    ("nesting", _overwrite("unet/config.json", b'{"a":' + b"[" * 100_000), "unet/config.json"),
    ("config a pipe", _pipe, "unet/config.json"),
    ("config missing", lambda folder: (folder / "vae" / "config.json").unlink(), "vae/config.json is missing"),
]


@pytest.mark.parametrize(("spoil", "says"), [one[1:] for one in CORRUPT], ids=[one[0] for one in CORRUPT])
def test_a_damaged_model_is_corrupt_and_names_the_file(folder: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(folder)
    model = read(folder)
    assert model.state is ModelState.CORRUPT
    assert says in model.problem
    assert model.sha256 == ""


@pytest.mark.parametrize(
    "config",
    [{"sample_size": -1}, {"sample_size": 10**30}, {"sample_size": "64"}, {"sample_size": [64, 64]}, {}],
)
def test_an_unbelievable_size_is_not_told(folder: Path, config: dict[str, Any]) -> None:
    shape = {name: value for name, value in UNET.items() if name != "sample_size"}
    write_json(folder / "unet" / "config.json", {**shape, **config})
    assert (read(folder).state, read(folder).native_width_px) == (ModelState.AVAILABLE, 0)


def test_a_missing_safety_checker_is_no_reason_to_refuse(folder: Path) -> None:
    write_json(folder / "model_index.json", {**INDEX, "safety_checker": ["a", "B"], "feature_extractor": ["a", "B"]})
    model = read(folder)
    assert model.state is ModelState.AVAILABLE
    assert "safety_checker" not in {part.id for part in model.components}


def test_names_in_the_index_are_no_paths(folder: Path) -> None:
    write_json(folder / "model_index.json", {**INDEX, "../../etc": ["a", "B"], "/etc": ["a", "B"]})
    assert read(folder).state is ModelState.AVAILABLE


def test_a_second_precision_of_the_same_weights_is_left_out(folder: Path) -> None:
    whole = read(folder)
    write_weights(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors", UNET_TENSORS, dtype="float32")
    assert read(folder) == whole


def test_shards_are_all_taken(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    write_weights(folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors", UNET_TENSORS[:2])
    write_weights(folder / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors", UNET_TENSORS[2:])
    model = read(folder)
    assert model.state is ModelState.AVAILABLE
    assert next(part.parameter_count for part in model.components if part.id == "unet") == 6 * len(UNET_TENSORS)


def test_a_download_cache_of_symlinks_is_a_model_with_its_own_name(tmp_path: Path) -> None:
    cache = tmp_path / "models--someone--tiny-sd"
    whole = write_model(tmp_path / "plain")
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123abc"
    for number, file in enumerate(sorted(file for file in whole.rglob("*") if file.is_file())):
        blob = cache / "blobs" / str(number)
        file.rename(blob)
        link = snapshot / file.relative_to(whole)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    model = read_folder(snapshot.resolve(), "it", Roots([tmp_path]).inside, Fingerprints())
    assert (model.state, model.problem, model.display_name) == (ModelState.AVAILABLE, "", "tiny-sd")
    assert any(file == WEIGHTS for part in model.components for file in part.files)


@pytest.mark.parametrize("name", [WEIGHTS, "unet/config.json", "model_index.json", "unet"])
def test_a_symlink_out_of_the_roots_is_refused(folder: Path, name: str) -> None:
    outside = folder.parent.parent / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(PermissionDenied, match="outside"):
        read(folder)


def test_a_list_of_names_beyond_the_limit_is_cut_and_one_too_large_is_left_out(folder: Path) -> None:
    (folder / "known_prompts.txt").write_text("\n".join(f" name {n} \n" for n in range(5000)))
    assert len(read(folder).known_prompts) == 4000
    assert read(folder).known_prompts[0] == "name 0"
    (folder / "known_prompts.txt").write_text("x" * 2_000_000)
    assert (read(folder).state, read(folder).known_prompts) == (ModelState.AVAILABLE, ())
