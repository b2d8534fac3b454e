"""Single files and folders of one component, in the odd forms in which they are published."""

import errno
import json
from pathlib import Path

import pytest

from domains.errors import ErrorReason
from domains.model.inspect import findings_of
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelLayout, ModelState
from domains.model.single_file import beside_path
from domains.model.weights_model import read_component_folder, read_file
from domains.reasons import Severity
from tests.domains.model import published
from tests.domains.model.folders import write_json
from tests.domains.model.headers import write_header, write_published


def file(path: Path) -> Model:
    return read_file(path, path.stem, path.stem)


def folder(path: Path) -> Model:
    return read_component_folder(path, path.name, Path.resolve)


def told(model: Model) -> str:
    return " | ".join(finding.message for finding in findings_of(model))


def sharded(place: Path, header: str, *, variant: str = "") -> list[Path]:
    """A component in two shards with an index."""
    items = list(published.header(header).items())
    halves = [dict(items[: len(items) // 2]), dict(items[len(items) // 2 :])]
    paths = [place / f"diffusion_pytorch_model{variant}-{number:05}-of-00002.safetensors" for number in (1, 2)]
    for path, half in zip(paths, halves, strict=True):
        write_header(path, half)
    weight_map = {name: path.name for path, half in zip(paths, halves, strict=True) for name in half}
    write_json(place / f"diffusion_pytorch_model.safetensors.index{variant}.json", {"weight_map": weight_map})
    return paths


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_the_shards_of_an_index_are_one_component(tmp_path: Path, variant: str) -> None:
    place = tmp_path / "unet"
    sharded(place, "sdxl_unet", variant=variant)
    model = folder(place)
    assert (model.kind, model.family, model.layout) == (ModelKind.DENOISER, "sdxl", ModelLayout.COMPONENT)
    assert model.components[0].parameter_count == 2_567_463_684
    assert len(model.files) == 2


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    place = tmp_path / "unet"
    sharded(place, "sdxl_unet")[1].unlink()
    model = folder(place)
    assert model.reason is ErrorReason.COMPONENT_MISSING
    assert "00002-of-00002" in model.problem


def test_of_several_variants_one_counts(tmp_path: Path) -> None:
    place = tmp_path / "vae"
    write_published(place / "diffusion_pytorch_model.safetensors", "sd_vae", "F32")
    write_published(place / "diffusion_pytorch_model.fp16.safetensors", "sd_vae", "F16")
    write_json(place / "config.json", {"_class_name": "AutoencoderKL"})
    model = folder(place)
    assert (model.kind, model.components[0].precision) == (ModelKind.VAE, "float32")
    assert model.components[0].parameter_count == 83_653_863


def test_averaged_weights_do_not_count_for_a_component(tmp_path: Path) -> None:
    plain = file(write_published(tmp_path / "plain.safetensors", "sd1_single"))
    both = file(write_published(tmp_path / "both.safetensors", "sd1_single_ema"))
    assert [one.parameter_count for one in both.components] == [one.parameter_count for one in plain.components]
    assert "averaged" in told(both)


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2"), ("BF16", "bfloat16"), ("F64", "float64")],
)
def test_precisions_are_told_and_the_family_is_the_same(tmp_path: Path, dtype: str, precision: str) -> None:
    model = file(write_published(tmp_path / "a.safetensors", "flux1_dev_original", dtype))
    assert (model.family, model.components[0].precision) == ("flux1", precision)


def test_a_damaged_config_beside_a_single_file_is_told(tmp_path: Path) -> None:
    place = write_published(tmp_path / "a.safetensors", "sd1_single")
    beside = Path(beside_path(str(place))) / "scheduler" / "scheduler_config.json"
    beside.parent.mkdir(parents=True)
    beside.write_text("{")
    model = file(place)
    assert model.state is ModelState.CORRUPT
    assert "scheduler/scheduler_config.json is no JSON object" in model.problem
    beside.write_text('{"prediction_type": "v_prediction"}')
    assert file(place).prediction_type == "v_prediction"


def test_a_mix_of_precisions_is_told_by_its_shares(tmp_path: Path) -> None:
    dtypes = {"first_stage_model.": "F32", "model.diffusion_model.input": "BF16"}
    model = file(write_header(tmp_path / "a.safetensors", published.header("sd1_single"), dtypes=dtypes))
    mixes = {component.id: [name for name, _ in component.mix] for component in model.components if component.mix}
    assert mixes == {"text_encoder": ["float16"], "unet": ["float16", "bfloat16"], "vae": ["float32"]}
    assert "bfloat16 2" in told(model)


def test_empty_tensors_and_buffers_change_nothing(tmp_path: Path) -> None:
    odd = {"v_pred": (0,), "extra": (0, 3), "scalar": ()}
    plain = file(write_published(tmp_path / "plain.safetensors", "sdxl_single"))
    model = file(write_header(tmp_path / "odd.safetensors", {**published.header("sdxl_single"), **odd}))
    assert model.prediction_type == "v_prediction"
    assert [one.parameter_count for one in model.components] == [one.parameter_count for one in plain.components]


def test_metadata_that_is_no_text_is_a_damaged_file(tmp_path: Path) -> None:
    model = file(write_header(tmp_path / "a.safetensors", {"emb_params": (2, 768)}, metadata={"step": 3}))
    assert model.state is ModelState.CORRUPT
    assert "malformed metadata" in model.problem


def test_long_metadata_is_kept_in_part(tmp_path: Path) -> None:
    metadata = {f"key{number:03}": "ü" * 1000 for number in range(80)}
    model = file(write_header(tmp_path / "a.safetensors", {"emb_params": (2, 768)}, metadata=metadata))
    assert model.kind is ModelKind.TEXTUAL_INVERSION
    assert len(model.metadata) == 64
    assert all(len(value.encode()) <= 1024 for _, value in model.metadata)


def test_an_old_checkpoint_without_position_ids_is_whole(tmp_path: Path) -> None:
    tensors = {name: shape for name, shape in published.header("sd1_single").items() if "position_ids" not in name}
    model = file(write_header(tmp_path / "a.safetensors", tensors, "F32"))
    assert (model.kind, model.state, model.problem) == (ModelKind.CHECKPOINT, ModelState.AVAILABLE, "")


def test_no_file_of_a_missing_component_hides_it(tmp_path: Path) -> None:
    tensors = {
        name: shape
        for name, shape in published.header("sdxl_single").items()
        if not name.startswith("first_stage_model.")
    }
    model = file(write_header(tmp_path / "a.safetensors", tensors))
    assert (model.reason, "lacks vae" in model.problem) == (ErrorReason.COMPONENT_MISSING, True)
    assert next(findings_of(model)).severity is Severity.ERROR


def test_a_model_that_is_only_not_used_yet_is_a_warning(tmp_path: Path) -> None:
    model = file(write_published(tmp_path / "a.safetensors", "qwen_image_controlnet"))
    assert next(findings_of(model)).severity is Severity.WARNING


def test_a_controlnet_of_a_transformer_needs_its_config_beside_it(tmp_path: Path) -> None:
    for name, variant in (
        ("sd3_controlnet", ""),
        ("sd35_large_controlnet", ""),
        ("flux1_controlnet", ""),
        ("flux1_union_controlnet", "union"),
    ):
        alone = file(write_published(tmp_path / f"{name}.safetensors", name))
        assert (alone.kind, alone.variant, alone.reason) == (
            ModelKind.CONTROLNET,
            variant,
            ErrorReason.MODEL_INCOMPATIBLE,
        )
        assert "config.json" in alone.problem
    for name in ("z_image_controlnet", "z_image_21_controlnet"):
        alone = file(write_published(tmp_path / f"{name}.safetensors", name))
        assert (alone.kind, alone.family, alone.problem) == (ModelKind.CONTROLNET, "z_image", "")


def test_a_controlnet_with_its_original_names_says_what_to_do(tmp_path: Path) -> None:
    tensors = {
        "input_hint_block.0.weight": (16, 3, 3, 3),
        "zero_convs.0.0.weight": (320, 320, 1, 1),
        "middle_block_out.0.weight": (1280, 1280, 1, 1),
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    }
    for prefix in ("", "control_model."):
        model = file(
            write_header(tmp_path / "a.safetensors", {prefix + name: shape for name, shape in tensors.items()})
        )
        assert (model.kind, model.reason) == (ModelKind.CONTROLNET, ErrorReason.MODEL_INCOMPATIBLE)
        assert "convert it with diffusers" in model.problem


@pytest.mark.parametrize("config", ["{", "[]", json.dumps({"id2label": 3, "architectures": [3]})])
def test_an_odd_config_is_an_answer_too(tmp_path: Path, config: str) -> None:
    write_published(tmp_path / "c" / "model.safetensors", "mobilenet_nsfw")
    (tmp_path / "c" / "config.json").write_text(config)
    assert folder(tmp_path / "c").problem


def test_a_file_that_shrank_or_went_is_named(tmp_path: Path) -> None:
    path = write_published(tmp_path / "a.safetensors", "sd_vae")
    with path.open("r+b") as opened:
        opened.truncate(path.stat().st_size - 1)
    assert "is cut off" in file(path).problem
    path.unlink()
    assert file(path).state is ModelState.CORRUPT


def test_a_folder_that_cannot_be_read_is_told_with_what_the_system_says(tmp_path: Path) -> None:
    write_published(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", "sd_vae")

    def broken(path: Path) -> Path:
        raise OSError(errno.EIO, "Input/output error", str(path))

    model = read_component_folder(tmp_path / "vae", "vae", broken)
    assert (model.state, model.layout) == (ModelState.INCOMPATIBLE, ModelLayout.COMPONENT)
    assert (
        model.problem
        == f"{tmp_path / 'vae' / 'diffusion_pytorch_model.safetensors'} cannot be read: Input/output error"
    )
    gone = folder(tmp_path / "absent")
    assert gone.problem == f"{tmp_path / 'absent'} cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("beginning", "problem"),
    [
        ("", ""),
        ("model.", "ESRGAN's old names"),
    ],
)
def test_an_upscaler_with_its_old_names_says_what_to_do(tmp_path: Path, beginning: str, problem: str) -> None:
    new = {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)}
    new |= {"conv_body.weight": (64, 64, 3, 3), "conv_last.weight": (3, 64, 3, 3)}
    old = {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}
    model = file(write_header(tmp_path / "x.safetensors", old if beginning else new))
    assert model.kind is ModelKind.UPSCALER
    assert problem in model.problem
    assert bool(model.problem) is bool(problem)
