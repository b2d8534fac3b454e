"""Image to image in the step loop: which steps are computed, what a stop leaves, what the receipt and the file say."""

import io
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from PIL import Image
from torch import Tensor

from domains.imaging import DigitalSource, read_marks
from domains.inference.generation import Previews, ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.families.family import Abandoned
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.networks import slices
from domains.inference.outcome import CheckpointReady, ImageReady, Report, RunFailed, RunFinished, RunStopped
from domains.model.model import Model
from domains.progress import PreviewReady, Progressed, Stage, StageStarted, Unit
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.from_picture import from_picture, gradient, latents_from
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.solvers.test_against_diffusers import CLASSES

CANCEL = Stop(kind=StopKind.CANCEL, cause="not wanted any more")
PAUSE = Stop(kind=StopKind.PAUSE, cause="the device is needed")
SIZE = {"width_px": 64, "height_px": 32}
PIXELS = gradient(64, 32)
WALKS = [("euler", 0.5), ("euler_a", 0.5), ("heun", 0.75), ("dpmpp_2m", 0.5), ("ddim", 0.25), ("unipc", 0.75)]


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def asked(model: Model, strength: float = 0.5, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {"steps": 4, "sampler": "euler", **SIZE}
    return request(model, init_image=from_picture(strength), **{**plain, **changes})


def stored(folder: Path, pixels: Tensor = PIXELS) -> KeptFile:
    data = pixels.numpy().tobytes()
    path = folder / "pixels"
    path.write_bytes(data)
    return KeptFile(path=str(path), sha256=sha256(data).hexdigest())


def run(
    loop: Recorder,
    name: str,
    wanted: ResolvedGeneration,
    picture: KeptFile | None,
    previews: Previews | None = None,
    **given: Any,
) -> Report:
    loop.loop.submit(name, Given(loop.loaded.model, wanted, picture=picture, **given), previews)
    loop.run()
    return loop.last(name)


def shown(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("sampler", "strength"), WALKS)
def test_each_sampler_goes_on_from_a_picture_as_diffusers_does(loop: Recorder, sampler: str, strength: float) -> None:
    wanted = asked(loop.loaded.model, strength, sampler=sampler, seeds=(3, 9), guidance_scale=3.0)
    pipeline: Any = StableDiffusionImg2ImgPipeline(**reference_pipeline(loop.loaded.model).components)
    scheduler, options = CLASSES[sampler]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        [wanted.prompt] * 2,
        image=[Image.fromarray(PIXELS.numpy())] * 2,
        strength=strength,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in wanted.seeds],
        output_type="latent",
    ).images
    ours = latents_from(loop.loaded, wanted, PIXELS)
    assert float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) < 1e-4


@pytest.mark.parametrize(("steps", "strength", "computed"), [(15, 0.05, 1), (30, 0.1, 3), (4, 1.0, 4), (3, 0.5, 2)])
def test_the_share_of_the_steps_is_computed_rounded_up(
    loop: Recorder, tmp_path: Path, steps: int, strength: float, computed: int
) -> None:
    name = f"{steps} steps at {strength}"
    end = run(loop, name, asked(loop.loaded.model, strength, steps=steps), stored(tmp_path))
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == computed
    told = [one for one in loop.of(name, Progressed) if isinstance(one, Progressed) and one.unit is Unit.STEPS]
    assert {one.total for one in told} == {computed}
    assert told[-1].completed == computed


def test_strength_0_gives_the_pixels_back_and_computes_nothing(loop: Recorder, tmp_path: Path) -> None:
    end = run(loop, "kept", asked(loop.loaded.model, 0.0, seeds=(1, 2)), stored(tmp_path))
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 0
    assert [one.stage for one in end.receipt.timings] == [Stage.ENCODING]
    first, second = loop.files("kept")
    assert np.array_equal(shown(first), PIXELS.numpy())
    assert np.array_equal(shown(second), PIXELS.numpy())


def test_the_picture_is_encoded_between_prompts_and_steps_and_the_receipt_says_so(
    loop: Recorder, tmp_path: Path
) -> None:
    wanted = asked(loop.loaded.model, seeds=(1, 2))
    end = run(loop, "told", wanted, stored(tmp_path))
    assert isinstance(end, RunFinished)
    stages = [one.stage for one in loop.of("told", StageStarted) if isinstance(one, StageStarted)]
    expected = [Stage.CONDITIONING, Stage.ENCODING_INPUT, Stage.DENOISING, Stage.DECODING, Stage.ENCODING]
    assert stages == expected == [one.stage for one in end.receipt.timings]
    files = loop.files("told")
    assert len(files) == 2
    assert files[0] != files[1]
    assert {mark.source_type for mark in read_marks(files[0])} == {
        DigitalSource.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA
    }


def test_several_pictures_equal_single_ones(loop: Recorder, tmp_path: Path) -> None:
    run(loop, "both", asked(loop.loaded.model, seeds=(1, 2)), stored(tmp_path))
    run(loop, "second", asked(loop.loaded.model, seeds=(2,)), stored(tmp_path))
    assert np.abs(shown(loop.files("both")[1]).astype(int) - shown(loop.files("second")[0]).astype(int)).max() <= 1


def test_previews_are_of_the_steps_that_are_computed(loop: Recorder, tmp_path: Path) -> None:
    wanted = asked(loop.loaded.model, 0.75)
    previews = type(wanted.previews)(every_steps=1, max_edge_px=16)
    run(loop, "seen", wanted, stored(tmp_path), previews=previews)
    assert {one.step for one in loop.of("seen", PreviewReady) if isinstance(one, PreviewReady)} <= {1, 2}
    assert loop.of("seen", PreviewReady)


