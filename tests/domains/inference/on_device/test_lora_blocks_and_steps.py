"""LoRAs that count in some steps or blocks, against diffusers: `set_adapters` with weights by block, and between steps."""

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from domains.inference.kept_file import KeptFile
from domains.inference.loras import LoraComponent, ResolvedLora
from domains.inference.on_device.adapters import AdapterPool, Adapters, Asked
from domains.inference.on_device.checkpoint import packed, unpack
from domains.inference.on_device.trajectory import walk_together
from domains.model.model import Model
from tests.domains.inference.on_device.lora_files import CONVOLUTIONS, UNET, lora_model, resolved
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, begun, gap, their_latents
from tests.domains.inference.on_device.test_lora_transformers import in_peft as in_peft_of_transformer
from tests.domains.inference.on_device.test_loras import Tensors, in_kohya, in_peft
from tests.domains.inference.on_device.tiny_families import write_tiny_family

STEPS = 4


@pytest.fixture(scope="module", params=["sd2", "flux1"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("families") / name))


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(write_tiny_family("sd2", tmp_path_factory.mktemp("families") / "sd2"))


def file_of(family: Loaded) -> Tensors:
    return in_peft(family) if "unet" in family.ours.modules else in_peft_of_transformer(family)


def ours(family: Loaded, *loras: tuple[Model, ResolvedLora], pool: AdapterPool | None = None) -> Adapters:
    asked_for = Asked([(lora, entry) for entry, lora in loras], steps=STEPS)
    return (pool or AdapterPool()).adapters(asked_for, family.ours)


def in_steps(model: Model, start: float, end: float, weight: float = 1.0) -> ResolvedLora:
    return msgspec.structs.replace(resolved(model, weight), start_ratio=start, end_ratio=end)


@contextmanager
def weights_by_step(pipe: Any, weights: Mapping[int, float], text: float) -> Generator[None]:
    """Diffusers' pipeline with another weight in its denoiser for each step. Text encoders keep theirs."""
    denoiser: Any = getattr(pipe, "unet", None) or pipe.transformer
    name, step = "unet" if hasattr(pipe, "unet") else "transformer", 0

    def before(*_: object) -> None:
        nonlocal step
        pipe.set_adapters(["it"], [{name: weights[step], "text_encoder": text}])
        step += 1

    pipe.set_adapters(["it"], [{name: 0.0, "text_encoder": text}])
    hooked = denoiser.register_forward_pre_hook(before)
    try:
        yield
    finally:
        hooked.remove()
    assert step == len(weights)


@pytest.mark.parametrize(("start", "end", "within"), [(0.5, 1.0, {2, 3}), (0.0, 0.25, {0}), (0.3, 0.7, {2})])
def test_a_lora_counts_in_its_steps_as_in_diffusers_with_a_weight_for_each_step(
    family: Loaded, start: float, end: float, within: set[int], tmp_path: Path
) -> None:
    path, wanted = tmp_path / "it.safetensors", asked(family, steps=STEPS)
    if wanted.family == "flux1":
        # Diffusers would run its denoiser twice a step for a negative prompt, and the weights go by runs.
        wanted = msgspec.structs.replace(wanted, guidance_scale=1.0)
    lora = lora_model(path, file_of(family))
    found = final_latents(family.ours, wanted, ours(family, (lora, in_steps(lora, start, end, 0.8))))
    family.theirs.load_lora_weights(path.parent, weight_name=path.name, adapter_name="it")
    try:
        with weights_by_step(family.theirs, {step: 0.8 * (step in within) for step in range(STEPS)}, 0.8):
            theirs = their_latents(family, wanted)
    finally:
        family.theirs.unload_lora_weights()
    assert gap(found, theirs) < TOLERANCE
    assert gap(found, final_latents(family.ours, wanted, ours(family, (lora, resolved(lora, 0.8))))) > 10 * TOLERANCE


