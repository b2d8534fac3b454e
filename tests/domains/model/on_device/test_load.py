"""Loading: what is read, what is told of broken files, and that nothing stays behind."""

import errno
import gc
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import msgspec
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from domains.errors import DataLoss, DeviceOpsError, ErrorReason, FailedPrecondition, NotSupported
from domains.inference.on_device.families.table import family_of
from domains.inference.prompts import plain
from domains.model.diffusers_folder import read_folder
from domains.model.execution import Execution
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model
from domains.model.on_device import Placed, load, loading, weights
from domains.model.on_device.components import built
from domains.model.on_device.flat import Flat
from domains.model.roots import Roots
from tests.domains.inference.on_device.tiny_model import tiny_model
from tests.domains.model.folders import age

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


def rewrite(model: Model, name: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = Path(model.folder) / name
    save_file({key: value.clone() for key, value in change(load_file(path)).items()}, path)


def reconfigure(model: Model, name: str, **change: Any) -> None:
    """Change keys of a model's JSON file."""
    path = Path(model.folder) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


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
    load(tiny, "cpu", progress=lambda placed: told.append((placed.completed, placed.total)))
    size = sum(path.stat().st_size for path in Path(tiny.folder).rglob("*.safetensors"))
    assert told[0] == (0, size)
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 50


@pytest.mark.parametrize("after", [1, 60])
def test_a_cancelled_load_ends_between_tensors_and_leaves_nothing(tiny: Model, after: int) -> None:
    before = bytes_held()
    steps = loading(tiny, "cpu")
    placed = [next(steps) for _ in range(after)][-1]
    assert placed.completed < placed.total
    flats = living_flats()
    steps.close()
    del steps
    assert bytes_held() == before
    assert all(flat() is None for flat in flats)


def living_flats() -> list[ReferenceType[Flat]]:
    """The allocations that exist now."""
    return [ref(thing) for thing in gc.get_objects() if type(thing) is Flat]


@pytest.mark.parametrize("fault", ["cut off", "a disk's error", "out of memory"])
def test_a_failed_load_frees_its_allocation_at_once_while_its_error_is_kept(
    tiny: Model, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error") if fault == "a disk's error" else MemoryError

    def unmapped(file: object) -> None:
        """As where the system grants no lease."""

    monkeypatch.setattr(weights, "mapped", unmapped)
    steps, flats = loading(tiny, "cpu"), []
    while not flats:
        next(steps)
        flats = living_flats()
    if fault == "cut off":
        for path in (Path(tiny.folder) / name for name in (UNET, VAE)):
            cut_off(path)
    else:
        monkeypatch.setattr("os.preadv", fails)
    gc.disable()
    try:
        with pytest.raises(DeviceOpsError) as kept:
            list(steps)
        assert kept.value.reason in (ErrorReason.MODEL_CORRUPT, ErrorReason.HOST_OUT_OF_MEMORY)
        assert all(flat() is None for flat in flats)
    finally:
        gc.enable()


def test_a_failed_load_leaves_nothing_while_its_error_is_kept(tiny: Model) -> None:
    rewrite(tiny, VAE, lambda tensors: {name: tensors[name] for name in tensors if name != "decoder.conv_out.bias"})
    before = bytes_held()
    with pytest.raises(DataLoss) as kept:
        load(tiny_model(Path(tiny.folder)), "cpu")
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
        load(tiny_model(Path(tiny.folder)), "cpu")
    assert refused.value.facts["tensor"] == "conv_out.bias"


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tiny: Model) -> None:
    rewrite(tiny, UNET, lambda tensors: tensors | {"conv_out.bias": torch.zeros(5)})
    with pytest.raises(DataLoss) as refused:
        load(tiny_model(Path(tiny.folder)), "cpu")
    facts = refused.value.facts
    assert (facts["tensor"], facts["shape"], facts["expected_shape"]) == ("conv_out.bias", "(5,)", "(4,)")


@pytest.mark.parametrize("gone", ["unet/config.json", UNET, "scheduler/scheduler_config.json", "vae/config.json"])
def test_a_missing_file_is_named(tiny: Model, gone: str) -> None:
    (Path(tiny.folder) / gone).unlink()
    with pytest.raises(FailedPrecondition) as refused:
        load(tiny, "cpu")
    assert refused.value.reason is ErrorReason.COMPONENT_MISSING
    assert refused.value.facts["file"] == gone.split("/")[1]


@pytest.mark.parametrize("text", ["", "{", "[]", "{} " + " " * 2**20])
def test_a_config_that_is_no_small_json_object_is_corrupt(tiny: Model, text: str) -> None:
    (Path(tiny.folder) / "unet" / "config.json").write_text(text)
    with pytest.raises(DataLoss) as refused:
        load(tiny, "cpu")
    assert refused.value.facts == {"component": "unet", "file": "config.json"}


BUILD_NOTHING: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"block_out_channels": 7}),
    ("unet", {"down_block_types": ["Nothing"]}),
    ("unet", {"block_out_channels": [10**12, 10**12, 10**12]}),
    ("unet", {"layers_per_block": 10**9}),
    ("unet", {"transformer_layers_per_block": [1, 10**9, 1]}),
    ("unet", {"attention_head_dim": 0}),
    ("text_encoder", {"num_hidden_layers": 10**9}),
    ("text_encoder", {"hidden_act": "nothing"}),
    ("text_encoder", {"hidden_size": 25}),
    ("vae", {"latent_channels": 16}),
]


