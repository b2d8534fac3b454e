"""LoRAs in our engine against diffusers' `load_lora_weights` with the same file, on random weights."""

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.kept_file import KeptFile
from domains.inference.loras import ResolvedLora
from domains.inference.on_device.adapters import AdapterPool, Adapters, Asked
from domains.inference.on_device.checkpoint import packed, unpack
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import walk_together
from domains.model.model import Model
from tests.domains.inference.on_device.lora_files import (
    CONVOLUTIONS,
    TEXT,
    UNET,
    kohya,
    layers,
    lora_model,
    matrices,
    resolved,
)
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, begun, gap, their_latents
from tests.domains.inference.on_device.tiny_families import write_tiny_family

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module", params=["sd2", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("families") / name))


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(write_tiny_family("sd2", tmp_path_factory.mktemp("families") / "sd2"))


def encoders(family: Loaded) -> list[str]:
    return [name for name in family.ours.modules if name.startswith("text_encoder")]


def every_layer(family: Loaded, unet: tuple[str, ...] = UNET) -> dict[tuple[str, str], nn.Module]:
    wanted = {"unet": unet} | dict.fromkeys(encoders(family), TEXT)
    return {
        (component, path): layer
        for component, ends in wanted.items()
        for path, layer in layers(family.ours.modules[component], ends).items()
    }


def kohya_name(family: Loaded, component: str, path: str) -> str:
    if component == "text_encoder" and family.model.family == "sdxl":
        return "lora_te1_text_model_" + path.replace(".", "_")
    middle = "text_model_" if component != "unet" else ""
    return kohya(component, middle + path.removeprefix("text_model."))


def in_kohya(family: Loaded, unet: tuple[str, ...] = UNET, **more: float) -> Tensors:
    """A LoRA of rank 4 for every layer; `alpha` as asked."""
    torch.manual_seed(1)
    found: Tensors = {}
    for (component, path), layer in every_layer(family, unet).items():
        name = kohya_name(family, component, path)
        found[f"{name}.lora_down.weight"], found[f"{name}.lora_up.weight"] = matrices(layer, 4)
        if "alpha" in more:
            found[f"{name}.alpha"] = torch.tensor(more["alpha"])
    return found


def in_peft(family: Loaded, unet: tuple[str, ...] = UNET) -> Tensors:
    torch.manual_seed(1)
    found: Tensors = {}
    for (component, path), layer in every_layer(family, unet).items():
        name = f"{component}.{'text_model.' if component != 'unet' else ''}{path.removeprefix('text_model.')}"
        found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"] = matrices(layer, 4)
    return found


def ours(family: Loaded, *loras: tuple[Model, ResolvedLora], pool: AdapterPool | None = None) -> Adapters:
    return (pool or AdapterPool()).adapters(Asked([(lora, entry) for entry, lora in loras]), family.ours)


def theirs(family: Loaded, path: Path, weight: Any = 1.0, **changes: Any) -> Tensor:
    """The latents of diffusers' pipeline with the file."""
    pipe = family.theirs
    pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="it")
    try:
        pipe.set_adapters(["it"], [weight])
        return their_latents(family, asked(family, **changes))
    finally:
        pipe.unload_lora_weights()


FILES: Mapping[str, Callable[[Loaded], Tensors]] = {
    "kohya_with_alpha": lambda family: in_kohya(family, alpha=2.0),
    "kohya_without_alpha": in_kohya,
    "kohya_with_convolutions": lambda family: in_kohya(family, (*UNET, *CONVOLUTIONS), alpha=2.0),
    "diffusers": in_peft,
}


@contextmanager
def fused(family: Loaded, weights: Mapping[tuple[str, str], Tensor]) -> Generator[None]:
    """Diffusers' pipeline with other weights in these layers."""
    found = [(getattr(family.theirs, component).get_submodule(path), one) for (component, path), one in weights.items()]
    before = [layer.weight.detach().clone() for layer, _ in found]
    try:
        for layer, weight in found:
            layer.weight.data.copy_(weight)
        yield
    finally:
        for (layer, _), weight in zip(found, before, strict=True):
            layer.weight.data.copy_(weight)


Change = Callable[[Tensor, nn.Module, int], tuple[Tensors, Tensor]]
"""Makes the tensors for a layer, by the ends of their names, and the weight that it then has."""