def test_loras_of_several_ranges_share_forwards_and_keep_their_progress(family: Loaded, tmp_path: Path) -> None:
    lora = lora_model(tmp_path / "it.safetensors", file_of(family))
    pool = AdapterPool()
    several = ((lora, in_steps(lora, 0.0, 0.5)), (lora, in_steps(lora, 0.25, 1.0, -0.4)))
    mixed = [ours(family, *several, pool=pool), ours(family, several[1], pool=pool), ours(family, pool=pool)]
    wanted = asked(family, steps=STEPS)
    alone = [final_latents(family.ours, wanted, adapters) for adapters in mixed]
    with torch.inference_mode():
        group = [begun(family, wanted, adapters) for adapters in mixed]
        for _ in range(3):
            walk_together(group)
        kept = packed(group[0], wanted)
        (tmp_path / "kept").write_bytes(kept)
        group[0] = begun(family, wanted, mixed[0])
        unpack(KeptFile(path=str(tmp_path / "kept"), sha256=hashlib.sha256(kept).hexdigest()), wanted, group[0])
        walk_together(group)
    for one, latents in zip(group, alone, strict=True):
        assert one.done
        assert gap(one.latents, latents) < TOLERANCE


def by_block(model: Model, component: str, weights: tuple[float, ...], weight: float | None = None) -> ResolvedLora:
    own = LoraComponent(component_id=component, weight=weight, block_weights=weights)
    return msgspec.structs.replace(resolved(model), components=(own,))


def test_blocks_have_their_weights_as_in_diffusers(sd2: Loaded, tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    lora = lora_model(path, in_kohya(sd2, alpha=2.0))
    # conv_in, the first level without attention and its downsampler; the second level; middle; both levels up.
    blocks = (9.0, 9.0, 9.0, 0.3, -0.5, 0.0, 1.5, 9.0, 9.0)
    found = final_latents(sd2.ours, asked(sd2), ours(sd2, (lora, by_block(lora, "unet", blocks))))
    theirs: dict[str, Any] = {"down": {"block_1": [0.3]}, "mid": -0.5, "up": {"block_0": [0.0, 1.5]}}
    pipe = sd2.theirs
    pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="it")
    try:
        pipe.set_adapters(["it"], [{"unet": theirs, "text_encoder": 1.0}])
        assert gap(found, their_latents(sd2, asked(sd2))) < TOLERANCE
    finally:
        pipe.unload_lora_weights()


BLOCKS: Mapping[str, tuple[str, tuple[tuple[tuple[str, ...], float], ...]]] = {
    "unet": (
        "sd2",
        (
            (("unet.conv_in.",), 1.0),
            (("unet.down_blocks.0.resnets.0.",), 0.5),
            (("unet.down_blocks.0.downsamplers.",), 0.0),
            (("unet.down_blocks.1.",), -1.0),
            (("unet.mid_block.",), 2.0),
            (("unet.up_blocks.0.resnets.0.", "unet.up_blocks.0.attentions.0."), 0.25),
            (("unet.up_blocks.0.",), 1.5),
            (("unet.up_blocks.1.resnets.0.",), 0.7),
            (("unet.up_blocks.1.",), -0.2),
        ),
    ),
    "text_encoder": ("sd2", tuple(((f"text_encoder.encoder.layers.{place}.",), place - 0.5) for place in range(3))),
    "transformer": (
        "flux1",
        (
            (("transformer.transformer_blocks.0.",), 0.5),
            (("transformer.single_transformer_blocks.0.",), 0.0),
            (("transformer.single_transformer_blocks.1.",), -1.0),
        ),
    ),
}
"""The beginnings of layers' names in each block, and the block's weight; the first that fits counts."""


@pytest.mark.parametrize("component", list(BLOCKS))
def test_a_blocks_weight_multiplies_the_differences_of_its_layers(
    component: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, weights = BLOCKS[component]
    family = Loaded(write_tiny_family(name, tmp_path_factory.mktemp("families") / name))
    tensors = in_peft(family, (*UNET, *CONVOLUTIONS)) if name == "sd2" else in_peft_of_transformer(family)

    def scaled(key: str, tensor: Tensor) -> Tensor:
        plain = key.replace("text_model.", "")
        return tensor * next((one for start, one in weights if plain.startswith(start) and "lora_B" in key), 1.0)

    lora = lora_model(tmp_path / "it.safetensors", tensors)
    same = lora_model(tmp_path / "same.safetensors", {key: scaled(key, one) for key, one in tensors.items()})
    blocks = tuple(weight for _, weight in weights)
    found = [
        final_latents(family.ours, asked(family), ours(family, one))
        for one in ((lora, by_block(lora, component, blocks)), (same, resolved(same)), (lora, resolved(lora)))
    ]
    assert gap(found[0], found[1]) < TOLERANCE
    assert gap(found[0], found[2]) > 10 * TOLERANCE
