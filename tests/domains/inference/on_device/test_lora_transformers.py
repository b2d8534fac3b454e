"""LoRAs of transformers in our engine against diffusers' `load_lora_weights` with the same file."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.trajectory import walk_together
from tests.domains.inference.on_device.lora_files import layers, lora_model, matrices, resolved
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, begun, gap, their_latents
from tests.domains.inference.on_device.test_loras import CHANGES, TEXT, Tensors, fused, ours, theirs
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


def applied(family: Loaded, tensors: Tensors, weights: Mapping[tuple[str, str], Tensor], folder: Path) -> None:
    """The latents with the file are those of diffusers with these weights."""
    lora = lora_model(folder / "it.safetensors", tensors)
    found = final_latents(family.ours, asked(family), ours(family, (lora, resolved(lora))))
    with fused(family, weights):
        assert gap(found, their_latents(family, asked(family))) < TOLERANCE
    assert gap(found, final_latents(family.ours, asked(family))) > 10 * TOLERANCE


@pytest.mark.parametrize("start", ["transformer.", "lycoris_"])
@pytest.mark.parametrize("change", ["loha", "lokr", "dora"])
def test_each_algorithm_has_the_weights_of_its_definition(
    family: Loaded, change: str, start: str, tmp_path: Path
) -> None:
    if family.model.family not in WITH_TEXT:
        pytest.skip("the names of their layers are read by the same code")
    torch.manual_seed(2)
    tensors, weights = Tensors(), dict[tuple[str, str], Tensor]()
    for number, (path, layer) in enumerate(layers(family.ours.modules["transformer"], ENDS).items()):
        weight: Tensor = layer.weight.detach()  # pyright: ignore
        own, weights["transformer", path] = CHANGES[change](weight, layer, number)
        name = path if start.endswith(".") else path.replace(".", "_")
        tensors |= {f"{start}{name}.{end}": one for end, one in own.items()}
    applied(family, tensors, weights, tmp_path)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("change", ["loha", "lokr", "dora"])
def test_query_key_and_value_get_their_rows_of_one_matrix(
    family: Loaded, change: str, number: int, tmp_path: Path
) -> None:
    """In kohya's format. 24 rows of a Kronecker product belong together, and 32 are the query's."""
    if family.model.family != "flux1":
        pytest.skip("diffusers converts kohya's names for FLUX.1 alone")
    torch.manual_seed(2)
    attention = family.ours.modules["transformer"].get_submodule("transformer_blocks.0.attn")
    whole = nn.Linear(32, 96, bias=False)
    whole.weight.data = torch.cat(
        [attention.get_parameter(f"{name}.weight") for name in ("to_q", "to_k", "to_v")]
    ).detach()
    own, weight = CHANGES[change](whole.weight.detach(), whole, number)
    if change == "loha":
        # Of one layer alone it would hardly show.
        own["alpha"], weight = own["alpha"] * 20, whole.weight.detach() + 20 * (weight - whole.weight.detach())
    paths = [("transformer", f"transformer_blocks.0.attn.{name}") for name in ("to_q", "to_k", "to_v")]
    tensors = {f"lora_unet_double_blocks_0_img_attn_qkv.{end}": one for end, one in own.items()}
    applied(family, tensors, dict(zip(paths, weight.split(32), strict=True)), tmp_path)


@pytest.mark.parametrize("dora", [False, True])
def test_what_diffusers_does_not_convert_is_refused_by_name(family: Loaded, dora: bool, tmp_path: Path) -> None:
    tensors = {f"lora_unet_nowhere_0_to_q.lora_{end}.weight": torch.ones(2, 2) for end in ("down", "up")}
    if dora:
        tensors["lora_unet_nowhere_0_to_q.dora_scale"] = torch.ones(2, 1)
    lora = lora_model(tmp_path / "it.safetensors", tensors)
    with pytest.raises(FailedPrecondition) as refused:
        ours(family, (lora, resolved(lora)))
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert "nowhere" in refused.value.message
