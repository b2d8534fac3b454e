"""T2I adapters in our engine against diffusers' own pipelines, on random weights: same maps, same noise, same latents."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference.controls import ControlBalance
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given, GivenControl
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.controls import Features, FeaturesOfJob
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import Guides
from domains.inference.on_device.hardware import RealHardware
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.model.model import Model
from tests.domains.inference.on_device.control_files import control, given, stripes, write_controlnet
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.t2i_files import write_adapted, write_t2i
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, gap

_theirs: Any = diffusers
MAP, OTHER = stripes(64, 32), stripes(64, 32, 77)
SIZE: dict[str, Any] = {"width_px": 64, "height_px": 32, "sampler": "euler"}


class Adapted(Loaded):
    """A tiny model with two T2I adapters."""

    def __init__(self, model: Model, folder: Path, kind: str, **config: Any) -> None:
        super().__init__(model)
        self.kind = kind
        self.adapters = [write_t2i(folder / f"adapter-{seed}", seed, **config) for seed in (1, 2)]
        self.pool = NetworkPool(RealHardware(self.ours.device))

    def of(self, wanted: ResolvedGeneration, maps: Sequence[GivenControl]) -> Features:
        """The features of a job."""
        view: Any = family_of(self.ours)
        job = FeaturesOfJob("job", wanted, maps, self.pool)
        while not job.bring(self.ours):
            pass
        _, height, width = view.latent_shape(wanted.width_px, wanted.height_px)
        return job.made(self.ours, view.unet, (height, width))


CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd2": ("StableDiffusionAdapterPipeline", {"channels": (16, 32), "downscale_factor": 4}),
    "sdxl": (
        "StableDiffusionXLAdapterPipeline",
        {"channels": (16, 32, 32, 32), "downscale_factor": 8, "adapter_type": "full_adapter_xl"},
    ),
}
"""The pipeline of diffusers, and the adapter's config, by family."""


@pytest.fixture(scope="module", params=list(CONFIGS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder, (kind, config) = tmp_path_factory.mktemp("adapted"), CONFIGS[request.param]
    return Adapted(write_adapted(request.param, folder / request.param), folder, kind, **config)


def begun(family: Adapted, wanted: ResolvedGeneration, maps: Sequence[GivenControl]) -> Trajectory:
    view, features = family_of(family.ours), family.of(wanted, maps)
    found = condition(family.ours, view, wanted, PromptCache())
    config, device = family.ours.scheduler_config, family.ours.device
    return begin(view, wanted, config, found.conditions, device, guides=Guides(features=features))


def ours(family: Adapted, wanted: ResolvedGeneration, maps: Sequence[GivenControl]) -> Tensor:
    with torch.inference_mode():
        trajectory = begun(family, wanted, maps)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


def theirs(family: Adapted, wanted: ResolvedGeneration, pixels: Sequence[Tensor], **more: Any) -> Tensor:
    """Of diffusers' pipeline with the adapters that the request names."""
    nets = [_theirs.T2IAdapter.from_pretrained(one.folder) for one in family.adapters[: len(pixels)]]
    pictures = [Image.fromarray(np.asarray(one)) for one in pixels]
    weights = [one.weight for one in wanted.controls]
    several = len(nets) > 1
    extra: dict[str, Any] = {}
    if wanted.family == "sd2":
        extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    components = {name: one for name, one in family.theirs.components.items() if name != "image_encoder"}
    built = getattr(_theirs, family.kind)(
        **{**components, **extra}, adapter=_theirs.MultiAdapter(nets) if several else nets[0]
    )
    built.set_progress_bar_config(disable=True)
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    noise = torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds])
    return built(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        image=pictures if several else pictures[0],
        num_images_per_prompt=len(wanted.seeds),
        width=wanted.width_px,
        height=wanted.height_px,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        adapter_conditioning_scale=weights if several else weights[0],
        latents=noise,
        output_type="latent",
        **more,
    ).images


CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one": ([{}], {}),
    "without_guidance": ([{"weight": 0.7}], {"guidance_scale": 1.0}),
    "two_with_weights": ([{"weight": 0.4}, {"weight": 1.3}], {}),
    "two_pictures": ([{}], {"seeds": (3, 9), "steps": 2}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_latents_with_t2i_adapters_are_those_of_diffusers(family: Adapted, tmp_path: Path, case: str) -> None:
    changes, more = CASES[case]
    controls = tuple(control(net, t2i_adapter=True, **one) for net, one in zip(family.adapters, changes, strict=False))
    wanted = asked(family, controls=controls, **{**SIZE, **more})
    pixels = [MAP, OTHER][: len(controls)]
    maps = [given(net, one, tmp_path) for net, one in zip(family.adapters, pixels, strict=False)]
    found = ours(family, wanted, maps)
    assert gap(found, theirs(family, wanted, pixels)) < TOLERANCE
    # The control shows: it is no rounding that is compared.
    assert gap(found, final_latents(family.ours, asked(family, **{**SIZE, **more}))) > 0.01
    assert family.pool.sizes() == {}


def test_an_adapter_counts_in_its_steps_as_in_diffusers(family: Adapted, tmp_path: Path) -> None:
    if family.model.family == "sd2":
        return  # whose pipeline knows no range
    net = family.adapters[0]
    wanted = asked(family, controls=(control(net, t2i_adapter=True, end_ratio=0.5),), steps=4, **SIZE)
    found = ours(family, wanted, [given(net, MAP, tmp_path)])
    assert gap(found, theirs(family, wanted, [MAP], adapter_conditioning_factor=0.5)) < TOLERANCE


def test_an_adapter_without_weight_or_steps_or_region_gives_the_bytes_of_none(family: Adapted, tmp_path: Path) -> None:
    net = family.adapters[0]
    plain = final_latents(family.ours, asked(family, **SIZE))
    maps = [given(net, MAP, tmp_path)]
    for changes in ({"weight": 0.0}, {"start_ratio": 0.5, "end_ratio": 0.6}):
        wanted = asked(family, controls=(control(net, t2i_adapter=True, **changes),), **SIZE)
        assert torch.equal(ours(family, wanted, maps), plain)
    nowhere = [given(net, MAP, tmp_path, torch.zeros(32, 64, 1, dtype=torch.uint8))]
    wanted = asked(family, controls=(control(net, t2i_adapter=True),), **SIZE)
    assert gap(ours(family, wanted, nowhere), plain) < 1e-6


def test_jobs_with_and_without_adapters_share_forwards(family: Adapted, tmp_path: Path) -> None:
    first, second = family.adapters

    def of(net: Model, **changes: Any) -> Any:
        return control(net, t2i_adapter=True, **changes)

    mixed: list[tuple[list[GivenControl], ResolvedGeneration]] = [
        ([], asked(family, **SIZE)),
        ([given(first, MAP, tmp_path)], asked(family, controls=(of(first, end_ratio=0.5),), **{**SIZE, "steps": 4})),
        (
            [given(first, OTHER, tmp_path), given(second, MAP, tmp_path)],
            asked(family, controls=(of(first), of(second, balance=ControlBalance.CONTROL)), seeds=(1, 2), **SIZE),
        ),
        ([given(first, MAP, tmp_path)], asked(family, controls=(of(first),), guidance_scale=1.0, **SIZE)),
        (
            [given(first, MAP, tmp_path, MAP[..., :1])],
            asked(family, controls=(of(first, balance=ControlBalance.PROMPT),), guidance_start_ratio=0.5, **SIZE),
        ),
    ]
    alone = [ours(family, wanted, maps) for maps, wanted in mixed]
    with torch.inference_mode():
        group = [begun(family, wanted, maps) for maps, wanted in mixed]
        assert len({one.alike for one in group}) == 1
        while left := [one for one in group if not one.done]:
            walk_together(left)
    for trajectory, latents in zip(group, alone, strict=True):
        assert gap(trajectory.latents, latents) < TOLERANCE


def test_an_adapter_of_another_shape_or_for_another_size_is_refused_before_any_step(
    family: Adapted, tmp_path: Path
) -> None:
    other = write_t2i(tmp_path / "other", 3, (16, 16), downscale_factor=4)
    wanted = asked(family, controls=(control(other, t2i_adapter=True),), **SIZE)
    with pytest.raises(FailedPrecondition, match="does not fit model") as refused, torch.inference_mode():
        family.of(wanted, [given(other, MAP, tmp_path)])
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    coarse = write_t2i(tmp_path / "coarse", 3, (16, 16), downscale_factor=64)
    wanted = asked(family, controls=(control(coarse, t2i_adapter=True),), **SIZE)
    with pytest.raises(InvalidRequest, match="no multiple of 64"), torch.inference_mode():
        family.of(wanted, [given(coarse, MAP, tmp_path)])


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    recorder = Recorder(write_adapted("sd2", tmp_path_factory.mktemp("loop") / "sd2"))
    yield recorder
    recorder.loop.close()


def test_a_controlnet_and_an_adapter_guide_together_and_leave_nothing(loop: Recorder, tmp_path: Path) -> None:
    adapter = write_t2i(tmp_path / "adapter", 1, **CONFIGS["sd2"][1])
    net = write_controlnet(tmp_path / "net", loop.loaded, 4)
    size: dict[str, Any] = {"width_px": 32, "height_px": 32, "steps": 2, "sampler": "euler"}
    pixels = stripes(32, 32)
    both = (control(net), control(adapter, t2i_adapter=True))
    maps = {net.id: given(net, pixels, tmp_path), adapter.id: given(adapter, pixels, tmp_path)}
    for name, controls in {"both": both, "net": both[:1], "adapter": both[1:], "plain": (), "again": both}.items():
        wanted = request(loop.loaded.model, controls=controls, **size)
        files = tuple(maps[one.model_id] for one in controls)
        loop.loop.submit(name, Given(loop.loaded.model, wanted, controls=files))
        loop.run()
        assert loop.loop.resources.control_bytes() == {}
    assert loop.files("both") == loop.files("again")
    assert len({str(loop.files(name)) for name in ("both", "net", "adapter", "plain")}) == 4
