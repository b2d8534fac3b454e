"""Inpainting in the step loop: which bytes stay, what fills the mask, what a pause keeps, and what shares a forward."""

from collections.abc import Iterator
from pathlib import Path
from threading import current_thread
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from PIL import Image
from torch import Tensor

from domains.inference.generation import Determinism, ResolvedGeneration
from domains.inference.given import Given
from domains.inference.init_image import ResolvedInitImage
from domains.inference.kept_file import KeptFile
from domains.inference.masks import MaskBlend, MaskFill, ResolvedMask
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.scene import Scene
from domains.inference.on_device.trajectory import begin, walk_together
from domains.inference.outcome import CheckpointReady, Report, RunFailed, RunFinished, RunStopped
from domains.model.model import Model
from domains.progress import Progressed, Stage, Unit
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.from_picture import from_picture, gradient
from tests.domains.inference.on_device.masked import Pixels, begun_masked, levels, mask, masked_latents
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents, reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_image_to_image import shown, stored
from tests.domains.inference.solvers.test_against_diffusers import CLASSES

PAUSE = Stop(kind=StopKind.PAUSE, cause="the device is needed")
PICTURE = gradient(64, 32)
WHITE = levels(64, 32, (24, 8, 48, 24))
WALKS = [("euler", 0.5), ("euler", 1.0), ("euler_a", 0.75), ("dpmpp_2m", 0.75), ("ddim", 1.0), ("unipc", 0.75)]


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def asked(model: Model, strength: float = 0.75, of: ResolvedMask | None = None, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {"steps": 4, "sampler": "euler", "width_px": 64, "height_px": 32}
    plain |= {"init_image": from_picture(strength), "mask": of or mask()}
    return request(model, **{**plain, **changes})


def run(
    loop: Recorder,
    folder: Path,
    name: str,
    wanted: ResolvedGeneration,
    white: Pixels = WHITE,
    picture: Tensor = PICTURE,
    **given: Any,
) -> Report:
    here = folder / name
    (here / "mask").mkdir(parents=True)
    files = {"picture": stored(here, picture)}
    if wanted.mask is not None:
        files["mask"] = stored(here / "mask", torch.from_numpy(white))
    loop.loop.submit(name, Given(loop.loaded.model, wanted, **files, **given))
    loop.run()
    return loop.last(name)


def picture_of(loop: Recorder, name: str) -> Pixels:
    return shown(loop.files(name)[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("sampler", "strength"), WALKS)
def test_each_sampler_makes_the_masked_part_as_diffusers_does(loop: Recorder, sampler: str, strength: float) -> None:
    wanted = asked(loop.loaded.model, strength, sampler=sampler, seeds=(3, 9), guidance_scale=3.0)
    pipeline: Any = StableDiffusionInpaintPipeline(**reference_pipeline(loop.loaded.model).components)
    scheduler, options = CLASSES[sampler]
    # Diffusers' DDIM clips to −1..1 where the config is silent, which is wrong for latents.
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        [wanted.prompt] * 2,
        image=[Image.fromarray(PICTURE.numpy())] * 2,
        mask_image=[Image.fromarray(WHITE)] * 2,
        width=64,
        height=32,
        strength=strength,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in wanted.seeds],
        output_type="latent",
    ).images
    ours = masked_latents(loop.loaded, wanted, PICTURE, WHITE)
    assert float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) < 1e-4


@pytest.mark.parametrize("blend", list(MaskBlend))
def test_pixels_outside_the_mask_keep_their_bytes(loop: Recorder, tmp_path: Path, blend: MaskBlend) -> None:
    of = mask(blend=blend, blur_px=4, dilation_px=3)
    assert isinstance(run(loop, tmp_path, f"kept {blend}", asked(loop.loaded.model, of=of)), RunFinished)
    outside = np.ones((32, 64), bool)
    outside[5:27, 21:51] = False
    found, before = picture_of(loop, f"kept {blend}"), PICTURE.numpy()
    np.testing.assert_array_equal(found[outside], before[outside])
    assert (found[12:20, 28:44] != before[12:20, 28:44]).mean() > 0.5


