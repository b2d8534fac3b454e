"""ControlNets in our engine against diffusers' own pipelines, on random weights: same maps, same noise, same latents."""

from collections.abc import Generator, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.controls import ControlBalance
from domains.inference.generation import Determinism, ResolvedGeneration
from domains.inference.given import Given, GivenControl
from domains.inference.kept_file import KeptFile
from domains.inference.kept_readings import kept_readings
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.controls import Controls, ControlsOfJob
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import Guides
from domains.inference.on_device.hardware import RealHardware
from domains.inference.on_device.network_load import NetworkLoad
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.regions import region_maps
from domains.inference.on_device.tensor_bytes import bytes_of
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.outcome import CheckpointReady, Report, RunStopped
from domains.inference.prompts import Syntax
from domains.inference.regions import Rectangle, ResolvedRegion
from domains.model.header_facts import header_facts
from domains.model.model import Model
from domains.model.on_device import Ready
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.control_files import control, given, stripes, write_controlnet
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents, reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, gap
from tests.domains.inference.on_device.tiny_families import write_tiny_family

_theirs: Any = diffusers
PIPELINES = {
    "sd1": "StableDiffusionControlNetPipeline",
    "sd2": "StableDiffusionControlNetPipeline",
    "sdxl": "StableDiffusionXLControlNetPipeline",
}


def bring(job: ControlsOfJob, family: Loaded) -> None:
    """Load its networks without a break."""
    while not job.bring(family.ours):
        pass