def test_a_cancel_takes_effect_within_the_encoding_of_the_picture(
    loop: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICED_FROM_FLOP", 1)
    monkeypatch.setattr(slices, "PIECE_FLOP", 2**12)
    looks = 0

    def stop_of(job_id: str) -> Stop | None:
        nonlocal looks
        stages = [one.stage for one in loop.of(job_id, StageStarted) if isinstance(one, StageStarted)]
        looks += stages[-1:] == [Stage.ENCODING_INPUT]
        return CANCEL if looks == 5 else None

    loop.stop_of = stop_of
    try:
        end = run(loop, "left", asked(loop.loaded.model), stored(tmp_path))
    finally:
        loop.stop_of = lambda job_id: None
    assert isinstance(end, RunStopped)
    assert (end.stage, end.receipt.steps_executed, looks) == (Stage.ENCODING_INPUT, 0, 5)


def test_slices_of_the_encoder_make_the_latents_of_the_whole(loop: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    family = family_of(loop.loaded)
    with torch.inference_mode():
        whole = family.encode_picture(PIXELS)
        monkeypatch.setattr(slices, "SLICED_FROM_FLOP", 1)
        monkeypatch.setattr(slices, "PIECE_FLOP", 2**12)
        looks: list[int] = []
        sliced = family.encode_picture(PIXELS, lambda: looks.append(1))
        with pytest.raises(Abandoned):
            family.encode_picture(PIXELS, _leave)
    assert len(looks) > 50
    torch.testing.assert_close(sliced.mean, whole.mean, rtol=1e-4, atol=1e-5)


def _leave() -> None:
    raise Abandoned


@pytest.mark.parametrize("step", [0, 1])
def test_a_paused_job_goes_on_to_the_same_picture(loop: Recorder, tmp_path: Path, step: int) -> None:
    wanted, picture = asked(loop.loaded.model, 0.75, sampler="euler_a"), stored(tmp_path)
    run(loop, f"whole {step}", wanted, picture)
    at = Progressed(stage=Stage.DENOISING, completed=step, total=3, unit=Unit.STEPS)

    def pause(job_id: str, report: Report) -> None:
        if job_id == f"paused {step}" and report == at:
            loop.loop.stop(job_id, PAUSE)

    loop.on_report = pause
    assert isinstance(run(loop, f"paused {step}", wanted, picture), RunStopped)
    (kept,) = loop.of(f"paused {step}", CheckpointReady)
    assert isinstance(kept, CheckpointReady)
    path = tmp_path / "kept"
    path.write_bytes(kept.data)
    file = KeptFile(path=str(path), sha256=sha256(kept.data).hexdigest())
    end = run(loop, f"resumed {step}", wanted, picture, kept=file)
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 3 - step
    assert Stage.ENCODING_INPUT not in {one.stage for one in end.receipt.timings}
    assert loop.files(f"resumed {step}") == loop.files(f"whole {step}")


def test_a_checkpoint_of_another_strength_is_not_continued(loop: Recorder, tmp_path: Path) -> None:
    wanted, picture = asked(loop.loaded.model, 0.75), stored(tmp_path)
    at = Progressed(stage=Stage.DENOISING, completed=1, total=3, unit=Unit.STEPS)

    def pause(job_id: str, report: Report) -> None:
        if job_id == "first" and report == at:
            loop.loop.stop(job_id, PAUSE)

    loop.on_report = pause
    run(loop, "first", wanted, picture)
    (kept,) = loop.of("first", CheckpointReady)
    assert isinstance(kept, CheckpointReady)
    path = tmp_path / "kept"
    path.write_bytes(kept.data)
    file = KeptFile(path=str(path), sha256=sha256(kept.data).hexdigest())
    end = run(loop, "other", asked(loop.loaded.model, 1.0), picture, kept=file)
    assert isinstance(end, RunFinished)
    assert [one.kind for one in end.receipt.degradations] == ["checkpoint_dropped"]
    assert end.receipt.steps_executed == 4


@pytest.mark.parametrize("fault", ["gone", "changed", "short"])
def test_pixels_that_are_not_those_that_were_written_fail_the_job(loop: Recorder, tmp_path: Path, fault: str) -> None:
    picture = stored(tmp_path)
    match fault:
        case "gone":
            Path(picture.path).unlink()
        case "changed":
            Path(picture.path).write_bytes(bytes(64 * 32 * 3))
        case _:
            picture = stored(tmp_path, gradient(32, 32))
    end = run(loop, fault, asked(loop.loaded.model), picture)
    assert isinstance(end, RunFailed)
    assert end.reason == "BLOB_CORRUPT"


def test_a_picture_whose_latents_are_no_numbers_fails_at_its_encoding(loop: Recorder, tmp_path: Path) -> None:
    weight = next(loop.loaded.modules["vae"].get_submodule("encoder").parameters())
    before = weight.data.clone()
    weight.data.fill_(float("nan"))
    try:
        end = run(loop, "nan", asked(loop.loaded.model), stored(tmp_path))
    finally:
        weight.data.copy_(before)
    assert isinstance(end, RunFailed)
    assert (end.reason, end.facts["stage"]) == ("NUMERIC_FAILURE", "encoding_input")
    assert not loop.of("nan", ImageReady)