def test_masks_are_drawn_beside_the_thread_that_steps(
    loop: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draws = list[str](), Scene.draw

    def draw(scene: Scene) -> None:
        drawn.append(current_thread().name)
        draws(scene)

    monkeypatch.setattr(Scene, "draw", draw)
    assert isinstance(run(loop, tmp_path, "drawn", asked(loop.loaded.model)), RunFinished)
    assert [name.partition("_")[0] for name in drawn] == ["encode"]


def test_an_inverted_mask_keeps_what_is_white(loop: Recorder, tmp_path: Path) -> None:
    run(loop, tmp_path, "inverted", asked(loop.loaded.model, of=mask(invert=True)))
    found, before = picture_of(loop, "inverted"), PICTURE.numpy()
    np.testing.assert_array_equal(found[8:24, 24:48], before[8:24, 24:48])
    assert (found[:, :24] != before[:, :24]).mean() > 0.5


def test_a_mask_of_everything_gives_the_picture_of_image_to_image(loop: Recorder, tmp_path: Path) -> None:
    run(loop, tmp_path, "all", asked(loop.loaded.model), np.full((32, 64), 255, np.uint8))
    wanted = request(loop.loaded.model, asked(loop.loaded.model), mask=None)
    run(loop, tmp_path, "whole", wanted)
    np.testing.assert_array_equal(picture_of(loop, "all"), picture_of(loop, "whole"))


@pytest.mark.parametrize(("name", "strength"), [("black", 0.75), ("no strength", 0.0)])
def test_without_a_pixel_or_a_step_to_make_the_picture_comes_back_as_it_is(
    loop: Recorder, tmp_path: Path, name: str, strength: float
) -> None:
    white = WHITE if name == "no strength" else np.zeros_like(WHITE)
    end = run(loop, tmp_path, name, asked(loop.loaded.model, strength), white)
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 0
    assert [one.kind for one in end.receipt.degradations] == (["mask_empty"] if name == "black" else [])
    np.testing.assert_array_equal(picture_of(loop, name), PICTURE.numpy())


@pytest.mark.parametrize("fill", list(MaskFill))
def test_only_the_original_fill_shows_what_was_there(loop: Recorder, tmp_path: Path, fill: MaskFill) -> None:
    other = PICTURE.clone()
    other[8:24, 24:48] = 255 - other[8:24, 24:48]
    wanted = asked(loop.loaded.model, 0.5, of=mask(fill=fill))
    run(loop, tmp_path, f"one {fill}", wanted)
    run(loop, tmp_path, f"other {fill}", wanted, picture=other)
    same = np.array_equal(picture_of(loop, f"one {fill}"), picture_of(loop, f"other {fill}"))
    assert same == (fill is not MaskFill.ORIGINAL)


def test_the_fills_differ(loop: Recorder) -> None:
    found = [
        masked_latents(loop.loaded, asked(loop.loaded.model, 0.5, of=mask(fill=fill)), PICTURE, WHITE)
        for fill in MaskFill
    ]
    assert all(float((one - two).abs().max()) > 0.01 for one, two in zip(found, (*found[1:], found[0]), strict=True))


def test_grey_is_a_share_of_the_steps(loop: Recorder) -> None:
    """A pixel of half the steps equals the picture until then, and is free for as many as with half the strength."""
    wanted = asked(loop.loaded.model, 1.0)
    with torch.inference_mode():
        trajectory = begun_masked(loop.loaded, wanted, PICTURE, levels(64, 32, (0, 0, 64, 32), 127))
        free: list[bool] = []
        while not trajectory.done:
            before = trajectory.latents
            walk_together([trajectory])
            mask_kept = trajectory.kept()
            clean, noise = mask_kept["mask.clean"], mask_kept["mask.noise"]
            # The picture at this level is a mix of the two: what is left of the latents shows whether they are held.
            basis = torch.stack([clean.flatten(), noise.flatten()], dim=1)
            rest = (
                trajectory.latents.flatten() - basis @ torch.linalg.lstsq(basis, trajectory.latents.flatten()).solution
            )
            free.append(float(rest.abs().max()) > 1e-3)
            assert not torch.equal(before, trajectory.latents)
    assert free == [False, False, True, True]


@pytest.mark.parametrize("keeps_size", [False, True])
def test_a_zoom_makes_the_surroundings_at_the_full_size_and_puts_them_back(
    loop: Recorder, tmp_path: Path, keeps_size: bool
) -> None:
    size = (96, 80) if keeps_size else (64, 32)
    picture, white = gradient(*size), levels(*size, (40, 8, 48, 16))
    start = from_picture(0.75)
    if keeps_size:
        start = ResolvedInitImage(blob_id="b-1", sha256="0" * 64, strength=0.75, fit=None, own_size_px=size)
    wanted = asked(loop.loaded.model, of=mask(zoom_padding_px=4), init_image=start)
    name = f"zoomed {keeps_size}"
    assert isinstance(run(loop, tmp_path, name, wanted, white, picture), RunFinished)
    found, before = picture_of(loop, name), picture.numpy()
    assert found.shape == before.shape
    np.testing.assert_array_equal(found[white == 0], before[white == 0])
    assert (found[8:16, 40:48] != before[8:16, 40:48]).mean() > 0.5
    # Pixels that are not cut out have no influence; those beside the mask have.
    far, near = picture.clone(), picture.clone()
    far[:, :20] = 0
    near[4:8, 40:48] = 0
    for place, other in {"far": far, "near": near}.items():
        run(loop, tmp_path, f"{name} {place}", wanted, white, other)
        same = np.array_equal(picture_of(loop, f"{name} {place}")[8:16, 40:48], found[8:16, 40:48])
        assert same == (place == "far")


def kept_at(
    loop: Recorder,
    folder: Path,
    name: str,
    wanted: ResolvedGeneration,
    step: int,
    white: Pixels = WHITE,
    picture: Tensor = PICTURE,
) -> KeptFile:
    at = Progressed(stage=Stage.DENOISING, completed=step, total=wanted.computed_steps, unit=Unit.STEPS)

    def pause(job_id: str, report: Report) -> None:
        if job_id == name and report == at:
            loop.loop.stop(job_id, PAUSE)

    loop.on_report = pause
    assert isinstance(run(loop, folder, name, wanted, white, picture), RunStopped)
    (kept,) = loop.of(name, CheckpointReady)
    assert isinstance(kept, CheckpointReady)
    return stored(folder, torch.frombuffer(bytearray(kept.data), dtype=torch.uint8))


@pytest.mark.parametrize("step", [0, 2])
def test_a_paused_part_goes_on_to_the_same_bytes(loop: Recorder, tmp_path: Path, step: int) -> None:
    of = mask(blend=MaskBlend.FEATHER, blur_px=4, fill=MaskFill.EDGE)
    wanted = asked(loop.loaded.model, of=of, sampler="euler_a", determinism=Determinism.EXACT)
    run(loop, tmp_path, f"whole {step}", wanted)
    kept = kept_at(loop, tmp_path, f"paused {step}", wanted, step)
    end = run(loop, tmp_path, f"resumed {step}", wanted, kept=kept)
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 3 - step
    assert loop.files(f"resumed {step}") == loop.files(f"whole {step}")


def test_a_checkpoint_of_another_mask_is_not_continued(loop: Recorder, tmp_path: Path) -> None:
    kept = kept_at(loop, tmp_path, "one mask", asked(loop.loaded.model), 1)
    end = run(loop, tmp_path, "another mask", asked(loop.loaded.model, of=mask(dilation_px=2)), kept=kept)
    assert isinstance(end, RunFinished)
    assert [one.kind for one in end.receipt.degradations] == ["checkpoint_dropped"]


def test_masked_and_plain_jobs_share_forwards(loop: Recorder) -> None:
    masked = asked(loop.loaded.model, sampler="euler_a", seeds=(1, 2))
    plain = request(loop.loaded.model, masked, init_image=None, mask=None, seeds=(5,))
    alone = [masked_latents(loop.loaded, masked, PICTURE, WHITE), final_latents(loop.loaded, plain)]
    with torch.inference_mode():
        family, loaded = family_of(loop.loaded), loop.loaded
        found = condition(loaded, family, plain, PromptCache())
        other = begin(family, plain, loaded.scheduler_config, found.conditions, loaded.device)
        group = [begun_masked(loaded, masked, PICTURE, WHITE), other]
        assert group[0].alike == group[1].alike
        while walking := [one for one in group if not one.done]:
            walk_together(walking)
    for one, latents in zip(group, alone, strict=True):
        torch.testing.assert_close(one.latents, latents, rtol=1e-4, atol=1e-4)


def test_a_mask_file_that_has_changed_fails_the_job(loop: Recorder, tmp_path: Path) -> None:
    end = run(loop, tmp_path, "short", asked(loop.loaded.model), WHITE[:16])
    assert isinstance(end, RunFailed)
    assert end.reason == "BLOB_CORRUPT"
