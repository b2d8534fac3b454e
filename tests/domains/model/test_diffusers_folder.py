"""What a model folder is told to be, whole or spoilt."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from domains.errors import PermissionDenied
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints
from domains.model.json_file import read_json
from domains.model.model import Component, Model, ModelState
from domains.model.roots import Roots
from tests.domains.model.folders import (
    INDEX,
    SCHEDULER,
    UNET,
    UNET_TENSORS,
    age,
    copy_of_embedded,
    write_json,
    write_model,
    write_weights,
)

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
MAIN = "diffusion_pytorch_model"
SHARDS = {
    f"{MAIN}-00001-of-00002.safetensors": UNET_TENSORS[:2],
    f"{MAIN}-00002-of-00002.safetensors": UNET_TENSORS[2:],
}


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
    assert (model.prediction_type, model.default_sampler, model.train_steps) == ("epsilon", "euler", 1000)


def test_the_steps_of_the_training_are_those_of_the_scheduler_config(folder: Path) -> None:
    write_json(folder / "scheduler" / "scheduler_config.json", {**SCHEDULER, "num_train_timesteps": 30})
    assert read(folder).train_steps == 30


def test_a_scheduler_unlike_ours_gives_no_default_sampler(folder: Path) -> None:
    write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": "AmusedScheduler"})
    assert (read(folder).state, read(folder).default_sampler) == (ModelState.AVAILABLE, "")


def _sdxl(folder: Path) -> None:
    write_json(folder / "unet" / "config.json", {**UNET, "addition_embed_type": "text_time"})
    write_weights(folder / WEIGHTS, (*UNET_TENSORS, "add_embedding.linear_1.weight"))


def _sd1_depth(folder: Path) -> None:
    write_json(folder / "unet" / "config.json", {**UNET, "in_channels": 5})


def _empty_unet(folder: Path) -> None:
    write_weights(folder / WEIGHTS, ("something.else",))


def _without_vae(folder: Path) -> None:
    write_json(folder / "model_index.json", {name: entry for name, entry in INDEX.items() if name != "vae"})


def _odd_prediction(folder: Path) -> None:
    write_json(folder / "scheduler" / "scheduler_config.json", {**SCHEDULER, "prediction_type": "x" * 10_000})


def _scheduler_of_flow(folder: Path) -> None:
    write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"})


def _only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def _no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _no_component(folder: Path) -> None:
    (folder / "vae").rename(folder / "vea")


def _nothing_in_the_index(folder: Path) -> None:
    write_json(folder / "model_index.json", {})


def _whole_numbers(folder: Path) -> None:
    write_weights(folder / WEIGHTS, UNET_TENSORS, dtype="int32")


def _index(folder: Path, names: Mapping[str, tuple[str, ...]], suffix: str = "json") -> None:
    """Index the tensors of the unet's files by file name."""
    shards = {tensor: name for name, tensors in names.items() for tensor in tensors}
    write_json(folder / "unet" / f"{MAIN}.safetensors.index.{suffix}", {"metadata": {}, "weight_map": shards})


def _sharded(folder: Path, value: float = 1.0, *, indexed: bool = True) -> None:
    """The unet as two shards with an index."""
    (folder / WEIGHTS).unlink(missing_ok=True)
    for name, tensors in SHARDS.items():
        write_weights(folder / "unet" / name, tensors, value)
    if indexed:
        _index(folder, SHARDS)


def _shard_of_an_index_missing(folder: Path) -> None:
    _sharded(folder)
    (folder / "unet" / f"{MAIN}-00002-of-00002.safetensors").unlink()