@pytest.mark.parametrize(("component", "change"), BUILD_NOTHING, ids=str)
def test_a_config_that_describes_no_module_is_incompatible_at_once(
    tiny: Model, component: str, change: dict[str, Any]
) -> None:
    reconfigure(tiny, f"{component}/config.json", **change)
    with pytest.raises(FailedPrecondition) as refused:
        load(tiny, "cpu")
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert component in refused.value.message
    assert len(refused.value.message) < 500


@pytest.mark.parametrize(
    "keys",
    [
        {"_attn_implementation_internal": "evil/kernel", "attn_implementation": "evil/kernel"},
        {"auto_map": {"AutoModel": "evil.Code"}, "trust_remote_code": True},
    ],
)
@pytest.mark.parametrize("name", ["text_encoder/config.json", "unet/config.json", "tokenizer/tokenizer_config.json"])
def test_keys_that_could_start_code_change_nothing(tiny: Model, name: str, keys: dict[str, Any]) -> None:
    before = load(tiny, "cpu").modules["text_encoder"].config._attn_implementation  # pyright: ignore
    reconfigure(tiny, name, **keys)
    after = load(tiny, "cpu")
    assert after.modules["text_encoder"].config._attn_implementation == before  # pyright: ignore
    assert "evil" not in str(after.tokenizers["text_encoder"].init_kwargs)


@pytest.mark.parametrize("key", ["vocab_file", "vocab", "init_inputs", "tokenizer_file", "fast_tokenizer_files"])
@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
def test_a_tokenizer_opens_no_file_that_its_settings_name(tiny: Model, tmp_path: Path, name: str, key: str) -> None:
    folder, outside = Path(tiny.folder) / "tokenizer", tmp_path / "outside"
    outside.mkdir()
    words = json.loads((folder / "vocab.json").read_text())
    (outside / "vocab.json").write_text(json.dumps({**words, "outside</w>": len(words)}))
    (outside / "tokenizer.0.json").write_text("no tokenizer")
    value: Any = str(outside / "vocab.json")
    if key.startswith("vocab"):
        (folder / "tokenizer.json").unlink()  # the library prefers it
    # A path with folders leads out of the folder of copies, wherever that is.
    more = {"init_inputs": [value], "fast_tokenizer_files": [f"{'../' * 20}{outside}/tokenizer.0.json"]}
    reconfigure(tiny, f"tokenizer/{name}", **{key: more.get(key, value)})
    loaded = load(tiny_model(Path(tiny.folder)), "cpu").tokenizers["text_encoder"]
    assert loaded.get_vocab() == words


@pytest.mark.parametrize("length", [None, 10**30, 1e30, 512, -1, 0, "77", True])
def test_a_tokenizer_reads_no_more_than_the_encoder_has_positions_for(tiny: Model, length: Any) -> None:
    path = Path(tiny.folder) / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["model_max_length"]
    path.write_text(json.dumps(config if length is None else config | {"model_max_length": length}))
    loaded = load(tiny, "cpu")
    assert loaded.tokenizers["text_encoder"].model_max_length == 77
    encoded = family_of(loaded).encode(plain("owl " * 200))
    assert encoded.tokens > encoded.tokens_read == 77


def test_a_tokenizer_that_reads_less_than_the_encoder_could_keeps_its_length(tiny: Model) -> None:
    reconfigure(tiny, "tokenizer/tokenizer_config.json", model_max_length=20)
    assert load(tiny, "cpu").tokenizers["text_encoder"].model_max_length == 20


