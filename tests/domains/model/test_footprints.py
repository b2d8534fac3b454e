"""What a load is forecast to take: from headers, from what is there already, and from loads that were measured."""

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from domains.device.device import Backend, Device, DeviceKind
from domains.model import component_headers
from domains.model.component_headers import tensors_of
from domains.model.execution import AS_USUAL, BY_LAYER, Execution, precision_of, usual_precision
from domains.model.footprints import Footprints, PartFootprint, added_bytes
from domains.model.layer_sizes import denoiser_tensors, layer_counts
from domains.model.loaded import LoadedComponent
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.model.reading_sizes import Reading, reading_of
from domains.model.remembered import MOST, Remembered
from domains.model.safetensors_header import TensorEntry
from domains.model.weight_file import open_judged
from domains.model.weight_quantization import is_quantized
from tests.domains.model import folders
from tests.domains.model.folders import UNET_TENSORS, VAE, age, write_json, write_model, write_weights
from tests.domains.model.headers import write_header
from tests.domains.model.known import Known, known_in, loaded_as

NUMBERS = 6
"""Parameters of each tensor that `write_model` writes."""
UNET = NUMBERS * len(UNET_TENSORS)


def device(backend: Backend = Backend.CPU, capability: str = "", name: str = "gpu") -> Device:
    return Device(
        id=name,
        aliases=(),
        display_name="",
        kind=DeviceKind.CPU,
        backend=backend,
        backend_index=0,
        vendor="",
        total_memory_bytes=None,
        precision_support=(),
        compute_capability=capability,
    )


CPU = device()
GPU = device(Backend.CUDA, "9.0")