def _shard_of_a_number_missing(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    write_weights(folder / "unet" / f"{MAIN}-00001-of-00003.safetensors", UNET_TENSORS[:2])
    write_weights(folder / "unet" / f"{MAIN}-00003-of-00003.safetensors", UNET_TENSORS[2:])


def _two_sets(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet" / "a.safetensors")
    write_weights(folder / "unet" / "b.safetensors", UNET_TENSORS, 2.0)


def _an_index_out_of_the_folder(folder: Path) -> None:
    _index(folder, {"../vae/diffusion_pytorch_model.safetensors": UNET_TENSORS})


INCOMPATIBLE: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (_sdxl, ("no known family", "nearest is sd", "text_time")),
    (_sd1_depth, ("no known family", "nearest is sd1", "in_channels=5, not 4")),
    (_empty_unet, ("no tensor conv_in.weight",)),
    (_without_vae, ("component vae is missing",)),
    (_odd_prediction, ("prediction_type", "v_prediction")),
    (_scheduler_of_flow, ("sd1 is no flow model", "FlowMatchEulerDiscreteScheduler", "do not fit")),
    (_only_pickle, ("unet", "pickle", "safetensors")),
    (_no_weights, ("unet", "no safetensors file")),
    (_no_component, ("vae",)),
    (_nothing_in_the_index, ("component unet is missing",)),
    (_whole_numbers, ("unet", "dtype I32")),
    (_shard_of_an_index_missing, ("unet", "diffusion_pytorch_model-00002-of-00002.safetensors", "index.json")),
    (_shard_of_a_number_missing, ("unet", "00002 of 00003")),
    (_two_sets, ("unet", "several sets", "a.safetensors", "b.safetensors")),
    (_an_index_out_of_the_folder, ("unet", "../vae")),
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


def _weights(model: Model, component: str = "unet") -> set[str]:
    files = next(part.files for part in model.components if part.id == component)
    return {Path(file).name for file in files if file.endswith(".safetensors")}


def _unet(model: Model) -> Component:
    return next(part for part in model.components if part.id == "unet")


def _beside(name: str, value: float = 9.0, dtype: str = "float16") -> Callable[[Path], None]:
    return lambda folder: write_weights(folder / "unet" / name, UNET_TENSORS, value, dtype)


BESIDE: dict[str, Callable[[Path], None]] = {
    "a variant": _beside(f"{MAIN}.fp16.safetensors"),
    "a variant that is larger": _beside(f"{MAIN}.fp16.safetensors", dtype="float32"),
    "a stale shard": _beside(f"{MAIN}-00001-of-00001.safetensors"),
    "a name that comes first": _beside("a.safetensors"),
    "another library's name": _beside("model.safetensors"),
    "other weights": _beside(f"{MAIN}.non_ema.safetensors"),
    "the index of a variant": lambda folder: _index(folder, {"nothing": UNET_TENSORS}, "fp16.json"),
}


@pytest.mark.parametrize("what", BESIDE)
def test_what_lies_beside_the_weights_changes_nothing(folder: Path, what: str) -> None:
    whole = read(folder)
    BESIDE[what](folder)
    model = read(folder)
    assert (model.state, model.sha256, _weights(model)) == (ModelState.AVAILABLE, whole.sha256, _weights(whole))
    assert _unet(model).parameter_count == _unet(whole).parameter_count


@pytest.mark.parametrize("what", BESIDE)
def test_what_lies_beside_indexed_shards_changes_nothing(folder: Path, what: str) -> None:
    _sharded(folder)
    whole = read(folder)
    BESIDE[what](folder)
    _beside(f"{MAIN}.safetensors")(folder)
    model = read(folder)
    assert (model.state, model.sha256, _weights(model)) == (ModelState.AVAILABLE, whole.sha256, set(SHARDS))


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["fp16"], "fp16"),
        (["fp16", "bf16"], "bf16"),
        (["fp16", "fp32"], "fp32"),
        (["non_ema", "fp16"], "fp16"),
        (["zz", "aa"], "aa"),
    ],
)
def test_one_variant_is_taken_where_there_are_only_variants(folder: Path, there: list[str], taken: str) -> None:
    (folder / WEIGHTS).unlink()
    for variant in there:
        _beside(f"{MAIN}.{variant}.safetensors")(folder)
    assert _weights(read(folder)) == {f"{MAIN}.{taken}.safetensors"}


