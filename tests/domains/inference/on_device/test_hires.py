"""The second pass at a larger size: its latents are those of diffusers, and a pause in it changes nothing."""

import io
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from PIL import Image
from torch import Tensor

from domains.inference.generation import Previews, ResolvedGeneration
from domains.inference.given import Given
from domains.inference.hires import ResolvedHires
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.families.latent_codec import LatentCodec
from domains.inference.outcome import CheckpointReady, ImageReady, Report, RunFailed, RunFinished, RunStopped
from domains.inference.regions import Rectangle, ResolvedRegion
from domains.inference.resampling import Resampling
from domains.model.model import Model
from domains.progress import PreviewReady, Progressed, Stage, StageStarted, Unit
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.control_files import stored
from tests.domains.inference.on_device.image_prompt_files import (
    given,
    image_prompt,
    picture,
    write_adapter,
    write_encoder,
)
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import reference_latents, reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_families import write_tiny_family

PAUSE = Stop(kind=StopKind.PAUSE, cause="the device is needed")
STEPS, AGAIN = 3, 4
FIRST, SECOND = (32, 16), (48, 32)
"""Sizes of the passes."""


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def hires(**changes: Any) -> ResolvedHires:
    plain: dict[str, Any] = {
        "width_px": SECOND[0],
        "height_px": SECOND[1],
        "filter": Resampling.BICUBIC,
        "of_pixels": False,
        "strength": 0.5,
        "steps": AGAIN,
        "sampler": "euler",
        "sigma_schedule": "normal",
        "guidance_scale": 4.0,
        "eta": None,
    }
    return ResolvedHires(**{**plain, **changes})


def asked(model: Model, second: ResolvedHires | None = None, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {"width_px": FIRST[0], "height_px": FIRST[1], "steps": STEPS, "sampler": "euler"}
    plain["seeds"] = (3, 4)
    return request(model, hires_pass=second or hires(), **{**plain, **changes})


def run(
    loop: Recorder, wanted: ResolvedGeneration, at: Callable[[Report], bool] | None = None, **given: Any
) -> list[Report]:
    """The reports of a run; it is paused at the first one that `at` selects."""
    name = f"hires {len(loop.order)}"

    def pause(job_id: str, report: Report) -> None:
        if at is not None and job_id == name and at(report):
            loop.loop.stop(job_id, PAUSE)

    loop.on_report = pause
    loop.loop.submit(name, Given(loop.loaded.model, wanted, **given), Previews(every_steps=1, max_edge_px=16))
    loop.run()
    loop.last(name)
    return loop.reports[name]


def files(reports: list[Report]) -> list[bytes]:
    return [one.data for one in reports if isinstance(one, ImageReady)]


def final_latents(loop: Recorder, wanted: ResolvedGeneration, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Tensor:
    """What is decoded into the pictures."""
    found: list[Tensor] = []
    decode = LatentCodec.decode

    def spy(self: LatentCodec, latents: Tensor, *more: Any) -> Any:
        found.append(latents.clone())
        return decode(self, latents, *more)

    monkeypatch.setattr(LatentCodec, "decode", spy)
    assert isinstance(run(loop, wanted, **given)[-1], RunFinished)
    return torch.cat(found[-len(wanted.seeds) :])


def their_second(model: Model, wanted: ResolvedGeneration, start: Any, strength: float) -> Tensor:
    pipe: Any = StableDiffusionImg2ImgPipeline(**reference_pipeline(model).components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        [wanted.prompt] * len(wanted.seeds),
        image=start,
        strength=strength,
        num_inference_steps=AGAIN,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(seed) for seed in wanted.seeds],
        output_type="latent",
    ).images


def far(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))


