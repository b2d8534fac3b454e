"""LoRAs of transformers in our engine against diffusers' `load_lora_weights` with the same file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.trajectory import walk_together
from tests.domains.inference.on_device.lora_files import layers, lora_model, matrices, resolved
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, begun, gap
from tests.domains.inference.on_device.test_loras import TEXT, Tensors, ours, theirs
from tests.domains.inference.on_device.tiny_families import write_tiny_family

ENDS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "to_add_out", "net.0.proj", "net.2", "proj_mlp", "proj_out")
WITH_TEXT = ("sd3", "flux1")
"""Families whose CLIP encoders diffusers changes too."""


@pytest.fixture(scope="module", params=["sd3", "flux1", "chroma", "auraflow", "z_image"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("families") / name))


def in_peft(family: Loaded, prefix: str = "transformer.") -> Tensors:
    torch.manual_seed(1)
    found: Tensors = {}
    for path, layer in layers(family.ours.modules["transformer"], ENDS).items():
        found[f"{prefix}{path}.lora_A.weight"], found[f"{prefix}{path}.lora_B.weight"] = matrices(layer, 4)
    for path, layer in layers(family.ours.modules["text_encoder"], TEXT).items():
        if family.model.family in WITH_TEXT:
            stem = f"text_encoder.text_model.{path.removeprefix('text_model.')}"
            found[f"{stem}.lora_A.weight"], found[f"{stem}.lora_B.weight"] = matrices(layer, 4)
    return found


def test_the_latents_are_those_of_diffusers_with_the_same_file(family: Loaded, tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    lora = lora_model(path, in_peft(family))
    found = final_latents(family.ours, asked(family), ours(family, (lora, resolved(lora, 0.7))))
    assert gap(found, theirs(family, path, 0.7)) < TOLERANCE
    plain = final_latents(family.ours, asked(family))
    assert gap(found, plain) > 10 * TOLERANCE


def test_jobs_with_and_without_a_lora_do_not_disturb_each_other(family: Loaded, tmp_path: Path) -> None:
    lora = lora_model(tmp_path / "it.safetensors", in_peft(family))
    mixed = [ours(family, (lora, resolved(lora, weight))) for weight in (0.7, 0.0, -0.5)]
    alone = [final_latents(family.ours, asked(family), adapters) for adapters in mixed]
    with torch.inference_mode():
        group = [begun(family, asked(family), adapters) for adapters in mixed]
        while not group[0].done:
            walk_together(group)
    for one, latents in zip(group, alone, strict=True):
        assert gap(one.latents, latents) < TOLERANCE


def of_flux_in_kohya(**more: Tensor) -> Tensors:
    """A LoRA of the attention of the first double block, whose query, key and value are one layer in kohya's format."""
    torch.manual_seed(1)
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {"lora_down.weight": torch.randn(4, 32) / 4, "lora_up.weight": torch.randn(96, 4) / 4}
    return {f"{stem}.{end}": one for end, one in {**tensors, "alpha": torch.tensor(8.0), **more}.items()}


def test_a_file_of_kohya_for_flux_counts_as_in_diffusers(family: Loaded, tmp_path: Path) -> None:
    if family.model.family != "flux1":
        pytest.skip("diffusers converts kohya's names for FLUX.1 alone")
    path = tmp_path / "it.safetensors"
    lora = lora_model(path, of_flux_in_kohya())
    found = final_latents(family.ours, asked(family), ours(family, (lora, resolved(lora))))
    assert gap(found, theirs(family, path)) < TOLERANCE
    assert gap(found, final_latents(family.ours, asked(family))) > 10 * TOLERANCE


@pytest.mark.parametrize("case", ["lengths", "other_names"])
def test_what_diffusers_does_not_convert_is_refused_by_name(family: Loaded, case: str, tmp_path: Path) -> None:
    tensors = of_flux_in_kohya(dora_scale=torch.ones(96, 1))
    name = "lora_unet_double_blocks_0_img_attn_qkv.dora_scale"
    if case == "other_names":
        name = "nowhere"
        tensors = {f"lora_unet_nowhere_0_to_q.lora_{end}.weight": torch.ones(2, 2) for end in ("down", "up")}
    lora = lora_model(tmp_path / "it.safetensors", tensors)
    with pytest.raises(FailedPrecondition) as refused:
        ours(family, (lora, resolved(lora)))
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert name in refused.value.message