def test_a_tokenizer_of_another_model_is_incompatible(tiny: Model) -> None:
    reconfigure(tiny, "text_encoder/config.json", vocab_size=100)
    with pytest.raises(FailedPrecondition, match="vocab_size is 100") as refused:
        load(tiny, "cpu")
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_broken_files_of_a_tokenizer_are_corrupt(tiny: Model, name: str) -> None:
    for path in (Path(tiny.folder) / "tokenizer").iterdir():
        if path.name != "tokenizer_config.json":
            path.write_bytes(b"\xff{")
    (Path(tiny.folder) / "tokenizer" / name).write_bytes(b"[1")
    with pytest.raises(DataLoss) as refused:
        load(tiny_model(Path(tiny.folder)), "cpu")
    assert refused.value.facts["component"] == "tokenizer"


@pytest.mark.parametrize("change", [{"beta_schedule": "x"}, {"beta_start": "a"}, {"steps_offset": -1}], ids=str)
def test_an_impossible_scheduler_is_refused_with_file_and_field(tiny: Model, change: dict[str, Any]) -> None:
    reconfigure(tiny, "scheduler/scheduler_config.json", **change)
    with pytest.raises(FailedPrecondition) as refused:
        load(tiny, "cpu")
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert (refused.value.facts["file"], refused.value.facts["field"]) == ("scheduler_config.json", *change)


def test_a_scheduler_is_judged_before_any_weight_is_read(tiny: Model) -> None:
    told: list[Placed] = []

    def judge(config: Mapping[str, Any]) -> None:
        raise FailedPrecondition("not this one", ErrorReason.MODEL_INCOMPATIBLE)

    with pytest.raises(FailedPrecondition, match="not this one"):
        load(tiny, "cpu", progress=told.append, judge=judge)
    assert told == []


F8 = [name for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz") if hasattr(torch, name)]


@pytest.mark.parametrize("dtype", ["float64", *F8])
def test_weights_in_other_floats_are_converted(tiny: Model, dtype: str) -> None:
    stored = {name: value.to(getattr(torch, dtype)) for name, value in load_file(Path(tiny.folder) / UNET).items()}
    save_file(stored, Path(tiny.folder) / UNET)
    model = tiny_model(Path(tiny.folder))
    assert next(part.precision for part in model.components if part.id == "unet") == dtype
    placed = load(model, "cpu").modules["unet"].state_dict()
    assert all(torch.equal(placed[name], stored[name].float()) for name in stored)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_only_a_tensor_that_a_module_wants_is_judged(tiny: Model, dtype: str) -> None:
    extra = torch.ones(3, dtype=getattr(torch, dtype))
    rewrite(tiny, UNET, lambda tensors: tensors | {"counter": extra})
    load(tiny_model(Path(tiny.folder)), "cpu")
    rewrite(tiny, UNET, lambda tensors: tensors | {"conv_out.bias": torch.ones(4, dtype=getattr(torch, dtype))})
    with pytest.raises(FailedPrecondition) as refused:
        load(tiny_model(Path(tiny.folder)), "cpu")
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert refused.value.facts["tensor"] == "conv_out.bias"


def test_weights_replaced_after_the_scan_are_refused(tiny: Model) -> None:
    rewrite(tiny, UNET, lambda tensors: tensors | {"conv_out.bias": torch.ones(4)})
    with pytest.raises(FailedPrecondition, match="scan again") as refused:
        load(tiny, "cpu")
    assert refused.value.facts == {"component": "unet", "file": "diffusion_pytorch_model.safetensors"}
    load(tiny_model(Path(tiny.folder)), "cpu")


def test_a_copy_of_the_weights_with_the_same_content_is_loaded(tiny: Model) -> None:
    age(Path(tiny.folder))
    model = tiny_model(Path(tiny.folder))
    path = Path(tiny.folder) / UNET
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)
    load(model, "cpu")


def test_weights_changed_in_place_with_their_old_time_are_refused(tiny: Model) -> None:
    age(Path(tiny.folder))
    model, path = tiny_model(Path(tiny.folder)), Path(tiny.folder) / UNET
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(FailedPrecondition, match="scan again"):
        load(model, "cpu")


def test_weights_changed_during_the_load_are_refused(tiny: Model) -> None:
    path = Path(tiny.folder) / UNET

    def change(placed: Placed) -> None:
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
        os.utime(path, ns=(1, placed.completed + 1))

    with pytest.raises(FailedPrecondition, match="scan again"):
        load(tiny, "cpu", progress=change)


def test_a_file_that_is_replaced_during_the_load_gives_what_its_scan_saw(tiny: Model) -> None:
    path = Path(tiny.folder) / UNET
    before = load_file(path)
    beside = path.with_name("beside")
    save_file({name: value + 1 for name, value in before.items()}, beside)

    def replace(placed: Placed) -> None:
        if beside.exists():
            beside.replace(path)

    unet = load(tiny, "cpu", progress=replace).modules["unet"].state_dict()
    assert all(torch.equal(unet[name], value) for name, value in before.items())
    with pytest.raises(FailedPrecondition, match="scan again"):
        load(tiny, "cpu")