@pytest.mark.parametrize(
    ("by", "mode"), [(Resampling.BICUBIC, "bicubic"), (Resampling.NEAREST, "nearest-exact"), (Resampling.AREA, "area")]
)
def test_the_latents_of_the_second_pass_are_those_of_diffusers(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch, by: Resampling, mode: str
) -> None:
    wanted = asked(tiny, hires(filter=by))
    first = reference_latents(reference_pipeline(tiny), wanted)
    start = torch.nn.functional.interpolate(first, size=(SECOND[1] // 2, SECOND[0] // 2), mode=mode)
    theirs = their_second(tiny, wanted, start, 0.5)
    assert far(final_latents(loop, wanted, monkeypatch), theirs) < 1e-4


def test_enlarged_pixels_are_those_of_diffusers_and_pillow(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = asked(tiny, hires(filter=Resampling.LANCZOS, of_pixels=True, strength=0.75))
    pipe = reference_pipeline(tiny)
    first = reference_latents(pipe, wanted)
    with torch.no_grad():
        pixels = pipe.image_processor.postprocess(pipe.vae.decode(first / pipe.vae.config.scaling_factor).sample)
    start = [one.resize(SECOND, Image.Resampling.LANCZOS) for one in pixels]
    theirs = their_second(tiny, wanted, start, 0.75)
    assert far(final_latents(loop, wanted, monkeypatch), theirs) < 1e-4


def test_without_strength_the_enlarged_picture_is_the_result(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = asked(tiny, hires(strength=0.0))
    first = reference_latents(reference_pipeline(tiny), wanted)
    size = SECOND[1] // 2, SECOND[0] // 2
    theirs = torch.nn.functional.interpolate(first, size=size, mode="bicubic")
    assert far(final_latents(loop, wanted, monkeypatch), theirs) < 1e-4


def test_a_region_lies_at_the_same_place_in_both_passes(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Rectangle(left_px=0, top_px=0, width_px=FIRST[0], height_px=FIRST[1])
    regional = asked(tiny, regions=(ResolvedRegion(rectangle=whole, prompt="a cactus"),))
    plain = final_latents(loop, asked(tiny, prompt="a cactus"), monkeypatch)
    assert far(final_latents(loop, regional, monkeypatch, regions=(None,)), plain) < 1e-4


def test_a_masked_region_and_shown_pictures_count_in_both_passes(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = Rectangle(left_px=0, top_px=0, width_px=FIRST[0] // 2, height_px=FIRST[1])
    pixels = torch.zeros(FIRST[1], FIRST[0], 1, dtype=torch.uint8)
    pixels[:, : FIRST[0] // 2] = 255
    masked = asked(tiny, regions=(ResolvedRegion(prompt="a cactus"),))
    found = final_latents(loop, masked, monkeypatch, regions=(stored(pixels, tmp_path),))
    drawn = asked(tiny, regions=(ResolvedRegion(rectangle=left, prompt="a cactus"),))
    assert far(found, final_latents(loop, drawn, monkeypatch, regions=(None,))) < 1e-4
    encoder = write_encoder(tmp_path / "image_encoder")
    adapter = write_adapter(tmp_path / "plain.safetensors", loop.loaded.modules["unet"])
    shown = (given(adapter, encoder, [picture(1)], tmp_path),)
    second = hires(strength=1.0)
    late, plain = image_prompt(adapter, encoder, start_ratio=0.5, weight=4.0), asked(tiny, second)
    guided = final_latents(loop, asked(tiny, second, image_prompts=(late,)), monkeypatch, image_prompts=shown)
    assert far(guided, final_latents(loop, plain, monkeypatch)) > 3e-4
    assert loop.loop.resources.control_bytes() == {}


def test_progress_and_receipt_tell_the_pass(loop: Recorder, tiny: Model) -> None:
    reports = run(loop, asked(tiny))
    stages = [one.stage for one in reports if isinstance(one, StageStarted)]
    assert stages == [
        *(Stage.CONDITIONING, Stage.DENOISING),
        *(Stage.CONDITIONING, Stage.ENLARGING, Stage.HIRES, Stage.DECODING, Stage.ENCODING),
    ]
    steps = [one for one in reports if isinstance(one, Progressed) and one.unit is Unit.STEPS]
    assert {(one.stage, one.total) for one in steps} == {(Stage.DENOISING, STEPS), (Stage.HIRES, 2)}
    sizes = {(one.width_px, one.height_px) for one in reports if isinstance(one, PreviewReady)}
    assert sizes == {(16, 8), (16, 11)}, "each pass has previews of its own shape"
    end = reports[-1]
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == STEPS + 2
    assert {Stage.HIRES, Stage.ENLARGING} <= {one.stage for one in end.receipt.timings}
    for file in files(reports):
        with Image.open(io.BytesIO(file)) as opened:
            assert opened.size == SECOND


def _stepped(stage: Stage, step: int) -> Callable[[Report], bool]:
    return lambda report: isinstance(report, Progressed) and (report.stage, report.completed) == (stage, step)


PAUSES: dict[str, Callable[[Report], bool]] = {
    "in the first pass": _stepped(Stage.DENOISING, 2),
    "after the first pass": _stepped(Stage.DENOISING, STEPS),
    "before it enlarges": lambda report: isinstance(report, StageStarted) and report.stage is Stage.ENLARGING,
    "as the second pass begins": _stepped(Stage.HIRES, 0),
    "in the second pass": _stepped(Stage.HIRES, 1),
    "after the second pass": _stepped(Stage.HIRES, 2),
}


@pytest.mark.parametrize("of_pixels", [False, True])
@pytest.mark.parametrize("when", list(PAUSES))
def test_a_pause_in_either_pass_leaves_the_picture_bit_exact(
    loop: Recorder, tiny: Model, tmp_path: Path, when: str, of_pixels: bool
) -> None:
    wanted = asked(tiny, hires(of_pixels=of_pixels, sampler="euler_a"))
    whole = files(run(loop, wanted))
    paused = run(loop, wanted, PAUSES[when])
    last, end = paused[-2:]
    assert isinstance(last, CheckpointReady)
    assert isinstance(end, RunStopped)
    path = tmp_path / "kept.safetensors"
    path.write_bytes(last.data)
    resumed = run(loop, wanted, kept=KeptFile(path=str(path), sha256=sha256(last.data).hexdigest()))
    assert files(resumed) == whole
    done = resumed[-1]
    assert isinstance(done, RunFinished)
    assert not done.receipt.degradations
    assert end.receipt.steps_executed + done.receipt.steps_executed == STEPS + 2
    assert last.step == end.receipt.steps_executed


def test_a_checkpoint_that_cannot_be_read_begins_at_the_first_pass(loop: Recorder, tiny: Model, tmp_path: Path) -> None:
    wanted = asked(tiny)
    whole = files(run(loop, wanted))
    last = run(loop, wanted, PAUSES["in the second pass"])[-2]
    assert isinstance(last, CheckpointReady)
    path = tmp_path / "kept.safetensors"
    path.write_bytes(last.data)
    again = run(loop, wanted, kept=KeptFile(path=str(path), sha256="0" * 64))
    assert files(again) == whole
    end = again[-1]
    assert isinstance(end, RunFinished)
    assert [one.kind for one in end.receipt.degradations] == ["checkpoint_dropped"]
    assert np.array_equal(end.receipt.steps_executed, STEPS + 2)


def test_a_size_that_the_second_pass_cannot_make_is_told_before_the_first_step(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    recorder = Recorder(write_tiny_family("sd3-without-t5", tmp_path_factory.mktemp("sd3") / "sd3-without-t5"))
    too_long = hires(width_px=512, height_px=64, sampler="euler", guidance_scale=1.0)
    wanted = asked(recorder.loaded.model, too_long, width_px=64, height_px=64, seeds=(1,))
    reports = run(recorder, wanted)
    recorder.loop.close()
    end = reports[-1]
    assert isinstance(end, RunFailed)
    assert (end.reason, end.receipt.steps_executed) == ("UNSUPPORTED_COMBINATION", 0), end.message
