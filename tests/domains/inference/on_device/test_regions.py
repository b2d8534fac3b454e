"""Prompts of regions in our engine: masked cross-attention, row by row."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from msgspec import structs
from torch import Tensor

from domains.inference.generation import Determinism, ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.controls import ControlsOfJob
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import Guides
from domains.inference.on_device.hardware import RealHardware
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.regions import region_maps
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.outcome import CheckpointReady, Report
from domains.inference.prompts import Syntax
from domains.inference.regions import Rectangle, ResolvedRegion
from domains.model.model import Model
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.control_files import control, given, stored, stripes, write_controlnet
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents, reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_every_family import FOG, OWL, TOLERANCE, Loaded, asked, gap
from tests.domains.inference.on_device.tiny_families import write_tiny_family

WHOLE = Rectangle(left_px=0, top_px=0, width_px=48, height_px=32)
LEFT = Rectangle(left_px=0, top_px=0, width_px=24, height_px=32)
RIGHT = Rectangle(left_px=24, top_px=0, width_px=24, height_px=32)
ROCKET = "a red rocket above the clouds"


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Loaded:
    name: str = request.param
    if name == "sd1":
        return Loaded(tiny, reference_pipeline)
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("regional") / name))


def begun(family: Loaded, wanted: ResolvedGeneration, masks: tuple[KeptFile | None, ...] | None = None) -> Trajectory:
    view, device = family_of(family.ours), family.ours.device
    maps = region_maps(wanted, masks or (None,) * len(wanted.regions), device)
    found = condition(family.ours, view, wanted, PromptCache(), maps=maps)
    config = family.ours.scheduler_config
    return begin(view, wanted, config, found.conditions, device, renew=found.renew)


def ours(family: Loaded, wanted: ResolvedGeneration, masks: tuple[KeptFile | None, ...] | None = None) -> Tensor:
    with torch.inference_mode():
        trajectory = begun(family, wanted, masks)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


CASES: dict[str, dict[str, Any]] = {
    "guided": {},
    "without_guidance": {"guidance_scale": 1.0},
    "two_pictures": {"seeds": (3, 9), "steps": 2},
    "without_a_negative_prompt": {"negative_prompt": ""},
    "rescaled": {"guidance_rescale": 0.7},
    "edited_by_step": {"prompt_syntax": Syntax.A1111, "steps": 4},
}


@pytest.mark.parametrize("case", list(CASES))
def test_one_region_over_the_whole_picture_is_the_plain_prompt(family: Loaded, case: str) -> None:
    changes = CASES[case]
    text = "a [rocket:cactus:0.5]" if "prompt_syntax" in changes else ROCKET
    plain = asked(family, **{**changes, "prompt": text})
    expected = ours(family, plain)
    region = asked(family, **changes, regions=(ResolvedRegion(rectangle=WHOLE, prompt=text),))
    found = ours(family, region)
    assert gap(found, expected) < TOLERANCE
    assert gap(found, ours(family, asked(family, **changes))) > 0.001


def test_a_negative_prompt_of_the_region_is_that_of_the_plain_prompt(family: Loaded) -> None:
    plain = asked(family, prompt=ROCKET, negative_prompt="night")
    region = ResolvedRegion(rectangle=WHOLE, prompt=ROCKET, negative_prompt="night")
    assert gap(ours(family, asked(family, regions=(region,))), ours(family, plain)) < TOLERANCE


def test_two_halves_with_one_prompt_are_the_plain_prompt(family: Loaded) -> None:
    halves = tuple(ResolvedRegion(rectangle=one, prompt=ROCKET) for one in (LEFT, RIGHT))
    assert gap(ours(family, asked(family, regions=halves)), ours(family, asked(family, prompt=ROCKET))) < TOLERANCE


def test_a_region_without_weight_or_steps_gives_the_bytes_of_none(family: Loaded) -> None:
    plain = final_latents(family.ours, asked(family))
    without: list[dict[str, Any]] = [{"weight": 0.0}, {"start_ratio": 0.5, "end_ratio": 0.6}]
    for changes in without:
        region = ResolvedRegion(rectangle=LEFT, prompt=ROCKET, **changes)
        assert torch.equal(ours(family, asked(family, regions=(region,))), plain)


def test_a_place_reads_the_prompts_by_their_shares(family: Loaded) -> None:
    """One step by hand: the attention of each prompt alone, mixed at each place by the share that covers it."""
    if family.model.family == "sdxl":
        return  # whose denoiser reads prompts as a whole, too
    regions = (
        ResolvedRegion(rectangle=LEFT, prompt=ROCKET, weight=0.6),
        ResolvedRegion(rectangle=WHOLE, prompt=FOG, weight=1.5),
    )
    wanted = asked(family, steps=1, guidance_scale=1.0, regions=regions)
    found = ours(family, wanted)
    reference: Any = family.theirs.unet
    pipe = family.theirs
    texts = (OWL, ROCKET, FOG)
    tokens = [pipe.encode_prompt(one, "cpu", 1, do_classifier_free_guidance=False)[0] for one in texts]
    maps = [F.pad(torch.full((1, 1, 32, 24), 0.6), (0, 24)), torch.full((1, 1, 32, 48), 1.5)]
    whole = (maps[0] + maps[1]).clamp(min=1)
    shares = [torch.zeros(1, 1, 32, 48), maps[0] / whole, maps[1] / whole]
    original = dict(reference.attn_processors)

    class Mixed:
        """Diffusers' own processor, once for each prompt."""

        def __init__(self, own: Any) -> None:
            self._own = own

        def __call__(self, layer: Any, hidden: Tensor, encoder_hidden_states: Any = None, **more: Any) -> Tensor:
            edge = int((hidden.shape[1] / 6) ** 0.5)
            size = 2 * edge, 3 * edge
            total = torch.zeros_like(hidden)
            for states, share in zip(tokens, shares, strict=True):
                part = self._own(layer, hidden, encoder_hidden_states=states, **more)
                total = total + part * F.interpolate(share, size, mode="area").flatten(2).transpose(1, 2)
            return total

    mixed = {name: Mixed(one) if name.endswith("attn2.processor") else one for name, one in original.items()}
    reference.set_attn_processor(mixed)
    shape = family_of(family.ours).latent_shape(48, 32)
    noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(wanted.seeds[0]))
    try:
        theirs = pipe(
            OWL, width=48, height=32, num_inference_steps=1, guidance_scale=1.0, latents=noise, output_type="latent"
        ).images
    finally:
        reference.set_attn_processor(original)
    assert gap(found, theirs) < TOLERANCE