def test_weights_cut_off_during_the_load_are_an_error_and_not_the_end_of_the_process(tiny: Model) -> None:
    with pytest.raises(DataLoss, match="cut off"):
        load(tiny, "cpu", progress=lambda placed: cut_off(Path(tiny.folder) / UNET))


@pytest.mark.parametrize("name", [UNET, "unet/config.json", "tokenizer/tokenizer_config.json", "unet"])
def test_a_link_in_place_of_a_file_or_folder_is_not_followed(tiny: Model, name: str) -> None:
    path = Path(tiny.folder) / name
    path.rename(Path(tiny.folder).parent / "outside")
    path.symlink_to(Path(tiny.folder).parent / "outside")
    with pytest.raises(FailedPrecondition, match="scan again") as refused:
        load(tiny, "cpu")
    assert refused.value.reason is ErrorReason.ILLEGAL_STATE


def test_a_model_of_an_older_catalogue_loads_without_stamps(tiny: Model) -> None:
    load(msgspec.structs.replace(tiny, files=()), "cpu")


def test_a_download_cache_of_links_loads(tiny: Model) -> None:
    folder, blobs = Path(tiny.folder), Path(tiny.folder).parent / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(file for file in folder.rglob("*") if file.is_file())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    model = read_folder(folder, "tiny", Roots([folder.parent]).inside, Fingerprints())
    assert model.sha256 == tiny.sha256
    load(model, "cpu")


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
    placed = load(tiny_model(Path(tiny.folder)), "cpu").modules["vae"].state_dict()
    assert all(torch.equal(placed[name], expected[name]) for name in expected)


def test_nothing_is_looked_up_online(tiny: Model) -> None:
    index = Path(tiny.folder) / "tokenizer" / "tokenizer_config.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"name_or_path": "nobody/nothing"}))
    load(tiny, "cpu")


def test_an_error_of_a_driver_stays_in_the_family(tiny: Model) -> None:
    with pytest.raises(DeviceOpsError):
        load(tiny, "cuda:7") if not torch.cuda.is_available() else load(tiny, "cuda:99")


def cut_off(path: Path) -> None:
    # `os.truncate` fails where a signal interrupts it.
    with path.open("r+b") as file:
        file.truncate(5000)


def bytes_held() -> int:
    """What living models hold, wherever somebody still refers to them."""
    gc.collect()
    models = [thing for thing in gc.get_objects() if type(thing) in (UNet2DConditionModel, AutoencoderKL)]
    return sum(p.nbytes for model in models for p in model.parameters() if not p.is_meta)


def test_each_part_can_have_a_precision_of_its_own(tiny: Model) -> None:
    asked = Execution(precision="bfloat16", text_encoder_precision="float32", vae_precision="float16")
    steps, parts = loading(tiny, "cpu", asked), dict[str, int]()
    try:
        while True:
            parts = dict(next(steps).parts) or parts
    except StopIteration as end:
        loaded = end.value
    assert {part: loaded.precision_of(part) for part in loaded.modules} == {
        "unet": "bfloat16",
        "text_encoder": "float32",
        "vae": "float16",
    }
    # Each part tells its bytes as they are on the device, not as they are in the files.
    assert parts == {part: pytest.approx(size, rel=0.01) for part, size in loaded.bytes_per_component.items()}


def test_a_library_that_the_system_refuses_a_file_does_not_make_the_model_corrupt(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as error:
            raise ValueError("the vocabulary cannot be loaded") from error

    monkeypatch.setattr("transformers.CLIPTokenizer.from_pretrained", refused)
    with pytest.raises(DeviceOpsError) as told:
        load(tiny, "cpu")
    assert told.value.reason is ErrorReason.QUOTA_EXCEEDED


def test_a_module_that_the_system_refuses_a_file_does_not_make_the_model_incompatible() -> None:
    def refused(config: Mapping[str, Any]) -> nn.Module:
        raise RuntimeError("No such file (os error 5)")

    with pytest.raises(DeviceOpsError) as told:
        built({}, "unet", refused, 1)
    assert told.value.reason is ErrorReason.STORAGE_FAILED


def test_a_temporary_folder_that_cannot_be_written_keeps_no_model_from_loading_for_ever(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", refuse)
        with pytest.raises(DeviceOpsError) as told:
            load(tiny, "cpu")
    assert told.value.reason is ErrorReason.STORAGE_FULL
    assert load(tiny, "cpu").modules
