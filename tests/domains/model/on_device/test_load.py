"""Loading: what is read, what is told of broken files, and that nothing stays behind."""

import gc
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains.errors import DataLoss, DeviceOpsError, ErrorReason, FailedPrecondition, NotSupported
from domains.model.model import Model
from domains.model.on_device import LoadCancelled, load
from tests.domains.inference.on_device.tiny_model import tiny_model

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


def rewrite(model: Model, name: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = Path(model.folder) / name
    save_file({key: value.clone() for key, value in change(load_file(path)).items()}, path)


def test_the_weights_on_the_device_are_those_in_the_files(tiny: Model) -> None:
    loaded = load(tiny, "cpu")
    stored = load_file(Path(tiny.folder) / UNET)
    placed = loaded.modules["unet"].state_dict()
    assert placed.keys() == stored.keys()
    assert all(torch.equal(placed[name], stored[name]) for name in stored)


def test_no_tensor_is_left_without_memory(tiny: Model) -> None:
    for module in load(tiny, "cpu").modules.values():
        assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not module.training


def test_text_is_encoded_as_transformers_does(tiny: Model) -> None:
    from transformers import CLIPTextModel

    ids = torch.arange(77)[None]
    theirs = CLIPTextModel.from_pretrained(Path(tiny.folder) / "text_encoder", local_files_only=True).eval()
    with torch.no_grad():
        ours = load(tiny, "cpu").modules["text_encoder"](ids).last_hidden_state
        assert torch.equal(ours, theirs(ids).last_hidden_state)


def test_bytes_are_counted_on_the_tensors(tiny: Model) -> None:
    whole, half = load(tiny, "cpu"), load(tiny, "cpu", "bfloat16")
    unet = sum(tensor.numel() for tensor in load_file(Path(tiny.folder) / UNET).values())
    assert (whole.bytes_per_component["unet"], half.bytes_per_component["unet"]) == (4 * unet, 2 * unet)
    assert whole.size_bytes == sum(whole.bytes_per_component.values())
    assert (whole.precision, half.precision) == ("float32", "bfloat16")


def test_progress_rises_to_the_whole_size_of_the_files(tiny: Model) -> None:
    told: list[tuple[int, int]] = []
    load(tiny, "cpu", progress=lambda done, total: told.append((done, total)))
    size = sum(path.stat().st_size for path in Path(tiny.folder).rglob("*.safetensors"))
    assert told[0] == (0, size)
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 50


@pytest.mark.parametrize("after", [1, 60])
def test_a_cancelled_load_ends_between_tensors_and_leaves_nothing(tiny: Model, after: int) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked == after

    before = bytes_held()
    with pytest.raises(LoadCancelled):
        load(tiny, "cpu", cancelled=cancelled)
    assert asked == after
    assert bytes_held() == before


def test_a_failed_load_leaves_nothing_while_its_error_is_kept(tiny: Model) -> None:
    rewrite(tiny, VAE, lambda tensors: {"decoder.conv_in.weight": tensors["decoder.conv_in.weight"]})
    before = bytes_held()
    with pytest.raises(DataLoss) as kept:
        load(tiny, "cpu")
    assert kept.value.reason is ErrorReason.MODEL_CORRUPT
    assert bytes_held() == before


def test_a_truncated_file_is_named(tiny: Model) -> None:
    path = Path(tiny.folder) / UNET
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataLoss, match=r"unet/diffusion_pytorch_model\.safetensors"):
        load(tiny, "cpu")


def test_a_missing_tensor_is_named(tiny: Model) -> None:
    rewrite(tiny, UNET, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "conv_out.bias"})
    with pytest.raises(DataLoss) as refused:
        load(tiny, "cpu")
    assert refused.value.facts["tensor"] == "conv_out.bias"


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tiny: Model) -> None:
    rewrite(tiny, UNET, lambda tensors: tensors | {"conv_out.bias": torch.zeros(5)})
    with pytest.raises(DataLoss) as refused:
        load(tiny, "cpu")
    facts = refused.value.facts
    assert (facts["tensor"], facts["shape"], facts["expected_shape"]) == ("conv_out.bias", "(5,)", "(4,)")


@pytest.mark.parametrize("gone", ["unet/config.json", UNET, "scheduler/scheduler_config.json", "vae/config.json"])
def test_a_missing_file_is_named(tiny: Model, gone: str) -> None:
    (Path(tiny.folder) / gone).unlink()
    with pytest.raises(FailedPrecondition) as refused:
        load(tiny, "cpu")
    assert refused.value.reason is ErrorReason.COMPONENT_MISSING
    assert refused.value.facts["file"] == gone.split("/")[1]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"block_out_channels": 7}', '{"down_block_types": ["Nothing"]}'])
def test_a_config_that_describes_nothing_is_corrupt(tiny: Model, text: str) -> None:
    (Path(tiny.folder) / "unet" / "config.json").write_text(text)
    with pytest.raises(DataLoss) as refused:
        load(tiny, "cpu")
    assert refused.value.facts["component"] == "unet"


def test_an_unknown_family_is_incompatible(tiny: Model) -> None:
    with pytest.raises(FailedPrecondition, match="sd9"):
        load(msgspec.structs.replace(tiny, family="sd9"), "cpu")


def test_an_unknown_precision_is_refused_with_those_we_know(tiny: Model) -> None:
    with pytest.raises(NotSupported, match="float32, bfloat16, float16"):
        load(tiny, "cpu", "int3")


def test_a_model_in_several_files_is_one_model(tiny: Model) -> None:
    path = Path(tiny.folder) / UNET
    tensors = load_file(path)
    names = sorted(tensors)
    for number, half in enumerate((names[::2], names[1::2]), 1):
        save_file(
            {name: tensors[name].clone() for name in half}, path.with_name(f"model-0000{number}-of-00002.safetensors")
        )
    path.unlink()
    placed = load(tiny_model(Path(tiny.folder)), "cpu").modules["unet"].state_dict()
    assert all(torch.equal(placed[name], tensors[name]) for name in names)


def test_the_old_names_of_a_vaes_attention_are_understood(tiny: Model) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        def name(new: str) -> str:
            for part, before in old.items():
                new = new.replace(f".{part}.", f".{before}.")
            return new

        return {name(key): value for key, value in tensors.items()}

    expected = load_file(Path(tiny.folder) / VAE)
    rewrite(tiny, VAE, renamed)
    placed = load(tiny, "cpu").modules["vae"].state_dict()
    assert all(torch.equal(placed[name], expected[name]) for name in expected)


def test_nothing_is_looked_up_online(tiny: Model) -> None:
    index = Path(tiny.folder) / "tokenizer" / "tokenizer_config.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"name_or_path": "nobody/nothing"}))
    load(tiny, "cpu")


def test_an_error_of_a_driver_stays_in_the_family(tiny: Model) -> None:
    with pytest.raises(DeviceOpsError):
        load(tiny, "cuda:7") if not torch.cuda.is_available() else load(tiny, "cuda:99")


def bytes_held() -> int:
    """What living models hold, wherever somebody still refers to them."""
    gc.collect()
    models = [thing for thing in gc.get_objects() if type(thing) in (UNet2DConditionModel, AutoencoderKL)]
    return sum(p.nbytes for model in models for p in model.parameters() if not p.is_meta)