class Guided(Loaded):
    """A tiny model with two ControlNets."""

    def __init__(self, model: Model, folder: Path, pipeline: Any = None) -> None:
        super().__init__(model, pipeline)
        self.folder = folder
        edge = family_of(self.ours).latent_shape(64, 64)[1]
        self.nets = [write_controlnet(folder / f"net-{seed}", self.ours, 64 // edge, seed=seed) for seed in (1, 2)]
        self.pool = NetworkPool(RealHardware(self.ours.device))

    def of(self, wanted: ResolvedGeneration, maps: Sequence[GivenControl], job_id: str = "job") -> Controls:
        """The controls of a job."""
        job = ControlsOfJob(job_id, wanted, maps, self.pool)
        bring(job, self)
        reading = condition(self.ours, family_of(self.ours), wanted, PromptCache()).renew
        return job.made(reading, self.ours, family_of(self.ours).encode_reference)


@pytest.fixture(scope="module", params=list(PIPELINES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Guided:
    name: str = request.param
    folder = tmp_path_factory.mktemp("guided")
    if name == "sd1":
        return Guided(tiny, folder, reference_pipeline)
    return Guided(write_tiny_family(name, folder / name), folder)


def begun(
    family: Guided,
    wanted: ResolvedGeneration,
    maps: Sequence[GivenControl],
    job_id: str = "job",
    controls: Controls | None = None,
) -> Trajectory:
    """A job before its first step. `controls` None: those of the job."""
    view, controls = family_of(family.ours), controls or family.of(wanted, maps, job_id)
    found = condition(family.ours, view, wanted, PromptCache())
    config, device = family.ours.scheduler_config, family.ours.device
    return begin(view, wanted, config, found.conditions, device, renew=found.renew, guides=Guides(controls=controls))


def ours(family: Guided, wanted: ResolvedGeneration, maps: Sequence[GivenControl]) -> Tensor:
    with torch.inference_mode():
        return walked(begun(family, wanted, maps))


def walked(trajectory: Trajectory) -> Tensor:
    while not trajectory.done:
        walk_together([trajectory])
    return trajectory.latents


def theirs(family: Guided, wanted: ResolvedGeneration, pixels: Sequence[Tensor], **more: Any) -> Tensor:
    """Of diffusers' pipeline with the nets that the request names."""
    named = [next(net for net in family.nets if net.id == one.model_id) for one in wanted.controls]
    nets = [_theirs.ControlNetModel.from_pretrained(net.folder) for net in named]
    kind = getattr(_theirs, PIPELINES[wanted.family])
    none: dict[str, Any] = {"add_watermarker": False}
    if wanted.family != "sdxl":
        none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    built = kind(**{**family.theirs.components, **none}, controlnet=nets)
    built.set_progress_bar_config(disable=True)
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    noise = torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds])
    pictures = len(wanted.seeds)
    return built(
        prompt=[wanted.prompt] * pictures,
        negative_prompt=[wanted.negative_prompt] * pictures,
        image=[one if one.is_floating_point() else Image.fromarray(np.asarray(one)) for one in pixels],
        width=wanted.width_px,
        height=wanted.height_px,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        controlnet_conditioning_scale=[one.weight for one in wanted.controls],
        control_guidance_start=[one.start_ratio for one in wanted.controls],
        control_guidance_end=[one.end_ratio for one in wanted.controls],
        latents=noise,
        output_type="latent",
        **more,
    ).images


MAP, OTHER = stripes(48, 32), stripes(48, 32, 77)
BOX = Rectangle(left_px=0, top_px=0, width_px=24, height_px=32)


def test_a_map_for_inpainting_marks_the_masked_part_as_diffusers_example_does(family: Guided, tmp_path: Path) -> None:
    net, hidden = family.nets[0], torch.zeros(32, 48, dtype=torch.uint8)
    hidden[8:24, 16:40] = 255
    wanted = asked(family, controls=(control(net),), sampler="euler")
    found = ours(family, wanted, [given(net, MAP, tmp_path, hidden=hidden)])
    marked = MAP.permute(2, 0, 1)[None].float() / 255
    marked[:, :, hidden > 127] = -1.0
    assert gap(found, theirs(family, wanted, [marked])) < TOLERANCE
    assert gap(found, ours(family, wanted, [given(net, MAP, tmp_path)])) > 10 * TOLERANCE


CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "one": ([{}], {}, {}),
    "without_guidance": ([{"weight": 0.7}], {"guidance_scale": 1.0}, {}),
    "two_with_weights_and_ranges": (
        [{"weight": 0.4, "end_ratio": 0.5}, {"weight": 1.3, "start_ratio": 0.25}],
        {"steps": 4},
        {},
    ),
    "the_control_wins": ([{"balance": ControlBalance.CONTROL}], {}, {"guess_mode": True}),
    "two_pictures": ([{}], {"seeds": (3, 9), "steps": 2}, {}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_latents_with_controlnets_are_those_of_diffusers(family: Guided, tmp_path: Path, case: str) -> None:
    changes, request, more = CASES[case]
    controls = tuple(control(net, **one) for net, one in zip(family.nets, changes, strict=False))
    wanted = asked(family, controls=controls, **{"sampler": "euler", **request})
    pixels = [MAP, OTHER][: len(controls)]
    maps = [given(net, one, tmp_path) for net, one in zip(family.nets, pixels, strict=False)]
    found = ours(family, wanted, maps)
    assert gap(found, theirs(family, wanted, pixels, **more)) < TOLERANCE
    # The control shows: it is no rounding that is compared.
    assert gap(found, final_latents(family.ours, asked(family, **{"sampler": "euler", **request}))) > 0.01


def test_each_prompt_that_and_joins_is_read_by_the_controlnet(family: Guided, tmp_path: Path) -> None:
    """One step of Euler is linear in the denoiser's output, so that of prompts together is the sum of theirs."""
    net = family.nets[0]
    maps, walk = [given(net, MAP, tmp_path)], {"steps": 1, "sampler": "euler", "controls": (control(net),)}
    together = asked(family, prompt="an owl :0.3 AND a red car :0.7", prompt_syntax=Syntax.A1111, **walk)
    shares = [
        (share, ours(family, asked(family, prompt=text, prompt_syntax=Syntax.A1111, **walk), maps))
        for text, share in (("an owl", 0.3), ("a red car", 0.7))
    ]
    found = ours(family, together, maps)
    assert gap(found, sum((share * one for share, one in shares), torch.zeros_like(found))) < TOLERANCE
    assert gap(shares[0][1], shares[1][1]) > 10 * TOLERANCE
    # Beside a job whose prompt stands alone.
    with torch.inference_mode():
        group = [begun(family, together, maps, "and"), begun(family, asked(family, **walk), maps, "alone")]
        walk_together(group)
    assert gap(group[0].latents, found) < TOLERANCE


def prompt_from(step: int, prompt: str, negative: str) -> dict[str, Any]:
    """Arguments that give diffusers' pipeline another prompt from a step on, counted from 0."""

    def callback(pipe: Any, index: int, timestep: Tensor, tensors: Any) -> dict[str, Tensor]:
        if index + 1 != step:
            return {}
        how = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        found = pipe.encode_prompt(prompt, negative_prompt=negative, **how)
        changed = {"prompt_embeds": torch.cat([found[1], found[0]])}
        return changed if len(found) == 2 else {**changed, "add_text_embeds": torch.cat([found[3], found[2]])}

    return {"callback_on_step_end": callback}


def test_a_controlnet_reads_the_prompt_of_each_step_as_in_diffusers(family: Guided, tmp_path: Path) -> None:
    net = family.nets[0]
    maps, strong = [given(net, MAP, tmp_path)], (control(net, weight=4.0),)
    walk: dict[str, Any] = {"steps": 4, "sampler": "euler", "controls": strong}
    changing = asked(family, prompt="an [owl:red car:0.5]", prompt_syntax=Syntax.A1111, **walk)
    first = asked(family, prompt="an owl", **walk)
    found = ours(family, changing, maps)
    later = prompt_from(2, "an red car", first.negative_prompt)
    apart = gap(found, theirs(family, first, [MAP], **later))
    assert apart < TOLERANCE
    # The network reads the change, too: with the first prompt in all steps it gives another picture.
    with torch.inference_mode():
        kept = begun(family, changing, maps, controls=family.of(first, maps, "kept"))
        assert gap(walked(kept), found) > 10 * apart


def test_what_takes_turns_is_read_once_by_a_controlnet(family: Guided, tmp_path: Path) -> None:
    net = family.nets[0]
    wanted = asked(family, prompt="[owl|cat]", prompt_syntax=Syntax.A1111, steps=6, controls=(control(net),))
    with torch.inference_mode():
        controls = family.of(wanted, [given(net, MAP, tmp_path)])
        assert len({id(one) for step in range(6) for one in controls.at(step)}) == 2


KEPT: dict[str, tuple[dict[str, Any], int, int]] = {
    "another_prompt": ({"prompt": "an [owl:red car:0.5]"}, 2, 2),
    "prompts_in_turns": ({"prompt": "[owl|cat]", "guidance_scale": 1.0}, 1, 1),
    "together": ({"prompt": "an [owl:cat:0.5] AND a red car"}, 4, 4),
    "no_guidance_later": ({"prompt": "an owl", "guidance_end_ratio": 0.5}, 2, 2),
    "a_region_of_some_steps": (
        {"prompt": "an owl", "regions": (ResolvedRegion(rectangle=BOX, prompt="a cat", end_ratio=0.5),)},
        4,
        2,
    ),
    "one_prompt": ({"prompt": "an owl"}, 0, 0),
}


@pytest.mark.parametrize("case", list(KEPT))
def test_what_a_controlnet_keeps_of_an_earlier_prompt_is_forecast_from_its_file(
    family: Guided, tmp_path: Path, case: str
) -> None:
    changes, prompts, pooled = KEPT[case]
    net = family.nets[0]
    walk = {"steps": 4, "prompt_syntax": Syntax.A1111, "sampler": "euler"}
    wanted = asked(family, **{**walk, **changes}, controls=(control(net),))
    with torch.inference_mode():
        maps = region_maps(wanted, (None,) * len(wanted.regions), family.ours.device)
        reading = condition(family.ours, family_of(family.ours), wanted, PromptCache(), maps=maps).renew
        job = ControlsOfJob("kept", wanted, [given(net, MAP, tmp_path)], family.pool)
        bring(job, family)
        controls = job.made(reading, family.ours, family_of(family.ours).encode_reference)
        held: list[int] = []
        for step in range(wanted.steps):
            present = [tensor for one in controls.at(step) for tensor in one.tensors()]
            held.append(bytes_of(controls.tensors()) - bytes_of(present))
    (found,) = kept_readings(wanted)
    (sizes,) = (one.reading for one in (header_facts(net) or {}).values())
    forecast = sum(sizes.of_token * one.tokens * one.prompts + sizes.of_prompt * one.pooled for one in found)
    assert [(one.prompts, one.pooled) for one in found] == ([(prompts, pooled)] if prompts else [])
    # Float32.
    assert 4 * forecast + sum(one.map_bytes for one in found) == max(held)
    job.networks.leave()


def test_jobs_with_and_without_controls_share_forwards(family: Guided, tmp_path: Path) -> None:
    first, second = family.nets
    mixed: list[tuple[list[GivenControl], ResolvedGeneration]] = [
        ([], asked(family)),
        ([given(first, MAP, tmp_path)], asked(family, controls=(control(first, end_ratio=0.5),), steps=4)),
        (
            [given(first, OTHER, tmp_path), given(second, MAP, tmp_path)],
            asked(family, controls=(control(first), control(second, balance=ControlBalance.CONTROL)), seeds=(1, 2)),
        ),
        ([given(first, MAP, tmp_path)], asked(family, controls=(control(first),), guidance_scale=1.0)),
        ([given(first, MAP, tmp_path)], asked(family, controls=(control(first),), guidance_start_ratio=0.5)),
        (
            [given(first, MAP, tmp_path)],
            asked(family, controls=(control(first),), prompt="an [owl|cat]", prompt_syntax=Syntax.A1111),
        ),
        (
            [given(first, MAP, tmp_path, MAP[..., :1])],
            asked(family, controls=(control(first, balance=ControlBalance.PROMPT),)),
        ),
    ]
    alone = [ours(family, wanted, maps) for maps, wanted in mixed]
    with torch.inference_mode():
        group = [begun(family, wanted, maps, f"job {place}") for place, (maps, wanted) in enumerate(mixed)]
        assert len({one.alike for one in group}) == 1
        while left := [one for one in group if not one.done]:
            walk_together(left)
    for trajectory, latents in zip(group, alone, strict=True):
        assert gap(trajectory.latents, latents) < TOLERANCE


def test_a_control_without_weight_or_steps_or_region_gives_the_bytes_of_none(family: Guided, tmp_path: Path) -> None:
    net = family.nets[0]
    plain = final_latents(family.ours, asked(family))
    maps = [given(net, MAP, tmp_path)]
    for changes in ({"weight": 0.0}, {"start_ratio": 0.5, "end_ratio": 0.6}):
        assert torch.equal(ours(family, asked(family, controls=(control(net, **changes),)), maps), plain)
    nowhere = [given(net, MAP, tmp_path, torch.zeros(32, 48, 1, dtype=torch.uint8))]
    assert torch.equal(ours(family, asked(family, controls=(control(net),)), nowhere), plain)


def test_a_region_over_the_whole_picture_is_none(family: Guided, tmp_path: Path) -> None:
    net = family.nets[0]
    wanted = asked(family, controls=(control(net),))
    everywhere = [given(net, MAP, tmp_path, torch.full((32, 48, 1), 255, dtype=torch.uint8))]
    assert gap(ours(family, wanted, everywhere), ours(family, wanted, [given(net, MAP, tmp_path)])) < 1e-6


def test_jobs_share_a_network_which_leaves_with_the_last(family: Guided, tmp_path: Path) -> None:
    pool, net = NetworkPool(RealHardware(family.ours.device)), family.nets[0]
    wanted, maps = asked(family, controls=(control(net),)), [given(net, MAP, tmp_path)]
    jobs = [ControlsOfJob(name, wanted, maps, pool) for name in "ab"]
    for job in jobs:
        bring(job, family)
    size = sum(file.stat().st_size for file in Path(net.folder).glob("*.safetensors"))
    assert pool.sizes() == {net.id: pytest.approx(size, rel=0.3)}
    jobs[0].networks.leave()
    assert list(pool.sizes()) == [net.id]
    jobs[1].networks.leave()
    assert pool.sizes() == {}


def test_a_controlnet_of_another_width_is_refused_before_its_weights_are_read(family: Guided, tmp_path: Path) -> None:
    edge = family_of(family.ours).latent_shape(64, 64)[1]
    other = write_controlnet(tmp_path / "other", family.ours, 64 // edge, cross_attention_dim=40)
    wanted = asked(family, controls=(control(other),))
    job = ControlsOfJob("job", wanted, [given(other, MAP, tmp_path)], NetworkPool(RealHardware(family.ours.device)))
    with pytest.raises(FailedPrecondition, match="cross_attention_dim 40") as refused:
        bring(job, family)
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE


def test_a_controlnet_that_another_job_brought_is_refused_for_a_model_that_it_does_not_fit(
    family: Guided, tmp_path: Path
) -> None:
    net = family.nets[0]
    wanted, maps = asked(family, controls=(control(net),)), [given(net, MAP, tmp_path)]
    first, second = (ControlsOfJob(name, wanted, maps, family.pool) for name in ("first", "second"))
    bring(first, family)
    bring(second, family)
    config: Any = family.ours.modules["unet"].config
    unet = SimpleNamespace(config=SimpleNamespace(**{**config, "cross_attention_dim": 7}))
    other: Any = SimpleNamespace(
        modules={"unet": unet}, family=wanted.family, model=SimpleNamespace(id="narrow"), device=family.ours.device
    )
    with pytest.raises(FailedPrecondition, match="where the model has 7") as refused:
        second.made(
            condition(family.ours, family_of(family.ours), wanted, PromptCache()).renew,
            other,
            family_of(family.ours).encode_reference,
        )
    assert refused.value.facts["model_id"] == "narrow"
    for job in (first, second):
        job.networks.leave()


def test_a_controlnet_that_changed_since_the_request_is_refused(family: Guided, tmp_path: Path) -> None:
    net = family.nets[0]
    wanted = asked(family, controls=(control(net, model_sha256="1" * 64),))
    job = ControlsOfJob("job", wanted, [given(net, MAP, tmp_path)], family.pool)
    with pytest.raises(FailedPrecondition, match="have changed"):
        job.bring(family.ours)


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def test_an_exact_job_that_was_paused_goes_on_to_the_same_picture_and_its_network_leaves_each_time(
    loop: Recorder, tmp_path: Path
) -> None:
    net = write_controlnet(tmp_path / "net", loop.loaded, 2)
    maps = (given(net, stripes(32, 32), tmp_path),)
    size: dict[str, Any] = {"width_px": 32, "height_px": 32, "steps": 4, "sampler": "euler_a"}
    # The job is paused between two prompts, which its network reads as well.
    prompt: dict[str, Any] = {"prompt": "an [owl|cat:red car:0.5]", "prompt_syntax": Syntax.A1111}
    wanted = request(loop.loaded.model, controls=(control(net),), determinism=Determinism.EXACT, **size, **prompt)
    held: list[dict[str, int]] = []

    def pause(job_id: str, report: Report) -> None:
        if isinstance(report, Progressed) and (report.stage, report.completed) == (Stage.DENOISING, 2):
            held.append(loop.loop.resources.control_bytes())
            if job_id == "paused":
                loop.loop.stop(job_id, Stop(kind=StopKind.PAUSE, cause="the device is needed"))

    loop.on_report = pause
    for name in ("whole", "paused"):
        loop.loop.submit(name, Given(loop.loaded.model, wanted, controls=maps))
        # A job without controls shares the device, and no forward, with an exact one.
        loop.loop.submit(f"beside {name}", Given(loop.loaded.model, request(loop.loaded.model, **size)))
        loop.run()
        assert loop.loop.resources.control_bytes() == {}
    (kept,) = loop.of("paused", CheckpointReady)
    assert isinstance(kept, CheckpointReady)
    path = tmp_path / "kept"
    path.write_bytes(kept.data)
    file = KeptFile(path=str(path), sha256=sha256(kept.data).hexdigest())
    loop.loop.submit("resumed", Given(loop.loaded.model, wanted, kept=file, controls=maps))
    loop.run()
    assert loop.files("resumed") == loop.files("whole")
    assert loop.files("beside whole") != loop.files("whole")
    assert all(list(one) == [net.id] for one in held[:1])


def test_a_job_that_is_cancelled_while_its_network_comes_leaves_nothing(loop: Recorder, tmp_path: Path) -> None:
    net = write_controlnet(tmp_path / "net", loop.loaded, 2)
    maps = (given(net, stripes(32, 32), tmp_path),)
    wanted = request(loop.loaded.model, width_px=32, height_px=32, controls=(control(net),))
    loop.loop.submit("left", Given(loop.loaded.model, wanted, controls=maps))
    loop.loop.tick()
    loop.loop.stop("left", Stop(kind=StopKind.CANCEL, cause="not wanted any more"))
    loop.run()
    end = loop.last("left")
    assert isinstance(end, RunStopped)
    assert end.receipt.steps_executed == 0
    assert loop.loop.resources.control_bytes() == {}


class _Late:
    """See `Ready`: the disk has not answered yet."""

    def passed(self) -> bool:
        return False

    def wait(self) -> None:
        raise AssertionError("the thread that steps other jobs waited for a disk")


def test_a_network_whose_next_piece_is_late_keeps_no_other_job_waiting(
    tiny: Model,
) -> None:
    def loading() -> Generator[Ready, None, nn.Module]:
        yield _Late()
        raise AssertionError("the disk never answers")

    net = NetworkLoad(tiny, loading())
    assert net.ready
    assert not net.advance()
    assert not net.ready
    assert not net.advance()
