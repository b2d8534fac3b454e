"""Which layers of a denoiser or a text encoder stay on a device that does not hold all of them."""

import math
from collections.abc import Mapping

import pytest

from domains.model.layers import MOST_LAYERS, LayerPlan, layer_of, layer_plan, layer_plans, layer_sizes, module_of
from tests.domains.model.published import header

SIX = {"in.weight": 10, **{f"layers.{number}.{part}": 50 for number in range(6) for part in ("a", "b")}, "out.bias": 10}
"""Six layers of 100 bytes, and 20 bytes that are in none."""
DENOISERS = (
    *("sd1_unet", "sd2_unet", "sdxl_unet", "sdxl_refiner_unet", "sd3_transformer", "sd35_large_transformer"),
    *("flux1_dev_transformer", "chroma_transformer", "auraflow_transformer", "z_image_transformer"),
)
SINGLE = {
    "sd1_single": "sd1_unet",
    "sd2_single": "sd2_unet",
    "sdxl_single": "sdxl_unet",
    "sdxl_refiner_single": "sdxl_refiner_unet",
    "sd3_single": "sd3_transformer",
    "flux1_dev_original": "flux1_dev_transformer",
}
"""Headers of single files, and of the same denoisers in folders."""
_PREFIX = "model.diffusion_model."


def sizes(name: str) -> dict[str, int]:
    """Bytes of a published denoiser in half precision."""
    every = header(name)
    own = {key.removeprefix(_PREFIX): shape for key, shape in every.items() if key.startswith(_PREFIX)}
    return {key: 2 * math.prod(shape) for key, shape in (own or every).items()}


def planned(tensors: Mapping[str, int], budget: int, component: str = "") -> LayerPlan:
    return layer_plan(layer_sizes(tensors, component), budget)


@pytest.mark.parametrize(
    ("budget", "streamed"),
    [
        (10_000, ()),
        (620, ()),
        (619, (1, 2, 4, 5)),
        (420, (1, 2, 4, 5)),
        (419, range(6)),
        (220, range(6)),
        (0, range(6)),
    ],
)
def test_as_few_layers_as_possible_are_streamed_and_they_are_spread(budget: int, streamed: tuple[int, ...]) -> None:
    plan = planned(SIX, budget)
    assert [layer[-1] for layer in plan.streamed] == [*streamed]
    stay = 20 + 100 * (6 - len(plan.streamed))
    assert plan.resident_bytes == stay
    assert plan.total_bytes == stay + (200 if streamed else 0)


def test_a_plan_holds_the_budget_if_any_does_and_two_layers_in_a_row_never_share_a_place() -> None:
    every = sizes("sdxl_unet")
    least = planned(every, 0).total_bytes
    for share in range(0, 21):
        budget = sum(every.values()) * share // 20
        plan = planned(every, budget)
        assert plan.total_bytes <= max(budget, least)
        assert len(plan.streamed) % 2 == 0
        of_layer = dict.fromkeys(plan.layers, 0)
        for name, size in every.items():
            if (layer := layer_of(name)) is not None:
                of_layer[layer] += size
        assert all(of_layer[layer] <= plan.places[at % 2] for at, layer in enumerate(plan.streamed))


def test_a_file_with_thousands_of_layers_costs_no_plan_and_no_network_has_so_many() -> None:
    # Plans take time as the square of the layers, and the event loop makes them: 8,000 layers took it 8 seconds.
    for count, known in ((MOST_LAYERS, MOST_LAYERS), (MOST_LAYERS + 1, 0), (32_768, 0)):
        found = layer_sizes({"in.weight": 1, **{f"layers.{number}.weight": 2 for number in range(count)}})
        assert len(found.of_layer) == known
        assert found.rest == (1 if known else 1 + 2 * count)
        assert planned({f"layers.{number}.weight": 2 for number in range(count)}, 0).total_bytes == (
            4 if known else 2 * count
        )
    assert max(len(planned(sizes(name), 0).layers) for name in DENOISERS) < MOST_LAYERS / 2


@pytest.mark.parametrize("name", DENOISERS)
def test_almost_all_of_every_denoiser_is_in_layers(name: str) -> None:
    every = sizes(name)
    assert planned(every, 0).total_bytes < 0.25 * sum(every.values())
    for tensor in every:
        assert (layer_of(tensor) is None) == (module_of(tensor) == ""), tensor


@pytest.mark.parametrize(
    ("name", "layers", "resident"),
    [
        # A third of CLIP L are its words.
        ("clip_l_text_encoder", 12, 0.45),
        ("open_clip_h_text_encoder", 23, 0.30),
        ("open_clip_g_text_encoder", 32, 0.16),
        ("t5_xxl_text_encoder", 24, 0.15),
    ],
)
def test_the_layers_of_text_encoders_are_known(name: str, layers: int, resident: float) -> None:
    every = sizes(name)
    plan = planned(every, 0, "text_encoder_2")
    assert (len(plan.layers), len(plan.streamed)) == (layers, layers - layers % 2)
    assert plan.total_bytes < resident * sum(every.values())
    for tensor in every:
        known = layer_of(tensor, "text_encoder"), module_of(tensor, "text_encoder")
        assert (known[0] is None) == (known[1] == ""), tensor