class Forecast:
    """Models `one` and `two` with forecasts."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.loaded = LoadedModels()
        self.footprints = Footprints(known.catalogue, self.loaded)
        write_model(known.root / "one")
        write_model(known.root / "two")
        age(known.root)
        known.scan()

    @property
    def one(self) -> Model:
        return self.known.model("one")

    def sizes(self, on: Device = CPU, execution: Execution = AS_USUAL, model: Model | None = None) -> dict[str, int]:
        return {part.component: part.bytes for part in self.footprints.parts(model or self.one, on, execution)}

    def shared(self, model: Model, on: Device = CPU, execution: Execution = AS_USUAL) -> dict[str, tuple[str, ...]]:
        parts = self.footprints.parts(model, on, execution)
        return {part.component: part.shared_with for part in parts if part.shared_with}

    def load(self, model: Model, precision: str = "float32", **facts: object) -> None:
        parts = tuple(LoadedComponent(id=part.id, bytes=100, precision=precision) for part in model.components)
        self.loaded.put(loaded_as(model, **{"components": parts, **facts}))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def forecast(tmp_path: Path) -> Iterator[Forecast]:
    with known_in(tmp_path) as known:
        yield Forecast(known)


@pytest.mark.parametrize(
    ("shapes", "reading"),
    [
        ({}, Reading()),
        ({"mid.attn1.to_k.weight": (4, 6), "conv.weight": (4, 3, 3, 3)}, Reading()),
        ({"a.attn2.to_k.weight": (4, 6), "b.attn2.to_v.weight": (5, 6)}, Reading(of_token=9)),
        ({"add_embedding.linear_2.weight": (7, 3), "add_embedding.linear_2.bias": (7,)}, Reading(of_prompt=7)),
        (
            {"context_embedder.weight": (8, 5), "text_embedder.linear_1.weight": (8, 3)},
            Reading(of_token=5, of_prompt=3),
        ),
    ],
)
def test_a_network_keeps_of_a_prompt_what_its_layers_say(shapes: dict[str, tuple[int, ...]], reading: Reading) -> None:
    tensors = [TensorEntry(name=name, dtype="F32", shape=shape, begin=0, end=0) for name, shape in shapes.items()]
    assert reading_of(tensors) == reading


def test_the_tensors_of_a_component_are_those_of_its_files_if_all_can_be_read(forecast: Forecast) -> None:
    found = tensors_of(forecast.one) or {}
    names = {one.name for one in found["unet"]}
    assert len(names) == len(UNET_TENSORS)
    assert not names & {one.name for one in found["vae"]}
    (forecast.known.root / "one" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert tensors_of(forecast.one) is None


def entries(*names: str) -> list[TensorEntry]:
    return [TensorEntry(name=name, dtype="F32", shape=(2, 3), begin=0, end=24) for name in names]


@pytest.mark.parametrize(
    ("names", "counted"),
    [
        (("shared.weight", "encoder.embed_tokens.weight"), ["encoder.embed_tokens.weight"]),
        (("shared.weight", "encoder.block.0.weight"), ["shared.weight", "encoder.block.0.weight"]),
    ],
)
def test_a_tensor_with_two_names_counts_once(names: tuple[str, ...], counted: list[str]) -> None:
    assert layer_counts("sd1", "text_encoder", entries(*names)) == dict.fromkeys(counted, 6)


def test_the_layers_that_can_be_streamed_are_counted_by_their_weights() -> None:
    some = entries("conv_in.weight", "conv_out.weight")
    for component in ("unet", "text_encoder"):
        assert sum(layer_counts("sd1", component, some).values()) == 12
    for component in ("vae", "scheduler", "wings"):
        assert layer_counts("sd1", component, some) == {}
    assert layer_counts("none", "unet", some) == {}
    assert [one.name for one in denoiser_tensors("sd1", "unet", some)] == ["conv_in.weight", "conv_out.weight"]
    for family, component in (("sd1", "text_encoder"), ("sd1", "vae"), ("sd1", "wings"), ("none", "unet")):
        assert denoiser_tensors(family, component, some) == ()


def test_headers_and_precision_give_the_bytes_of_each_part_with_weights(forecast: Forecast) -> None:
    assert forecast.sizes() == {"unet": 4 * UNET, "vae": 4 * NUMBERS, "text_encoder": 4 * NUMBERS}
    assert forecast.sizes(GPU) == {"unet": 2 * UNET, "vae": 2 * NUMBERS, "text_encoder": 2 * NUMBERS}
    assert forecast.footprints.need_bytes(forecast.one, CPU, AS_USUAL) == 4 * (UNET + 2 * NUMBERS)
    half = Execution(precision="float16")
    assert sum(forecast.sizes(execution=half).values()) == 2 * (UNET + 2 * NUMBERS)


def test_a_vae_that_leaves_float16_is_forecast_in_float32(forecast: Forecast) -> None:
    write_json(forecast.known.root / "one" / "vae" / "config.json", {**VAE, "force_upcast": True})
    forecast.known.scan()
    half = Execution(precision="float16")
    assert forecast.sizes(execution=half)["vae"] == 4 * NUMBERS
    assert forecast.sizes(execution=half)["unet"] == 2 * UNET
    assert forecast.sizes(GPU)["vae"] == 2 * NUMBERS, "bfloat16 has its range"
    assert forecast.sizes(execution=Execution(precision="float16", vae_precision="float16"))["vae"] == 2 * NUMBERS


@pytest.mark.parametrize(
    ("backend", "capability", "size"),
    [
        (Backend.CUDA, "7.5", 2),
        (Backend.CUDA, "8.0", 2),
        (Backend.ROCM, "gfx942", 2),
        (Backend.CPU, "9.0", 4),
        (Backend.DIRECTML, "", 4),
    ],
)
def test_the_usual_precision_is_that_of_the_device(
    forecast: Forecast, backend: Backend, capability: str, size: int
) -> None:
    parts = forecast.footprints.parts(forecast.one, device(backend, capability), AS_USUAL)
    assert {part.bytes for part in parts if part.component == "unet"} == {size * UNET}
    expected = {"7.5": "float16", "9.0": "float32", "": "float32"}.get(capability, "bfloat16")
    assert {part.precision for part in parts} == {expected}


def test_what_a_load_measured_is_the_next_forecast(forecast: Forecast) -> None:
    forecast.load(forecast.one)
    forecast.loaded.remove("one@gpu")
    assert set(forecast.sizes().values()) == {100}
    assert forecast.sizes(GPU)["unet"] == 2 * UNET, "another precision was not measured"
    assert set(forecast.sizes(model=forecast.known.model("two")).values()) == {100}, "its content is the same"


def test_a_part_that_is_there_takes_nothing(forecast: Forecast) -> None:
    two = forecast.known.model("two")
    forecast.load(two)
    assert set(forecast.sizes().values()) == {0}
    assert forecast.shared(forecast.one) == dict.fromkeys(("unet", "vae", "text_encoder"), ("two@gpu",))
    assert forecast.shared(forecast.one, GPU) == {}, "it is there in another precision"
    assert forecast.shared(forecast.one, device(name="another")) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"unet/config.json": {**folders.UNET, "sample_size": 32}},
        {"unet": 2.0},
    ],
    ids=["config", "weights"],
)
def test_only_an_equal_part_is_shared(forecast: Forecast, change: dict[str, object]) -> None:
    folder = forecast.known.root / "two"
    for name, value in change.items():
        if isinstance(value, float):
            other = write_model(forecast.known.state / "other", value)
            path = "unet/diffusion_pytorch_model.safetensors"
            (folder / path).write_bytes((other / path).read_bytes())
        else:
            write_json(folder / name, value)
    age(folder)
    forecast.known.scan()
    forecast.load(forecast.known.model("two"))
    assert set(forecast.shared(forecast.one)) == {"vae", "text_encoder"}


def test_a_model_whose_files_were_never_hashed_shares_only_with_itself(forecast: Forecast) -> None:
    unhashed = msgspec.structs.replace(
        forecast.one, id="new", files=tuple(msgspec.structs.replace(f, sha256="") for f in forecast.one.files)
    )
    forecast.load(forecast.one)
    assert forecast.shared(unhashed) == {}
    assert forecast.shared(msgspec.structs.replace(unhashed, id="one")) != {}


def test_a_loaded_model_of_other_weights_or_of_no_known_model_shares_nothing(forecast: Forecast) -> None:
    forecast.load(forecast.one, model_sha256="older")
    assert forecast.shared(forecast.one) == {}
    forecast.loaded.remove("one@gpu")
    forecast.load(msgspec.structs.replace(forecast.one, id="gone"))
    assert forecast.shared(forecast.one) == {}


def test_the_time_of_a_load_is_the_median_of_those_measured_else_the_devices_rate(forecast: Forecast) -> None:
    two = forecast.known.model("two")
    assert forecast.footprints.load_s(forecast.one, "gpu", 800) is None
    for seconds in (1.0, 9.0, 2.0):
        forecast.load(forecast.one, load_s=seconds)
        forecast.loaded.remove("one@gpu")
    forecast.load(forecast.one, load_s=None)
    size = 100 * len(forecast.one.components)
    assert forecast.footprints.load_s(forecast.one, "gpu", 1) == 2.0
    assert forecast.footprints.load_s(two, "gpu", 2 * size) == pytest.approx(4.0)
    assert forecast.footprints.load_s(two, "another", size) is None
    assert forecast.footprints.load_count(forecast.one, "gpu") == 3
    assert forecast.footprints.load_count(two, "gpu") == 0


def test_a_load_that_told_no_hash_or_no_size_teaches_nothing_wrong(forecast: Forecast) -> None:
    forecast.load(forecast.one, model_sha256="", load_s=1.0)
    assert forecast.footprints.load_count(forecast.one, "gpu") == 0
    forecast.loaded.remove("one@gpu")
    forecast.load(forecast.one, components=(), load_s=1.0)
    assert forecast.footprints.load_count(forecast.one, "gpu") == 0


@pytest.mark.parametrize(
    ("component", "execution", "upcast", "precision"),
    [
        ("unet", AS_USUAL, False, "float16"),
        ("vae", AS_USUAL, True, "float32"),
        ("text_encoder", AS_USUAL, True, "float32"),
        ("vae", Execution(precision="bfloat16"), True, "bfloat16"),
        ("vae", Execution(precision="bfloat16"), False, "bfloat16"),
        ("vae", Execution(vae_precision="float16"), True, "float16"),
        ("text_encoder_2", Execution(precision="float16", text_encoder_precision="float32"), False, "float32"),
        ("text_encoder", Execution(precision="bfloat16"), False, "bfloat16"),
        ("unet", Execution(text_encoder_precision="float32"), False, "float16"),
    ],
)
def test_the_precision_of_a_part(component: str, execution: Execution, upcast: bool, precision: str) -> None:
    assert precision_of(component, execution, "float16", upcast=upcast) == precision


def test_an_execution_names_each_precision_once() -> None:
    asked = Execution(precision="float16", text_encoder_precision="float32", vae_precision="float16")
    assert asked.named == ("float16", "float32")
    assert AS_USUAL.named == ()
    assert [usual_precision(each) for each in (None, (7, 5), (8, 0), (9, 0))] == [
        "float32",
        "float16",
        "bfloat16",
        "bfloat16",
    ]


def reading_opens(monkeypatch: pytest.MonkeyPatch, refused: int = 0) -> list[str]:
    """The files that are opened for their headers from now on. `refused`: how many of them the system refuses."""
    opened = list[str]()

    def opening(model: Model, path: str) -> BinaryIO:
        opened.append(path)
        if len(opened) <= refused:
            raise OSError(errno.EMFILE, "Too many open files")
        return open_judged(model, path)

    monkeypatch.setattr(component_headers, "open_judged", opening)
    return opened


def write_reader(forecast: Forecast) -> None:
    """A denoiser that keeps 2 numbers of each token."""
    names = (*UNET_TENSORS, "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight")
    write_weights(forecast.known.root / "one" / "unet" / "diffusion_pytorch_model.safetensors", names)
    age(forecast.known.root)
    forecast.known.scan()


def test_a_header_that_could_not_be_opened_once_is_read_with_the_next_forecast(
    forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reader(forecast)
    reading_opens(monkeypatch, refused=1)
    kept = [forecast.footprints.reading_bytes("one", CPU, 77, 1, pooled=0) for _ in range(2)]
    assert kept == [0, 4 * 2 * 77]


def test_each_header_is_read_once_for_all_forecasts_until_a_scan_finds_changes(
    forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = reading_opens(monkeypatch)
    files = sorted(name for part in forecast.one.components for name in part.files if name.endswith("safetensors"))
    for _ in range(2):
        forecast.sizes(execution=Execution(offload=BY_LAYER))
        forecast.footprints.reading_bytes("one", CPU, 77, 1, pooled=0)
    assert sorted(opened) == files
    write_reader(forecast)
    assert forecast.footprints.reading_bytes("one", CPU, 77, 1, pooled=0) > 0
    assert sorted(opened) == sorted([*files, *files])


def test_headers_that_were_read_before_a_forecast_are_not_opened_for_it(
    forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reader(forecast)
    opened = reading_opens(monkeypatch)
    for _ in range(2):
        asyncio.run(forecast.footprints.read_headers(["one", "not here"]))
    before = list(opened)
    assert forecast.footprints.reading_bytes("one", CPU, 77, 1, pooled=0) > 0
    assert opened == before
    assert len(opened) == len({*opened})


def test_findings_of_models_that_are_gone_are_not_kept_for_ever(forecast: Forecast) -> None:
    asked = list[str]()

    def find(model: Model, component: str) -> str:
        asked.append(component)
        return component

    known, usual = Remembered(find), forecast.one
    known.of(usual, "first")
    for number in range(MOST - 1):
        known.of(usual, str(number))
    # Asked for again, the first is the newest.
    known.of(usual, "first")
    known.of(usual, "one more")
    assert len(asked) == MOST + 1
    known.of(usual, "first")
    assert len(asked) == MOST + 1
    known.of(usual, "0")
    assert asked[-1] == "0"


@pytest.mark.parametrize(("device_has", "value_bytes"), [(CPU, 4), (GPU, 2)])
def test_prompts_are_kept_for_each_of_their_tokens_and_once_as_a_whole(
    tmp_path: Path, device_has: Device, value_bytes: int
) -> None:
    with known_in(tmp_path) as known:
        place = write_model(known.root / "one")
        weights = place / "unet" / "diffusion_pytorch_model.safetensors"
        write_header(weights, {"a.attn2.to_k.weight": (4, 6), "add_embedding.linear_2.weight": (7, 3)})
        known.scan()
        footprints = Footprints(known.catalogue, LoadedModels())
        for tokens, prompts, pooled in ((1, 1, 0), (77, 1, 0), (77, 3, 0), (77, 3, 2), (5, 0, 0)):
            found = footprints.reading_bytes("one", device_has, tokens, prompts, pooled=pooled)
            assert found == (4 * tokens * prompts + 7 * pooled) * value_bytes
        assert footprints.reading_bytes("absent", device_has, 77, 1, pooled=1) == 0


def test_a_quantization_saves_what_the_layers_of_the_denoiser_allow(tmp_path: Path) -> None:
    with known_in(tmp_path) as known:
        place = write_model(known.root / "one")
        weights = place / "unet" / "diffusion_pytorch_model.safetensors"
        shapes = dict.fromkeys(UNET_TENSORS, (2, 3))
        write_header(weights, {**shapes, "down_blocks.0.resnets.0.conv1.weight": (4, 5, 3, 3)})
        known.scan()
        footprints, whole = Footprints(known.catalogue, LoadedModels()), 6 * len(UNET_TENSORS) + 180
        inner = 6 * sum(is_quantized(name, (2, 3)) for name in UNET_TENSORS)
        rows = 2 * sum(is_quantized(name, (2, 3)) for name in UNET_TENSORS)
        for execution, size in (
            (AS_USUAL, 2 * whole),
            (Execution(quantization="none"), 2 * whole),
            (Execution(quantization="fp8_e4m3"), 2 * whole - 180 - inner),
            (Execution(quantization="int8"), 2 * whole - 180 - inner + 4 * (4 + rows)),
            (Execution(quantization="fp8_e4m3", precision="float32"), 4 * whole - 3 * (180 + inner)),
        ):
            found = {one.component: one for one in footprints.parts(known.model("one"), GPU, execution)}
            assert (found["unet"].bytes, found["unet"].quantization) == (
                size,
                execution.quantization_of("unet", "unet"),
            )
            assert (found["vae"].bytes, found["vae"].quantization) == (
                NUMBERS * (4 if execution.precision else 2),
                "",
            )


def test_loads_of_several_models_are_added_up_without_those_that_are_gone(forecast: Forecast) -> None:
    one = forecast.footprints.need_bytes(forecast.one, CPU, AS_USUAL)
    assert forecast.footprints.named_bytes(["one", "two", "absent"], CPU) == 2 * one > 0
    half = forecast.footprints.named_bytes(["one"], CPU, Execution(precision="float16"))
    assert (half, forecast.footprints.named_bytes([], CPU)) == (one // 2, 0)


@pytest.mark.parametrize(("execution", "added"), [(AS_USUAL, 100 + 20 + 30 + 5), (Execution(offload="component"), 100)])
def test_components_that_take_turns_add_the_largest_turn(execution: Execution, added: int) -> None:
    parts = [
        PartFootprint(component=name, precision="float16", bytes=size)
        for name, size in (("unet", 100), ("text_encoder", 20), ("text_encoder_2", 30), ("vae", 5))
    ]
    assert added_bytes(parts, execution) == added
    texts = [msgspec.structs.replace(part, bytes=60) for part in parts if part.component.startswith("text")]
    if execution.in_turns:
        assert added_bytes([*texts, parts[0]], execution) == 120, "text encoders share a turn"
    assert added_bytes([], execution) == 0
