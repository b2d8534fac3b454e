"""LoRAs of regions: a difference counts where its region does, and text encoders read the region's prompts with it."""

import gc
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from msgspec import structs
from torch import Tensor, nn

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.loras import ResolvedLora
from domains.inference.on_device.adapters import AdapterPool, Adapters, asked_of
from domains.inference.on_device.adapters.beside import Delta
from domains.inference.on_device.adapters.job_adapters import Asked, AskedRegion
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.forwards import Forwards
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.regions import region_maps
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.outcome import RunFinished
from domains.inference.regions import Rectangle, ResolvedRegion
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, load
from tests.domains.inference.on_device.lora_files import CONVOLUTIONS, UNET, lora_model, matrices, resolved
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import reference_pipeline
from tests.domains.inference.on_device.test_every_family import (
    FOG,
    OWL,
    TOLERANCE,
    Loaded,
    asked,
    gap,
    their_latents,
)
from tests.domains.inference.on_device.test_hires import files, hires
from tests.domains.inference.on_device.test_loras import in_kohya, in_peft
from tests.domains.inference.on_device.test_regions import LEFT, RIGHT, ROCKET, WHOLE
from tests.domains.inference.on_device.tiny_families import write_tiny_family

Loras = Sequence[tuple[ResolvedLora, Model]]
TOP = Rectangle(left_px=0, top_px=0, width_px=48, height_px=16)


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Loaded:
    name: str = request.param
    if name == "sd1":
        return Loaded(tiny, reference_pipeline)
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("regional") / name))