def _low_rank(rank: int, alpha: Tensor | None, scale: float) -> Change:
    def make(weight: Tensor, layer: nn.Module, number: int) -> tuple[Tensors, Tensor]:
        down, up = (one / (rank / 4) ** 0.5 / abs(scale) ** 0.5 for one in matrices(layer, rank))
        tensors = {"lora_down.weight": down, "lora_up.weight": up}
        if alpha is not None:
            tensors["alpha"] = alpha
        return tensors, weight + scale * (up.flatten(1) @ down.flatten(1)).view(weight.shape)

    return make


def _in_turn(*changes: Change) -> Change:
    return lambda weight, layer, number: changes[number % len(changes)](weight, layer, number)


def _tucker(weight: Tensor, layer: nn.Module, number: int) -> tuple[Tensors, Tensor]:
    if weight.dim() < 4 or weight.shape[-1] == 1:
        return _low_rank(4, None, 1.0)(weight, layer, number)
    down, core, up = (
        torch.randn(4, weight.shape[1], 1, 1),
        torch.randn(4, 4, 3, 3),
        torch.randn(weight.shape[0], 4, 1, 1),
    )
    down, core, up = down / 2, core / 4, up / 4
    whole = torch.einsum("or,rskl,si->oikl", up[:, :, 0, 0], core, down[:, :, 0, 0])
    return {"lora_down.weight": down, "lora_mid.weight": core, "lora_up.weight": up}, weight + whole


def _dora(weight: Tensor, layer: nn.Module, number: int) -> tuple[Tensors, Tensor]:
    tensors, changed = _low_rank(4, torch.tensor(8.0), 2.0)(weight, layer, number)
    lengths = torch.rand(weight.shape[0]) + 0.5
    rows = changed.flatten(1)
    whole = (lengths[:, None] * rows / rows.norm(dim=1, keepdim=True)).view(weight.shape)
    return {**tensors, "dora_scale": lengths.view(-1, *[1] * (weight.dim() - 1))}, whole


def _loha(weight: Tensor, layer: nn.Module, number: int) -> tuple[Tensors, Tensor]:
    (b1, a1), (b2, a2) = ([one.flatten(1) for one in matrices(layer, 4)] for _ in range(2))
    whole = 0.5 * ((a1 @ b1) * (a2 @ b2)).view(weight.shape)
    names = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(2.0)}
    return names, weight + whole


