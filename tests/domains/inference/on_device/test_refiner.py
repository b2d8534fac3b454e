"""The refiner of SDXL: its latents are those of diffusers after the hand-over, and a pause in it changes nothing."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from msgspec.structs import replace
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.latents import ResolvedLatents
from domains.inference.on_device.latent_file import latents_file
from domains.inference.outcome import CheckpointReady, ModelLoaded, Report, RunFinished, RunStopped
from domains.inference.refiner import ResolvedRefiner
from domains.inference.size_conditioning import SizeConditioning
from domains.model.model import Model
from domains.model.on_device import load
from domains.progress import Progressed, Stage, StageStarted
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.image_prompt_files import EDGE_PX as EDGE
from tests.domains.inference.on_device.image_prompt_files import given as shown_files
from tests.domains.inference.on_device.image_prompt_files import image_prompt, picture, write_adapter, write_encoder
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_hires import far, files, final_latents, hires
from tests.domains.inference.on_device.test_latents import handed
from tests.domains.inference.on_device.tiny_families import their_pipeline, write_other_sdxl, write_tiny_family
from tests.domains.inference.on_device.tiny_refiner import write_tiny_refiner
from tests.domains.inference.solvers.test_against_diffusers import CLASSES

_diffusers: Any = diffusers
PAUSE = Stop(kind=StopKind.PAUSE, cause="the device is needed")
STEPS, EDGE_PX = 5, 64


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """The base and the refiner."""
    folder = tmp_path_factory.mktemp("refined")
    return write_tiny_family("sdxl", folder / "sdxl"), write_tiny_refiner(folder / "refiner")


@pytest.fixture(scope="module")
def loop(models: tuple[Model, Model]) -> Iterator[Recorder]:
    recorder = Recorder(models[0])
    yield recorder
    recorder.loop.close()


def asked(models: tuple[Model, Model], start: float = 0.6, **changes: Any) -> ResolvedGeneration:
    base, refiner = models
    plain: dict[str, Any] = {
        "width_px": EDGE_PX,
        "height_px": EDGE_PX,
        "steps": STEPS,
        "sampler": "euler",
        "seeds": (3, 4),
        "negative_prompt": "fog",
        "return_latents": True,
        "refiner": ResolvedRefiner(
            model_id=refiner.id,
            model_sha256=refiner.sha256,
            family=refiner.family,
            start_ratio=start,
            aesthetic_score=7.0,
            negative_aesthetic_score=2.0,
        ),
    }
    return request(base, **{**plain, **changes})


def run(
    loop: Recorder,
    models: tuple[Model, Model],
    wanted: ResolvedGeneration,
    at: Callable[[Report], bool] | None = None,
    **given: Any,
) -> list[Report]:
    name = f"refined {len(loop.order)}"

    def pause(job_id: str, report: Report) -> None:
        if at is not None and job_id == name and at(report):
            loop.loop.stop(job_id, PAUSE)

    loop.on_report = pause
    loop.loop.submit(name, Given(models[0], wanted, later=models[1:], **given))
    loop.run()
    loop.last(name)
    return loop.reports[name]


def between(scheduler: Any, steps: int, done: int) -> float:
    """Diffusers' share of the trained timesteps at which so many of the steps are done."""
    scheduler.set_timesteps(steps)
    before, after = (float(scheduler.timesteps[place]) for place in (done - 1, done))
    return 1 - (before + after) / 2 / scheduler.config.num_train_timesteps