@pytest.fixture(scope="module")
def whole(family: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A LoRA of every kind of layer, text encoders included."""
    tensors = {name: 0.3 * one for name, one in in_kohya(family, (*UNET, *CONVOLUTIONS)).items()}
    return lora_model(tmp_path_factory.mktemp("lora") / "whole.safetensors", tensors)


def begun(
    family: Loaded, wanted: ResolvedGeneration, loras: Loras = (), of_regions: Sequence[Loras] = ()
) -> Trajectory:
    """A job before its first step. The LoRAs are put into what it asks for."""
    wanted = structs.replace(
        wanted,
        loras=tuple(lora for lora, _ in loras),
        regions=tuple(
            structs.replace(one, loras=tuple(lora for lora, _ in some))
            for one, some in zip(wanted.regions, of_regions or [()] * len(wanted.regions), strict=True)
        ),
    )
    models = tuple(tuple(model for _, model in some) for some in of_regions)
    given = Given(family.model, wanted, loras=tuple(model for _, model in loras), region_loras=models)
    view, device = family_of(family.ours), family.ours.device
    maps = region_maps(wanted, (None,) * len(wanted.regions), device)
    adapters: Adapters = AdapterPool().adapters(asked_of(given, maps), family.ours)
    found = condition(family.ours, view, wanted, PromptCache(), adapters, maps)
    config = family.ours.scheduler_config
    return begin(view, wanted, config, found.conditions, device, adapters=adapters, renew=found.renew)


def ours(family: Loaded, wanted: ResolvedGeneration, loras: Loras = (), of_regions: Sequence[Loras] = ()) -> Tensor:
    with torch.inference_mode():
        trajectory = begun(family, wanted, loras, of_regions)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


def region(place: Rectangle, prompt: str = OWL, **changes: Any) -> ResolvedRegion:
    return ResolvedRegion(rectangle=place, prompt=prompt, **changes)


CASES: dict[str, dict[str, Any]] = {
    "guided": {},
    "without_guidance": {"guidance_scale": 1.0},
    "two_pictures": {"seeds": (3, 9), "steps": 2},
}


@pytest.mark.parametrize("case", list(CASES))
def test_a_region_over_the_whole_picture_has_the_plain_lora(family: Loaded, whole: Model, case: str) -> None:
    changes, lora = CASES[case], [(resolved(whole, 0.8), whole)]
    plain = ours(family, asked(family, prompt=ROCKET, **changes), lora)
    found = ours(family, asked(family, **changes, regions=(region(WHOLE, ROCKET),)), of_regions=[lora])
    assert gap(found, plain) < TOLERANCE
    assert gap(found, ours(family, asked(family, prompt=ROCKET, **changes))) > 0.01


def test_a_lora_of_a_region_counts_in_the_steps_of_both(family: Loaded, whole: Model) -> None:
    only = resolved(whole, 0.8, text_encoder=0.0, text_encoder_2=0.0)
    late = [(structs.replace(only, end_ratio=0.75), whole)]
    plain = [(structs.replace(only, start_ratio=0.5, end_ratio=0.75), whole)]
    wanted = asked(family, steps=4)
    found = ours(family, structs.replace(wanted, regions=(region(WHOLE, start_ratio=0.5),)), of_regions=[late])
    assert gap(found, ours(family, wanted, plain)) < TOLERANCE
    assert gap(found, ours(family, wanted)) > 0.001


def test_beside_a_lora_of_everywhere_a_region_has_both(family: Loaded, whole: Model) -> None:
    everywhere, own = [(resolved(whole, 0.5), whole)], [(resolved(whole, -0.3), whole)]
    both = ours(family, asked(family, prompt=ROCKET), [*everywhere, *own])
    found = ours(family, asked(family, regions=(region(WHOLE, ROCKET),)), everywhere, [own])
    assert gap(found, both) < TOLERANCE


def test_a_lora_without_weight_or_of_a_region_without_weight_gives_the_bytes_of_none(
    family: Loaded, whole: Model
) -> None:
    plain = ours(family, asked(family))
    lora = [(resolved(whole), whole)]
    weightless = asked(family, regions=(region(LEFT, ROCKET, weight=0.0),))
    assert torch.equal(ours(family, weightless, of_regions=[lora]), plain)
    regions = asked(family, regions=(region(LEFT, ROCKET),))
    without = ours(family, regions)
    assert torch.equal(ours(family, regions, of_regions=[[(resolved(whole, 0.0), whole)]]), without)


def test_outside_of_its_region_a_first_step_is_as_without_the_lora(family: Loaded, tmp_path: Path) -> None:
    """With a LoRA of the last layer alone, whose output nothing mixes over the picture."""
    last = family.ours.modules["unet"].get_submodule("conv_out")
    torch.manual_seed(5)
    down, up = matrices(last, 2)
    file = {"unet.conv_out.lora_A.weight": down, "unet.conv_out.lora_B.weight": up}
    model = lora_model(tmp_path / "last.safetensors", file)
    wanted = asked(family, steps=1, regions=(region(LEFT), region(RIGHT, ROCKET)))
    plain = ours(family, wanted)
    found = ours(family, wanted, of_regions=[[(resolved(model), model)], []])
    half = plain.shape[-1] // 2
    assert torch.equal(found[..., half:], plain[..., half:])
    assert gap(found[..., :half], plain[..., :half]) > 0.01


def masked(file: Mapping[str, Tensor], place: Rectangle, size: tuple[int, int]) -> Mapping[str, Any]:
    """For each layer of a file in peft's names, a hook that adds its difference inside of a rectangle. `size`: (h, w) of the
    latents."""
    where = torch.zeros(1, 1, 32, 48)
    where[..., place.top_px : place.top_px + place.height_px, place.left_px : place.left_px + place.width_px] = 1

    def hook(down: Tensor, up: Tensor) -> Any:
        def after(layer: Any, given: Any, output: Tensor) -> Tensor:
            x = given[0]
            if output.dim() == 4:
                more = F.conv2d(F.conv2d(x, down, None, layer.stride, layer.padding), up)
                return output + more * F.interpolate(where, output.shape[2:], mode="area")
            more = F.linear(F.linear(x, down.flatten(1)), up.flatten(1))
            if output.dim() == 2:
                return output + more * where.mean()
            height, width = size
            while height * width > output.shape[1]:
                height, width = -(-height // 2), -(-width // 2)
            return output + more * F.interpolate(where, (height, width), mode="area").flatten(2).transpose(1, 2)

        return after

    paths = {name.removesuffix(".lora_A.weight") for name in file if name.endswith(".lora_A.weight")}
    return {
        path.removeprefix("unet."): hook(file[f"{path}.lora_A.weight"], file[f"{path}.lora_B.weight"]) for path in paths
    }


@contextmanager
def hooked(unet: nn.Module, hooks: Mapping[str, Any]) -> Generator[None]:
    handles = [unet.get_submodule(path).register_forward_hook(after) for path, after in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_differences_count_by_place_in_every_layer_as_in_diffusers_with_masked_layers(
    family: Loaded, tmp_path: Path
) -> None:
    file = {
        name: 0.3 * one
        for name, one in in_peft(family, (*UNET, *CONVOLUTIONS)).items()
        # What reads prompts is compared where a region is the whole picture.
        if name.startswith("unet.") and ".attn2.to_k." not in name and ".attn2.to_v." not in name
    }
    model = lora_model(tmp_path / "masked.safetensors", file)
    wanted = asked(family)
    # The region has the generation's own prompt, so that the LoRA alone makes it another place.
    found = ours(family, structs.replace(wanted, regions=(region(TOP),)), of_regions=[[(resolved(model), model)]])
    size = family_of(family.ours).latent_shape(48, 32)
    with hooked(family.theirs.unet, masked(file, TOP, (size[1], size[2]))):
        assert gap(found, their_latents(family, wanted)) < TOLERANCE
    assert gap(found, ours(family, wanted, [(resolved(model), model)])) > 0.01


def test_jobs_with_and_without_loras_of_regions_share_forwards(family: Loaded, whole: Model) -> None:
    lora, other = [(resolved(whole, 0.8), whole)], [(resolved(whole, -0.5), whole)]
    mixed: list[tuple[ResolvedGeneration, Loras, Sequence[Loras]]] = [
        (asked(family), [], []),
        (asked(family, regions=(region(LEFT, ROCKET), region(RIGHT, FOG))), [], [lora, other]),
        (asked(family, regions=(region(TOP, ROCKET, weight=0.5),), seeds=(1, 2)), other, [lora]),
        (asked(family, regions=(region(LEFT, ROCKET, end_ratio=0.7),), guidance_scale=1.0), [], [lora]),
        (asked(family), lora, []),
    ]
    alone = [ours(family, *one) for one in mixed]
    with torch.inference_mode():
        group = [begun(family, *one) for one in mixed]
        assert len({one.alike for one in group}) == 1
        while left := [one for one in group if not one.done]:
            walk_together(left)
    for one, expected in zip(group, alone, strict=True):
        assert gap(one.latents, expected) < TOLERANCE


def test_pictures_one_after_the_other_are_the_same(family: Loaded, whole: Model) -> None:
    wanted = asked(family, regions=(region(LEFT, ROCKET),), seeds=(1, 2))
    lora = [[(resolved(whole, 0.8), whole)]]
    with torch.inference_mode():
        trajectory = begun(family, wanted, of_regions=lora)
        trajectory.forwards = Forwards.PICTURE
        while not trajectory.done:
            walk_together([trajectory])
    assert gap(trajectory.latents, ours(family, wanted, of_regions=lora)) < TOLERANCE


def test_a_run_with_a_second_pass_reads_the_loras_of_regions_in_both(family: Loaded, whole: Model) -> None:
    if family.model.family != "sd2":
        return
    loop = Recorder(family.model)
    second = hires(width_px=64, height_px=48)
    wanted = asked(family, regions=(region(LEFT, ROCKET, loras=(resolved(whole, 0.8),)),), hires_pass=second)
    plain = structs.replace(wanted, regions=(region(LEFT, ROCKET),))
    made: list[list[bytes]] = []
    for name, one, loras in (("with", wanted, ((whole,),)), ("without", plain, ())):
        loop.loop.submit(name, Given(loop.loaded.model, one, regions=(None,), region_loras=loras))
        loop.run()
        loop.last(name)
        assert isinstance(loop.reports[name][-1], RunFinished), loop.reports[name][-1]
        made.append(files(loop.reports[name]))
    loop.loop.close()
    assert made[0] != made[1]


def phased(tiny: Model, lora: Model, count: int) -> tuple[Asked, OnDeviceModel]:
    """A job with so many LoRAs in two regions, each with a range of steps of its own."""
    ratios = [(place + 1) / (2 * count + 2) for place in range(count)]
    ranged = [(structs.replace(resolved(lora), start_ratio=one, end_ratio=1 - one), lora) for one in ratios]
    halves = [torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)]
    regions = [AskedRegion(range(1000), one, ranged[place::2]) for place, one in enumerate(halves)]
    return Asked(steps=1000, regions=regions), load(tiny, "cpu")


def test_ten_times_the_ranges_of_steps_take_ten_times_the_work_and_memory(tiny: Model, tmp_path: Path) -> None:
    # A phase is made when it begins. All at once, 128 LoRAs with ranges of their own took minutes and gigabytes.
    at = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{at}.lora_down.weight": torch.ones(4, 16), f"{at}.lora_up.weight": torch.ones(16, 4)}
    lora = lora_model(tmp_path / "one.safetensors", tensors)
    lines, deltas = dict[int, int](), dict[int, int]()
    for count in (6, 60):
        asked_for, loaded = phased(tiny, lora, count)
        pool = AdapterPool()
        pool.adapters(asked_for, loaded)
        with traced_lines() as told:
            made = pool.adapters(asked_for, loaded)
            held = made.tensors()
        lines[count] = told[0]
        deltas[count] = sum(isinstance(one, Delta) for one in gc.get_objects())
        assert held
        del made
    assert lines[60] <= 12 * lines[6]
    assert deltas[60] <= 12 * deltas[6]


@contextmanager
def traced_lines() -> Generator[list[int]]:
    """Counts the lines of Python that run; the count comes with the exit."""
    count, before = [0], sys.gettrace()

    def trace(_frame: object, event: str, _argument: object) -> Any:
        count[0] += event == "line"
        return trace

    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)