def _lokr(weight: Tensor, layer: nn.Module, number: int) -> tuple[Tensors, Tensor]:
    first = torch.randn(4, 2) / 4
    second = (weight.shape[0] // 4, weight.shape[1] // 2, *weight.shape[2:])
    a, b = torch.randn(second[0], 2) / 4, torch.randn(2, weight[0].numel() // 2) / 4
    whole = 1.5 * torch.kron(first.view(4, 2, *[1] * (weight.dim() - 2)), (a @ b).view(second))
    if number % 2 or weight.dim() == 4:
        return {"lokr_w1": first, "lokr_w2": (a @ b).view(second), "alpha": torch.tensor(7.0)}, weight + whole / 1.5
    return {"lokr_w1": first, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(3)}, weight + whole


CHANGES: Mapping[str, Change] = {
    "no_alpha_is_a_scale_of_1": _low_rank(4, None, 1.0),
    "alpha_64_at_rank_16_is_a_scale_of_4": _low_rank(16, torch.tensor(64.0), 4.0),
    "each_of_mixed_ranks_has_its_scale": _in_turn(
        _low_rank(64, torch.tensor(32.0), 0.5), _low_rank(16, torch.tensor(32.0), 2.0)
    ),
    "each_layer_has_its_alpha": _in_turn(
        _low_rank(8, torch.tensor(4.0), 0.5), _low_rank(8, torch.tensor(16.0), 2.0), _low_rank(8, None, 1.0)
    ),
    "an_alpha_is_an_integer": _low_rank(16, torch.tensor(64, dtype=torch.int64), 4.0),
    "half_precision": _low_rank(4, torch.tensor(2.0, dtype=torch.bfloat16), 0.5),
    "tucker": _tucker,
    "dora": _dora,
    "loha": _loha,
    "lokr": _lokr,
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_each_algorithm_has_the_weights_of_its_definition(sd2: Loaded, change: str, tmp_path: Path) -> None:
    """Diffusers itself drops dora_scale and alphas by layer, and cannot read LoHa and LoKr."""
    torch.manual_seed(2)
    tensors, weights = dict[str, Tensor](), dict[tuple[str, str], Tensor]()
    for number, ((component, path), layer) in enumerate(every_layer(sd2, (*UNET, *CONVOLUTIONS)).items()):
        weight: Tensor = layer.weight.detach()  # pyright: ignore
        own, weights[component, path] = CHANGES[change](weight, layer, number)
        tensors |= {f"{kohya_name(sd2, component, path)}.{end}": one for end, one in own.items()}
    lora = lora_model(tmp_path / "it.safetensors", tensors)
    found = final_latents(sd2.ours, asked(sd2), ours(sd2, (lora, resolved(lora))))
    with fused(sd2, weights):
        assert gap(found, their_latents(sd2, asked(sd2))) < TOLERANCE
    assert gap(found, final_latents(sd2.ours, asked(sd2))) > 10 * TOLERANCE


@pytest.mark.parametrize("kind", list(FILES))
def test_the_latents_are_those_of_diffusers_with_the_same_file(family: Loaded, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    lora = lora_model(path, FILES[kind](family))
    plain = final_latents(family.ours, asked(family))
    found = final_latents(family.ours, asked(family), ours(family, (lora, resolved(lora, 0.7))))
    assert gap(found, theirs(family, path, 0.7)) < TOLERANCE
    assert gap(found, plain) > 10 * TOLERANCE
    assert torch.equal(final_latents(family.ours, asked(family)), plain)


@pytest.mark.parametrize("weights", [{"unet": 0.3}, {"unet": 0.0, "text_encoder": 1.5}], ids=["unet", "text"])
def test_each_component_has_its_weight(sd2: Loaded, weights: dict[str, float], tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    lora = lora_model(path, in_kohya(sd2, alpha=2.0))
    found = final_latents(sd2.ours, asked(sd2), ours(sd2, (lora, resolved(lora, 0.6, **weights))))
    assert gap(found, theirs(sd2, path, {"unet": 0.6, "text_encoder": 0.6} | weights)) < TOLERANCE


def in_comfyui(family: Loaded) -> Tensors:
    """The tensors of `in_kohya`, with the names that ComfyUI writes."""
    torch.manual_seed(1)
    found: Tensors = {}
    for (component, path), layer in every_layer(family).items():
        start = "text_encoders.clip_l.transformer.text_model." if component != "unet" else "diffusion_model."
        found[f"{start}{path}.lora_down.weight"], found[f"{start}{path}.lora_up.weight"] = matrices(layer, 4)
    return found


def test_a_file_of_comfyui_counts_as_one_of_kohya(sd2: Loaded, tmp_path: Path) -> None:
    found = [
        final_latents(sd2.ours, asked(sd2), ours(sd2, (lora, resolved(lora))))
        for lora in (
            lora_model(tmp_path / "comfyui.safetensors", in_comfyui(sd2)),
            lora_model(tmp_path / "kohya.safetensors", in_kohya(sd2)),
        )
    ]
    assert torch.equal(*found)


def test_settings_of_peft_give_the_scale(sd2: Loaded, tmp_path: Path) -> None:
    settings = {"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    scaled = lora_model(tmp_path / "scaled.safetensors", in_peft(sd2), metadata)
    alphas = {
        f"{name.removesuffix('.lora_A.weight')}.alpha": torch.tensor(2.0 if "attn1.to_q" in name else 8.0)
        for name in in_peft(sd2)
        if name.startswith("unet") and "lora_A" in name
    }
    same = lora_model(tmp_path / "same.safetensors", in_peft(sd2) | alphas)
    found = [final_latents(sd2.ours, asked(sd2), ours(sd2, (lora, resolved(lora)))) for lora in (scaled, same)]
    assert torch.equal(*found)


def test_the_model_has_the_same_bits_afterwards(sd2: Loaded, tmp_path: Path) -> None:
    def bits() -> dict[str, Tensor]:
        return {
            f"{part}.{name}": one
            for part, module in sd2.ours.modules.items()
            for name, one in module.state_dict().items()
        }

    before = {name: one.clone() for name, one in bits().items()}
    plain = final_latents(sd2.ours, asked(sd2))
    lora = lora_model(tmp_path / "it.safetensors", in_kohya(sd2, (*UNET, *CONVOLUTIONS)))
    final_latents(sd2.ours, asked(sd2), ours(sd2, (lora, resolved(lora))))
    after = bits()
    assert before.keys() == after.keys()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    assert torch.equal(final_latents(sd2.ours, asked(sd2)), plain)


def test_jobs_with_different_loras_share_forwards(family: Loaded, tmp_path: Path) -> None:
    first = lora_model(tmp_path / "first.safetensors", in_kohya(family))
    second = lora_model(tmp_path / "second.safetensors", in_kohya(family, CONVOLUTIONS, alpha=3.0))
    pool = AdapterPool()
    mixed = [
        ours(family, (first, resolved(first)), pool=pool),
        ours(family, pool=pool),
        ours(family, (second, resolved(second, -0.5)), (first, resolved(first, 0.2)), pool=pool),
        ours(family, (first, resolved(first, 0.4)), pool=pool),
    ]
    alone = [final_latents(family.ours, asked(family), adapters) for adapters in mixed]
    with torch.inference_mode():
        group = [begun(family, asked(family), adapters) for adapters in mixed]
        while not group[0].done:
            walk_together(group)
    for one, latents in zip(group, alone, strict=True):
        assert gap(one.latents, latents) < TOLERANCE


def test_a_content_is_held_once_and_the_oldest_goes_first(sd2: Loaded, tmp_path: Path) -> None:
    tensors = in_kohya(sd2)
    size = sum(one.nbytes for one in tensors.values())
    first, again = (lora_model(tmp_path / f"{name}.safetensors", tensors) for name in ("first", "again"))
    other = lora_model(tmp_path / "other.safetensors", in_kohya(sd2, alpha=1.0))
    pool = AdapterPool(most_bytes=size)
    for lora in (first, again):
        ours(sd2, (lora, resolved(lora)), pool=pool)
        assert pool.held_bytes() == size
    Path(first.folder).unlink()
    ours(sd2, (first, resolved(first, 0.5)), pool=pool)
    ours(sd2, (other, resolved(other)), pool=pool)
    with pytest.raises(FailedPrecondition) as gone:
        ours(sd2, (first, resolved(first)), pool=pool)
    assert gone.value.reason is ErrorReason.COMPONENT_MISSING


def test_what_fits_a_model_goes_with_the_model_and_the_file_stays(sd2: Loaded, tmp_path: Path) -> None:
    """A Tucker decomposition is computed together for a model, so it has bytes of its own."""
    stem = "lora_unet_down_blocks_1_resnets_0_conv1"
    parts = {"lora_down": (2, 16, 1, 1), "lora_mid": (2, 2, 3, 3), "lora_up": (32, 2, 1, 1)}
    lora = lora_model(
        tmp_path / "it.safetensors", {f"{stem}.{name}.weight": torch.ones(shape) for name, shape in parts.items()}
    )
    pool, size = AdapterPool(), sum(torch.ones(shape).nbytes for shape in parts.values())
    ours(sd2, (lora, resolved(lora)), pool=pool)
    fitted = 2 * 16 * 3 * 3 * 4
    assert pool.held_bytes() == size + fitted
    pool.keep_models({sd2.model.sha256})
    assert pool.held_bytes() == size + fitted
    pool.keep_models({"another"})
    assert pool.held_bytes() == size
    ours(sd2, (lora, resolved(lora)), pool=pool)
    assert pool.held_bytes() == size + fitted
    pool.clear()
    assert pool.held_bytes() == 0


def test_prompts_are_encoded_again_for_other_loras_of_the_text_encoders(sd2: Loaded, tmp_path: Path) -> None:
    lora = lora_model(tmp_path / "it.safetensors", in_kohya(sd2))
    unet_alone = lora_model(
        tmp_path / "unet.safetensors", {name: one for name, one in in_kohya(sd2).items() if "lora_unet" in name}
    )
    prompts, view = PromptCache(), family_of(sd2.ours)

    def hits(adapters: Adapters) -> int:
        with torch.inference_mode():
            return condition(sd2.ours, view, asked(sd2), prompts, adapters).cache_hits

    assert hits(ours(sd2)) == 0
    assert hits(ours(sd2, (unet_alone, resolved(unet_alone)))) == 2
    assert hits(ours(sd2, (lora, resolved(lora)))) == 0
    assert hits(ours(sd2, (lora, resolved(lora, 0.5)))) == 0
    assert hits(ours(sd2, (lora, resolved(lora)))) == 2
    assert hits(ours(sd2, (lora, resolved(lora, 1.0, text_encoder=0.0)))) == 2


Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
TE2 = "lora_te2_text_model_encoder_layers_0_mlp_fc1"


def pair(name: str, **more: Tensor) -> Tensors:
    """A LoRA of one layer, and more tensors for it."""
    both = {"lora_down.weight": torch.ones(2, 32), "lora_up.weight": torch.ones(32, 2)}
    return {f"{name}.{end}": one for end, one in (both | more).items()}


MISFITS: Mapping[str, tuple[Tensors, str]] = {
    "no_such_layer": (pair("lora_unet_nowhere_to_q"), "lora_unet_nowhere_to_q.lora_down.weight"),
    "one_of_two_layers": ({**pair(Q), **pair(f"{Q}_0")}, f"{Q}_0.lora_down.weight"),
    "other_width": (pair(Q) | {f"{Q}.lora_down.weight": torch.ones(2, 320)}, f"{Q}.lora_down.weight"),
    "half_a_pair": ({f"{Q}.lora_down.weight": torch.ones(2, 32)}, f"{Q}.lora_down.weight"),
    "whole_difference": ({f"{Q}.diff": torch.ones(32, 32)}, f"{Q}.diff"),
    "bias": (pair(Q, diff_b=torch.ones(32)), f"{Q}.diff_b"),
    "lengths_of_inputs": (pair(Q, dora_scale=torch.ones(1, 32)), f"{Q}.dora_scale"),
    "another_component": (pair(TE2), f"{TE2}.lora_down.weight"),
    "words": (pair(Q) | {"bundle_emb.owl.string_to_param.*": torch.ones(1, 32)}, "bundle_emb.owl"),
}


@pytest.mark.parametrize("misfit", list(MISFITS))
def test_what_does_not_fit_is_refused_by_name(sd2: Loaded, misfit: str, tmp_path: Path) -> None:
    tensors, name = MISFITS[misfit]
    lora = lora_model(tmp_path / "misfit.safetensors", tensors)
    with pytest.raises(FailedPrecondition) as refused:
        ours(sd2, (lora, resolved(lora)))
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert all(word in refused.value.message for word in (lora.id, sd2.model.id, name))


def test_a_file_that_changed_since_the_request_is_refused(sd2: Loaded, tmp_path: Path) -> None:
    asked_for = resolved(lora_model(tmp_path / "it.safetensors", in_kohya(sd2)))
    other = lora_model(tmp_path / "it.safetensors", in_kohya(sd2, alpha=1.0))
    with pytest.raises(FailedPrecondition) as refused:
        ours(sd2, (other, asked_for))
    assert refused.value.reason is ErrorReason.ILLEGAL_STATE


def test_progress_made_with_other_loras_is_continued_by_a_branch_alone(sd2: Loaded, tmp_path: Path) -> None:
    lora = lora_model(tmp_path / "it.safetensors", in_kohya(sd2))
    wanted = asked(sd2, loras=(resolved(lora, 0.5),))
    with torch.inference_mode():
        walked = begun(sd2, wanted, ours(sd2, (lora, resolved(lora, 0.5))))
        walk_together([walked])
        kept = packed(walked, wanted)
        (tmp_path / "kept").write_bytes(kept)
        again = begun(sd2, wanted, ours(sd2, (lora, resolved(lora, 0.5))))
        file = KeptFile(path=str(tmp_path / "kept"), sha256=hashlib.sha256(kept).hexdigest())
        unpack(file, wanted, again)
        assert torch.equal(again.latents, walked.latents)
        other = asked(sd2, loras=(resolved(lora, 0.6),))
        with pytest.raises(FailedPrecondition, match="loras differ"):
            unpack(file, other, begun(sd2, other))
        branch = begun(sd2, other)
        unpack(msgspec.structs.replace(file, branched=True), other, branch)
        assert torch.equal(branch.latents, walked.latents)