@pytest.mark.parametrize(
    ("single", "prefix", "component"),
    [
        ("sd1_single", "cond_stage_model.transformer.", "clip_l_text_encoder"),
        ("sdxl_single", "conditioner.embedders.0.transformer.", "clip_l_text_encoder"),
        ("sdxl_single", "conditioner.embedders.1.model.", "open_clip_g_text_encoder"),
    ],
)
def test_a_text_encoder_of_a_single_file_has_the_plan_of_the_folder(single: str, prefix: str, component: str) -> None:
    every = header(single)
    own = {name.removeprefix(prefix): shape for name, shape in every.items() if name.startswith(prefix)}
    theirs = {name: 2 * math.prod(shape) for name, shape in own.items()}
    folder = sizes(component)
    for budget in (0, sum(folder.values()) // 2):
        plans = [planned(one, budget, "text_encoder") for one in (theirs, folder)]
        assert plans[0].streamed == plans[1].streamed
        assert plans[0].total_bytes == pytest.approx(plans[1].total_bytes, rel=0.01)


def test_text_encoders_share_the_budget_of_their_turn_and_the_smaller_one_keeps_its_layers_first() -> None:
    small = {name: size // 10 for name, size in SIX.items()}
    sizes_of = {"text_encoder_2": SIX, "text_encoder": small, "transformer": SIX}
    every = {one: layer_sizes(tensors, one) for one, tensors in sizes_of.items()}

    def totals(budget: int) -> dict[str, int]:
        return {one: plan.total_bytes for one, plan in layer_plans(every, budget).items()}

    # The least of the larger one is 220.
    assert totals(682) == {"text_encoder": 62, "text_encoder_2": 620, "transformer": 620}
    assert totals(681) == {"text_encoder": 62, "text_encoder_2": 420, "transformer": 620}
    assert totals(282) == {"text_encoder": 62, "text_encoder_2": 220, "transformer": 220}
    assert totals(281) == {"text_encoder": 42, "text_encoder_2": 220, "transformer": 220}
    assert totals(0) == {"text_encoder": 22, "text_encoder_2": 220, "transformer": 220}


@pytest.mark.parametrize("single", SINGLE)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_single_file_has_the_plan_of_the_folder(single: str, share: float) -> None:
    folder = sizes(SINGLE[single])
    budget = int(share * sum(folder.values()))
    theirs, ours = planned(sizes(single), budget), planned(folder, budget)
    assert (len(theirs.layers), len(theirs.streamed)) == (len(ours.layers), len(ours.streamed))
    assert theirs.total_bytes == pytest.approx(ours.total_bytes, rel=0.01)


def test_bytes_of_layers_are_their_numbers_by_the_width() -> None:
    found = layer_sizes(SIX).times(2)
    assert (found.rest, [*found.of_layer.values()]) == (40, [200] * 6)


def test_text_encoders_share_one_budget_and_other_components_have_it_whole() -> None:
    small = layer_sizes({f"layers.{at}.a": 10 for at in range(4)}, "text_encoder")
    large = layer_sizes({f"layers.{at}.a": 100 for at in range(4)}, "text_encoder_2")
    both = {"transformer": layer_sizes(SIX), "text_encoder": small, "text_encoder_2": large}
    for budget, told in ((10_000, (620, 40, 400)), (440, (420, 40, 400)), (439, (420, 40, 200)), (0, (220, 20, 200))):
        plans = layer_plans(both, budget)
        assert tuple(plans[name].total_bytes for name in ("transformer", "text_encoder", "text_encoder_2")) == told


@pytest.mark.parametrize(
    ("name", "component", "layer"),
    [
        ("transformer_blocks.3.attn.to_q.weight", "", (5, 3)),
        ("single_transformer_blocks.12.proj.weight", "", (7, 12)),
        ("noise_refiner.1.x", "", (0, 1)),
        ("layers.4.x", "", (8, 4)),
        ("joint_blocks.2.x", "", (2, 2)),
        ("double_blocks.2.x", "", (3, 2)),
        ("single_blocks.2.x", "", (6, 2)),
        ("down_blocks.1.resnets.1.conv1.weight", "", (0, 1, 1, 0, 0)),
        ("down_blocks.1.attentions.0.transformer_blocks.2.norm1.weight", "", (0, 1, 0, 1, 2)),
        ("mid_block.resnets.1.conv1.weight", "", (1, 0, 1, 0, 0)),
        ("up_blocks.2.resnets.0.conv1.weight", "", (2, 2, 0, 0, 0)),
        ("down_blocks.1.resnets.1.time_emb_proj.weight", "", None),
        ("input_blocks.4.1.transformer_blocks.0.x", "", (0, 4, 1, 0)),
        ("middle_block.2.in_layers.0.weight", "", (1, 2, 0, 0)),
        ("output_blocks.5.0.skip_connection.weight", "", (2, 5, 0, 0)),
        ("output_blocks.5.1.transformer_blocks.3.x", "", (2, 5, 1, 3)),
        ("input_blocks.4.0.emb_layers.1.weight", "", None),
        ("conv_in.weight", "", None),
        ("text_model.encoder.layers.7.mlp.fc1.weight", "text_encoder", (7,)),
        ("encoder.block.11.layer.0.x", "text_encoder_2", (11,)),
        ("transformer.resblocks.3.x", "text_encoder_2", (3,)),
        ("embeddings.weight", "text_encoder", None),
    ],
)
def test_a_tensor_belongs_to_the_layer_of_its_name(name: str, component: str, layer: tuple[int, ...] | None) -> None:
    assert layer_of(name, component) == layer