@pytest.mark.parametrize("name", ["{}.fp16-0000{}-of-00002.safetensors", "{}-0000{}-of-00002.fp16.safetensors"])
def test_the_shards_of_a_variant_are_taken_as_one(folder: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    shards = {name.format(MAIN, n): tensors for n, tensors in ((1, UNET_TENSORS[:2]), (2, UNET_TENSORS[2:]))}
    for file, tensors in shards.items():
        write_weights(folder / "unet" / file, tensors)
    assert _weights(read(folder)) == set(shards)
    _index(folder, shards, "fp16.json")
    assert _weights(read(folder)) == set(shards)


@pytest.mark.parametrize("name", ["weights.safetensors", "sd-v1.5.safetensors"])
def test_a_single_file_of_any_name_is_the_weights(folder: Path, name: str) -> None:
    (folder / WEIGHTS).rename(folder / "unet" / name)
    assert _weights(read(folder)) == {name}


@pytest.mark.parametrize("indexed", [True, False])
def test_shards_are_all_taken(folder: Path, indexed: bool) -> None:
    _sharded(folder, indexed=indexed)
    model = read(folder)
    assert (model.state, _weights(model)) == (ModelState.AVAILABLE, set(SHARDS))
    assert _unet(model).parameter_count == 6 * len(UNET_TENSORS)


def test_a_tensor_in_two_shards_is_damage(folder: Path) -> None:
    _sharded(folder)
    first, second = SHARDS
    write_weights(folder / "unet" / second, UNET_TENSORS)
    model = read(folder)
    assert model.state is ModelState.CORRUPT
    assert all(word in model.problem for word in (first, second, UNET_TENSORS[0]))


@pytest.mark.parametrize("shards", [None, {}, [], {"a": 1}, "x"])
def test_an_index_without_a_map_is_damage(folder: Path, shards: object) -> None:
    write_json(folder / "unet" / f"{MAIN}.safetensors.index.json", {"weight_map": shards})
    model = read(folder)
    assert (model.state, "weight_map" in model.problem) == (ModelState.CORRUPT, True)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("extra", ["int64", "uint8", "bool"])
def test_tensors_that_no_module_may_want_are_not_judged(folder: Path, dtype: str, extra: str) -> None:
    tensors = {name: np.ones((2, 3), dtype) for name in UNET_TENSORS}
    save_file(tensors | {"num_batches": np.ones(3, extra)}, folder / WEIGHTS)
    model = read(folder)
    assert (model.state, _unet(model).precision) == (ModelState.AVAILABLE, dtype)


def _broken(folder: Path) -> None:
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"broken")


def _unreadable(folder: Path) -> None:
    write_json(folder / "safety_checker" / "model.safetensors.index.json", {})


def _file_instead(folder: Path) -> None:
    shutil.rmtree(folder / "safety_checker")
    (folder / "safety_checker").touch()


@pytest.mark.parametrize("spoil", [_broken, _unreadable, _file_instead])
@pytest.mark.parametrize("name", ["safety_checker", "image_projection"])
def test_a_broken_part_that_nothing_needs_is_left_out(folder: Path, spoil: Callable[[Path], None], name: str) -> None:
    write_weights(folder / "safety_checker" / "model.safetensors", ("a",))
    spoil(folder)
    (folder / "safety_checker").rename(folder / name)
    write_json(folder / "model_index.json", {**INDEX, name: ["a", "B"]})
    model = read(folder)
    assert (model.state, model.problem) == (ModelState.AVAILABLE, "")
    assert name not in {part.id for part in model.components}


def test_what_diffusers_itself_writes_as_json_is_read(folder: Path) -> None:
    text = '{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "x": NaN}'
    (folder / "scheduler" / "scheduler_config.json").write_text(text)
    assert (read(folder).state, read(folder).default_sampler) == (ModelState.AVAILABLE, "dpmpp_2m")


def test_a_class_may_be_named_with_its_module_and_metadata_is_no_component(folder: Path) -> None:
    write_json(folder / "model_index.json", {**INDEX, "_class_name": ["my_pipeline", "Mine"], "_ignore": ["a", "B"]})
    write_json(folder / "unet" / "config.json", {**UNET, "_class_name": ["unet", "UNet2DConditionModel"]})
    write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": ["x", "DDIMScheduler"]})
    (folder / "_ignore").mkdir()
    model = read(folder)
    assert (model.state, model.problem, model.default_sampler) == (ModelState.AVAILABLE, "", "ddim")
    assert "_ignore" not in {part.id for part in model.components}


def test_an_impossible_scheduler_makes_the_model_incompatible(folder: Path) -> None:
    write_json(folder / "scheduler" / "scheduler_config.json", {**SCHEDULER, "beta_schedule": "steep"})
    model = read(folder)
    assert model.state is ModelState.INCOMPATIBLE
    assert all(word in model.problem for word in ("scheduler/scheduler_config.json", "beta_schedule='steep'"))


@pytest.mark.parametrize("name", ["auto_map", "trust_remote_code", "custom_pipeline", "_attn_implementation_internal"])
def test_keys_that_start_code_are_as_if_absent(folder: Path, name: str) -> None:
    path = folder / "config.json"
    write_json(path, {name: "evil--code", "a": [{name: 1, "b": 2}]})
    assert read_json(path) == {"a": [{"b": 2}]}


def test_each_file_is_stamped_where_it_really_lies(folder: Path) -> None:
    age(folder)
    model = read(folder)
    assert {file.path for file in model.files} == {file for part in model.components for file in part.files}
    for file in model.files:
        assert Path(file.real) == (folder / file.path).resolve()
        assert bool(file.sha256) == bool(file.state) == file.path.endswith(".safetensors")


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
    assert Path(model.stamp(WEIGHTS).real).parent == cache / "blobs"


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