def test_a_controlnet_reads_the_prompts_of_regions(family: Loaded, tmp_path: Path) -> None:
    view: Any = family_of(family.ours)
    net = write_controlnet(tmp_path / "net", family.ours, 64 // view.latent_shape(64, 64)[1])
    pool, maps = NetworkPool(RealHardware(family.ours.device)), [given(net, stripes(48, 32), tmp_path)]

    def controlled(**changes: Any) -> Tensor:
        wanted = asked(family, controls=(control(net),), **changes)
        job, device = ControlsOfJob("job", wanted, maps, pool), family.ours.device
        list(iter(lambda: job.bring(family.ours), True))
        with torch.inference_mode():
            shares = region_maps(wanted, (None,) * len(wanted.regions), device)
            found = condition(family.ours, view, wanted, PromptCache(), maps=shares)
            controls = job.made(found.renew, family.ours, view.encode_reference)
            config, conditions = family.ours.scheduler_config, found.conditions
            trajectory = begin(
                view, wanted, config, conditions, device, renew=found.renew, guides=Guides(controls=controls)
            )
            while not trajectory.done:
                walk_together([trajectory])
            return trajectory.latents

    halves = tuple(ResolvedRegion(rectangle=one, prompt=ROCKET) for one in (LEFT, RIGHT))
    # Regions over the whole picture in the first steps are a prompt that changes there.
    first = tuple(structs.replace(one, end_ratio=0.5) for one in halves)
    edited = controlled(prompt=f"[{ROCKET}:{OWL}:0.5]", prompt_syntax=Syntax.A1111, steps=4)
    assert gap(controlled(regions=first, prompt_syntax=Syntax.A1111, steps=4), edited) < TOLERANCE
    for changes in ({}, {"guidance_start_ratio": 0.5}, {"guidance_scale": 1.0}):
        plain = controlled(prompt=ROCKET, **changes)
        assert gap(controlled(regions=halves, **changes), plain) < TOLERANCE
        assert gap(controlled(**changes), plain) > 0.001


def test_a_mask_says_where_as_a_rectangle_does(family: Loaded, tmp_path: Path) -> None:
    pixels = torch.zeros(32, 48, 1, dtype=torch.uint8)
    pixels[:, :24] = 255
    mask = stored(pixels, tmp_path)
    region = ResolvedRegion(rectangle=LEFT, prompt=ROCKET)
    masked = asked(family, regions=(ResolvedRegion(prompt=ROCKET),))
    assert gap(ours(family, masked, (mask,)), ours(family, asked(family, regions=(region,)))) < 1e-6


def test_jobs_with_and_without_regions_share_forwards(family: Loaded) -> None:
    left, right = (ResolvedRegion(rectangle=one, prompt=ROCKET) for one in (LEFT, RIGHT))
    mixed = [
        asked(family),
        asked(family, regions=(left, ResolvedRegion(rectangle=RIGHT, prompt="clouds", end_ratio=0.5)), steps=4),
        asked(family, regions=(right,), seeds=(1, 2)),
        asked(family, regions=(left,), guidance_scale=1.0),
        asked(family, regions=(left,), guidance_start_ratio=0.5),
    ]
    alone = [ours(family, wanted) for wanted in mixed]
    with torch.inference_mode():
        group = [begun(family, wanted) for wanted in mixed]
        assert len({one.alike for one in group}) == 1
        while left_over := [one for one in group if not one.done]:
            walk_together(left_over)
    for trajectory, latents in zip(group, alone, strict=True):
        assert gap(trajectory.latents, latents) < TOLERANCE


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def test_an_exact_job_with_regions_that_was_paused_goes_on_to_the_same_picture(loop: Recorder, tmp_path: Path) -> None:
    size: dict[str, Any] = {"width_px": 48, "height_px": 32, "steps": 4, "sampler": "euler_a"}
    regions = (ResolvedRegion(rectangle=LEFT, prompt=ROCKET, end_ratio=0.5),)
    wanted = request(loop.loaded.model, regions=regions, determinism=Determinism.EXACT, **size)

    def pause(job_id: str, report: Report) -> None:
        done = isinstance(report, Progressed) and (report.stage, report.completed) == (Stage.DENOISING, 1)
        if done and job_id == "paused":
            loop.loop.stop(job_id, Stop(kind=StopKind.PAUSE, cause="the device is needed"))

    loop.on_report = pause
    for name in ("whole", "paused"):
        loop.loop.submit(name, Given(loop.loaded.model, wanted, regions=(None,)))
        loop.run()
    (kept,) = loop.of("paused", CheckpointReady)
    assert isinstance(kept, CheckpointReady)
    path = tmp_path / "kept"
    path.write_bytes(kept.data)
    file = KeptFile(path=str(path), sha256=sha256(kept.data).hexdigest())
    loop.loop.submit("resumed", Given(loop.loaded.model, wanted, kept=file, regions=(None,)))
    loop.loop.submit("plain", Given(loop.loaded.model, request(loop.loaded.model, **size)))
    loop.run()
    assert loop.files("resumed") == loop.files("whole")
    assert loop.files("plain") != loop.files("whole")