def theirs(models: tuple[Model, Model], wanted: ResolvedGeneration, base: Any = None, **of_base: Any) -> Tensor:
    """The latents of diffusers' ensemble of experts. `base`: its first pipeline, which `of_base` is told, too."""
    assert wanted.refiner is not None
    base = base or their_pipeline(Path(models[0].folder))
    refiner: Any = _diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(
        models[1].folder,
        dtype=torch.float32,
        text_encoder=None,
        tokenizer=None,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )
    refiner.set_progress_bar_config(disable=True)
    kind, options = CLASSES[wanted.sampler]
    for pipe in (base, refiner):
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **{"clip_sample": False, **options})
    start = between(base.scheduler, wanted.steps, wanted.refiner.first_step(wanted.steps))
    generators = [torch.Generator().manual_seed(seed) for seed in wanted.seeds]
    told: dict[str, Any] = {
        "prompt": [wanted.prompt] * len(wanted.seeds),
        "negative_prompt": [wanted.negative_prompt] * len(wanted.seeds),
        "num_inference_steps": wanted.steps,
        "guidance_scale": wanted.guidance_scale,
        "generator": generators,
        "output_type": "latent",
    }
    sizes = {"original_size": (96, 80), "crops_coords_top_left": (8, 4)} if wanted.size_conditioning else {}
    cropped = {"negative_crops_coords_top_left": sizes["crops_coords_top_left"]} if sizes else {}
    half = base(**told, **sizes, **of_base, denoising_end=start, height=EDGE_PX, width=EDGE_PX).images
    scores = {"aesthetic_score": 7.0, "negative_aesthetic_score": 2.0}
    return refiner(**told, **sizes, **cropped, image=half, denoising_start=start, **scores).images


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("start", [0.6, 0.8])
def test_the_latents_are_those_of_diffusers_after_the_hand_over(
    loop: Recorder, models: tuple[Model, Model], sampler: str, start: float
) -> None:
    wanted = asked(models, start, sampler=sampler, eta=0.0 if sampler == "ddim" else None)
    assert far(handed(run(loop, models, wanted)), theirs(models, wanted)) < 1e-4


def test_sizes_and_an_empty_negative_prompt_are_read_as_diffusers_does(
    loop: Recorder, models: tuple[Model, Model]
) -> None:
    told = SizeConditioning(original_px=(80, 96), crop_left_px=4, crop_top_px=8)
    wanted = asked(models, size_conditioning=told)
    assert far(handed(run(loop, models, wanted)), theirs(models, wanted)) < 1e-4


@pytest.fixture(scope="module")
def shown(models: tuple[Model, Model], tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """An IP-Adapter for the base, and its encoder."""
    folder = tmp_path_factory.mktemp("shown")
    unet = load(models[0], "cpu").modules["unet"]
    return write_adapter(folder / "plain.safetensors", unet), write_encoder(folder / "image_encoder")


def with_adapter(models: tuple[Model, Model], shown: tuple[Model, Model], weight: float) -> Any:
    """Diffusers' base with an IP-Adapter."""
    base = their_pipeline(Path(models[0].folder))
    encoder: Any = transformers.CLIPVisionModelWithProjection.from_pretrained(shown[1].folder)
    reader = transformers.CLIPImageProcessor(size=EDGE, crop_size=EDGE)
    base.register_modules(image_encoder=encoder.eval(), feature_extractor=reader)
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in load_file(Path(shown[0].folder) / "plain.safetensors").items():
        part, _, rest = key.partition(".")
        parts[part][rest] = tensor
    base.load_ip_adapter(parts, subfolder="", weight_name="")
    base.set_ip_adapter_scale(weight)
    return base


def test_a_picture_guides_the_base_until_the_hand_over_as_in_diffusers(
    loop: Recorder, models: tuple[Model, Model], shown: tuple[Model, Model], tmp_path: Path
) -> None:
    seen = picture(1)
    files = (shown_files(*shown, [seen], tmp_path),)
    wanted = asked(models, image_prompts=(image_prompt(*shown, weight=0.8),))
    found = handed(run(loop, models, wanted, image_prompts=files))
    base = with_adapter(models, shown, 0.8)
    images = {"ip_adapter_image": [[Image.fromarray(np.asarray(seen))]]}
    assert far(found, theirs(models, wanted, base, **images)) < 1e-4
    assert far(found, handed(run(loop, models, asked(models)))) > 1e-3
    # A range counts the steps of both models: three of the five are the base's.
    for end, same in ((0.6, True), (0.4, False)):
        some = asked(models, image_prompts=(image_prompt(*shown, weight=0.8, end_ratio=end),))
        assert torch.equal(handed(run(loop, models, some, image_prompts=files)), found) is same
    assert loop.loop.resources.control_bytes() == {}


def test_a_picture_guides_a_second_pass_of_another_model(
    loop: Recorder,
    models: tuple[Model, Model],
    shown: tuple[Model, Model],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    other = write_other_sdxl(tmp_path / "other")
    files = (shown_files(*shown, [picture(1)], tmp_path),)
    second = hires(width_px=96, height_px=96, strength=1.0, model_id=other.id, model_sha256=other.sha256)
    guided = asked(models, refiner=None, hires_pass=second, return_latents=False, image_prompts=(image_prompt(*shown),))
    found = final_latents(loop, guided, monkeypatch, image_prompts=files, later=(other,))
    # A job of the other model that begins with the enlarged latents makes the same.
    made = final_latents(loop, replace(guided, hires_pass=None), monkeypatch, image_prompts=files)
    enlarged = torch.nn.functional.interpolate(made, scale_factor=1.5, mode="bicubic")
    alone = Recorder(other)
    own = replace(
        request(other, image_prompts=guided.image_prompts, init_latents=ResolvedLatents(strength=1.0)),
        **{name: getattr(guided, name) for name in ("prompt", "negative_prompt")},
        **{name: getattr(second, name) for name in ("width_px", "height_px", "steps", "sampler", "guidance_scale")},
    )
    for place, seed in enumerate(guided.seeds):
        start = latents_file(enlarged[place : place + 1])
        path = tmp_path / f"start-{place}.safetensors"
        path.write_bytes(start)
        kept = KeptFile(path=str(path), sha256=sha256(start).hexdigest())
        one = final_latents(alone, replace(own, seeds=(seed,)), monkeypatch, image_prompts=files, latents=kept)
        assert far(found[place : place + 1], one) < 1e-4
    alone.loop.close()
    assert far(found, final_latents(loop, replace(guided, image_prompts=()), monkeypatch, later=(other,))) > 1e-3


def test_stages_and_models_tell_the_hand_over(loop: Recorder, models: tuple[Model, Model]) -> None:
    reports = run(loop, models, asked(models))
    stages = [one.stage for one in reports if isinstance(one, StageStarted)]
    assert stages[-6:] == [
        *(Stage.CONDITIONING, Stage.DENOISING, Stage.CONDITIONING, Stage.REFINING, Stage.DECODING, Stage.ENCODING)
    ]
    assert [one.loaded.model_id for one in reports if isinstance(one, ModelLoaded)] == [one.id for one in models]
    end = reports[-1]
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == STEPS


@pytest.mark.parametrize(("start", "stage"), [(0.0, Stage.REFINING), (1.0, Stage.DENOISING)])
def test_one_of_the_models_can_compute_all_steps(
    loop: Recorder, models: tuple[Model, Model], start: float, stage: Stage
) -> None:
    reports = run(loop, models, asked(models, start))
    steps = {(one.stage, one.total) for one in reports if isinstance(one, Progressed) and one.unit == "steps"}
    assert steps == {(stage, STEPS)}
    if start:
        assert torch.equal(handed(reports), handed(run(loop, models, asked(models, refiner=None))))


def _stepped(stage: Stage, step: int) -> Callable[[Report], bool]:
    return lambda report: isinstance(report, Progressed) and (report.stage, report.completed) == (stage, step)


PAUSES: dict[str, Callable[[Report], bool]] = {
    "in the base": _stepped(Stage.DENOISING, 2),
    "at the hand-over": _stepped(Stage.DENOISING, 3),
    "in the refiner": _stepped(Stage.REFINING, 1),
    "in the second pass": _stepped(Stage.HIRES, 1),
}


@pytest.mark.parametrize("when", list(PAUSES))
def test_a_pause_around_the_hand_over_leaves_the_picture_bit_exact(
    loop: Recorder, models: tuple[Model, Model], tmp_path: Path, when: str
) -> None:
    second = hires(width_px=96, height_px=96, sampler="euler_a")
    wanted = asked(models, sampler="euler_a", hires_pass=second)
    whole = run(loop, models, wanted)
    last, end = run(loop, models, wanted, PAUSES[when])[-2:]
    assert isinstance(last, CheckpointReady)
    assert isinstance(end, RunStopped)
    path = tmp_path / "kept.safetensors"
    path.write_bytes(last.data)
    resumed = run(loop, models, wanted, kept=KeptFile(path=str(path), sha256=sha256(last.data).hexdigest()))
    assert files(resumed) == files(whole)
    assert torch.equal(handed(resumed), handed(whole))
    done = resumed[-1]
    assert isinstance(done, RunFinished)
    assert not done.receipt.degradations


def test_a_model_in_use_as_refiner_is_not_unloaded(loop: Recorder, models: tuple[Model, Model]) -> None:
    refused: list[str] = []

    def unload(job_id: str, report: Report) -> None:
        if isinstance(report, Progressed) and report.stage is Stage.DENOISING and not refused:
            with pytest.raises(Exception, match="in use") as error:
                loop.loop.unload(models[1].id)
            refused.append(str(error.value))

    loop.on_report = unload
    loop.loop.submit("held", Given(models[0], asked(models), later=models[1:]))
    loop.run()
    assert refused
    assert loop.loop.unload(models[1].id) > 0
    assert isinstance(run(loop, models, asked(models))[-1], RunFinished)
