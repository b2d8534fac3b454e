"""Detail passes in the step loop: a find is made anew as an explicit inpainting of its box, and nothing else changes."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from domains.device.simulated.faults import OutOfMemory
from domains.device.simulated.script import SimDevice
from domains.inference.details import Detailed, ResolvedDetail
from domains.inference.detections import Wanted
from domains.inference.fallback import Fallback
from domains.inference.generation import EncodeOptions, ManifestDetail, Previews, ResolvedGeneration
from domains.inference.given import Given
from domains.inference.init_image import ResolvedInitImage
from domains.inference.kept_file import KeptFile
from domains.inference.masks import MaskBlend, MaskFill, ResolvedMask
from domains.inference.on_device import pictures as pictures_written
from domains.inference.on_device.details import levels_of
from domains.inference.outcome import CheckpointReady, ImageReady, Report, RunFailed, RunFinished, RunStopped
from domains.model.model import Model
from domains.progress import Degraded, PreviewReady, Progressed, Stage, StageStarted
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.detector_files import red_spots, write_detector
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_hires import hires
from tests.domains.inference.on_device.test_image_to_image import shown, stored
from tests.domains.inference.on_device.test_in_turns import pictures
from tests.domains.inference.on_device.test_simulated import ROOM, RUNTIME, Sim

Pixels = NDArray[np.uint8]
PAUSE = Stop(kind=StopKind.PAUSE, cause="the device is needed")
CANCEL = Stop(kind=StopKind.CANCEL, cause="another one is wanted")
EDGE_PX, MADE_PX = 96, 32
"""Of the picture, and of what is made of a find."""
TWO = red_spots(EDGE_PX, (20, 24), (70, 66))
ANYTHING = Wanted(min_confidence=0.0, max_count=2)
"""What a tiny model paints has nothing red in it."""
PLAIN = EncodeOptions(manifest=ManifestDetail.NONE)


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_detector(tmp_path_factory.mktemp("detectors") / "red.safetensors")


def detail(detector: Model, **changes: Any) -> ResolvedDetail:
    plain: dict[str, Any] = {
        "detector_model_id": detector.id,
        "detector_sha256": detector.sha256,
        "wanted": Wanted(),
        "prompt": "",
        "negative_prompt": "",
        "strength": 0.5,
        "steps": 4,
        "dilation_px": 2,
        "blur_px": 3,
        "padding_px": 6,
        "width_px": MADE_PX,
        "height_px": MADE_PX,
    }
    return ResolvedDetail(**{**plain, **changes})


def asked(model: Model, *details: ResolvedDetail, strength: float = 0.0, **changes: Any) -> ResolvedGeneration:
    """A picture that stays as it is, with detail passes over it."""
    start = ResolvedInitImage(blob_id="b", sha256="", strength=strength, fit=None)
    plain: dict[str, Any] = {"steps": 4, "sampler": "euler", "width_px": EDGE_PX, "height_px": EDGE_PX, "output": PLAIN}
    plain |= {"init_image": start, "detail_passes": details}
    return request(model, **{**plain, **changes})


def run(
    loop: Recorder,
    folder: Path,
    wanted: ResolvedGeneration,
    pixels: Pixels | None = TWO,
    at: Callable[[Report], bool] | None = None,
    stop: Stop = PAUSE,
    **given: Any,
) -> list[Report]:
    """The reports of a run; it is stopped at the first one that `at` selects."""
    name = f"details {len(loop.order)}"

    def pause(job_id: str, report: Report) -> None:
        if at is not None and job_id == name and at(report):
            loop.loop.stop(job_id, stop)

    loop.on_report = pause
    (folder / name).mkdir()
    picture = None if pixels is None else stored(folder / name, torch.from_numpy(pixels.copy()))
    told = Given(loop.loaded.model, wanted, picture=picture, **given)
    loop.loop.submit(name, told, Previews(every_steps=1, max_edge_px=16))
    loop.run()
    loop.last(name)
    return loop.reports[name]


def made(reports: Sequence[Report]) -> list[Pixels]:
    assert isinstance(reports[-1], RunFinished), reports[-1]
    return [shown(one.data) for one in reports if isinstance(one, ImageReady)]


def found(reports: Sequence[Report]) -> list[tuple[Detailed, ...]]:
    return [one.details for one in reports if isinstance(one, ImageReady)]


def by_hand(
    loop: Recorder, folder: Path, model: Model, pixels: Pixels, one: Detailed, by: ResolvedDetail, seed: int = 7
) -> Pixels:
    """An explicit inpainting of the find's box, zoomed to it, as a request of its own."""
    name = f"by hand {len(loop.order)}"
    mask = ResolvedMask(
        blob_id="m",
        sha256="",
        blur_px=by.blur_px,
        dilation_px=0,
        invert=False,
        blend=MaskBlend.FEATHER,
        fill=MaskFill.ORIGINAL,
        zoom_padding_px=by.padding_px,
    )
    size = pixels.shape[1], pixels.shape[0]
    start = ResolvedInitImage(blob_id="b", sha256="", strength=by.strength, fit=None, own_size_px=size)
    wanted = request(
        model,
        prompt=by.prompt or "owl",
        steps=by.steps,
        seeds=(seed,),
        sampler="euler",
        width_px=MADE_PX,
        height_px=MADE_PX,
        init_image=start,
        mask=mask,
        output=PLAIN,
    )
    white = levels_of(one.find, by.dilation_px, pixels)
    (folder / name / "mask").mkdir(parents=True)
    picture = stored(folder / name, torch.from_numpy(pixels.copy()))
    levels = stored(folder / name / "mask", torch.from_numpy(white))
    loop.on_report = lambda job_id, report: None
    loop.loop.submit(name, Given(model, wanted, picture=picture, mask=levels))
    loop.run()
    return made(loop.reports[name])[0]


def test_each_find_is_made_anew_as_an_inpainting_of_its_box(loop: Recorder, detector: Model, tmp_path: Path) -> None:
    model, by = loop.loaded.model, detail(detector, prompt="a red nose", steps=6)
    reports = run(loop, tmp_path, asked(model, by), detectors=(detector,))
    (picture,), (finds,) = made(reports), found(reports)
    assert [one.pass_index for one in finds] == [0, 0]
    assert all((one.find.label, 0.5 <= one.find.confidence <= 1) == ("face", True) for one in finds)
    for (left, top), one in zip([(20, 24), (70, 66)], sorted(finds, key=lambda one: one.find.left_px), strict=True):
        assert one.find.left_px <= left < left + 4 <= one.find.left_px + one.find.width_px
        assert one.find.top_px <= top < top + 4 <= one.find.top_px + one.find.height_px
    expected = TWO
    for one in finds:
        expected = by_hand(loop, tmp_path, model, expected, one, by)
    np.testing.assert_array_equal(picture, expected)
    outside = np.full(TWO.shape[:2], True)
    for one in finds:
        outside &= levels_of(one.find, by.dilation_px, TWO) == 0
    assert 0.2 < outside.mean() < 0.9
    np.testing.assert_array_equal(picture[outside], TWO[outside])
    assert (picture[~outside] != TWO[~outside]).any(-1).mean() > 0.5


def test_the_stages_progress_and_receipt_tell_of_the_finds(loop: Recorder, detector: Model, tmp_path: Path) -> None:
    by = detail(detector)
    reports = run(loop, tmp_path, asked(loop.loaded.model, by), detectors=(detector,))
    stages = [one.stage for one in reports if isinstance(one, StageStarted)]
    assert stages == [Stage.DETECTING, Stage.DETAILING, Stage.ENCODING]
    steps = [
        (one.completed, one.total) for one in reports if isinstance(one, Progressed) and one.stage is Stage.DETAILING
    ]
    assert steps[-1] == (4, 4)
    assert steps == sorted(steps)
    end = reports[-1]
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 4
    assert not any(isinstance(one, PreviewReady) for one in reports)


def test_where_nothing_is_found_the_picture_stays_and_a_warning_says_so(
    loop: Recorder, detector: Model, tmp_path: Path
) -> None:
    grey = red_spots(EDGE_PX)
    reports = run(loop, tmp_path, asked(loop.loaded.model, detail(detector)), grey, detectors=(detector,))
    np.testing.assert_array_equal(made(reports)[0], grey)
    (warning,) = (one for one in reports if isinstance(one, Degraded))
    assert (warning.kind, warning.field) == ("nothing_detected", "generation.detail_passes[0]")
    assert "picture 0" in warning.detail
    assert found(reports) == [()]


def test_without_strength_finds_are_told_and_stay(loop: Recorder, detector: Model, tmp_path: Path) -> None:
    reports = run(loop, tmp_path, asked(loop.loaded.model, detail(detector, strength=0.0)), detectors=(detector,))
    np.testing.assert_array_equal(made(reports)[0], TWO)
    assert len(found(reports)[0]) == 2


def test_a_later_pass_sees_what_the_earlier_one_made(loop: Recorder, detector: Model, tmp_path: Path) -> None:
    model, first, second = (
        loop.loaded.model,
        detail(detector, wanted=Wanted(max_count=1)),
        detail(detector, strength=0.25),
    )
    reports = run(loop, tmp_path, asked(model, first, second), detectors=(detector, detector))
    (finds,) = found(reports)
    assert [one.pass_index for one in finds][:2] == [0, 1]
    expected = TWO
    for one in finds:
        expected = by_hand(loop, tmp_path, model, expected, one, (first, second)[one.pass_index])
    np.testing.assert_array_equal(made(reports)[0], expected)


def test_each_picture_of_a_batch_has_finds_and_a_seed_of_its_own(
    loop: Recorder, detector: Model, tmp_path: Path
) -> None:
    model, by = loop.loaded.model, detail(detector, wanted=ANYTHING)
    both = run(loop, tmp_path, asked(model, by, strength=0.25, seeds=(7, 8)), detectors=(detector,))
    plain = made(run(loop, tmp_path, asked(model, strength=0.25, seeds=(7, 8))))
    assert [one.index for one in both if isinstance(one, ImageReady)] == [0, 1]
    for seed, picture, expected, finds in zip((7, 8), made(both), plain, found(both), strict=True):
        assert len(finds) == 2
        for one in finds:
            expected = by_hand(loop, tmp_path, model, expected, one, by, seed)
        np.testing.assert_array_equal(picture, expected)


def test_finds_are_made_anew_after_a_second_pass(loop: Recorder, detector: Model, tmp_path: Path) -> None:
    model, by = loop.loaded.model, detail(detector, wanted=ANYTHING, prompt="b")
    changes: dict[str, Any] = {"init_image": None, "width_px": 32, "height_px": 16, "hires_pass": hires()}
    before = made(run(loop, tmp_path, asked(model, **changes), None))[0]
    reports = run(loop, tmp_path, asked(model, by, **changes), None, detectors=(detector,))
    assert [one.stage for one in reports if isinstance(one, StageStarted)][-4:] == [
        Stage.DECODING,
        Stage.DETECTING,
        Stage.DETAILING,
        Stage.ENCODING,
    ]
    expected = before
    for one in found(reports)[0]:
        expected = by_hand(loop, tmp_path, model, expected, one, by)
    np.testing.assert_array_equal(made(reports)[0], expected)


def _kept(reports: list[Report], folder: Path) -> tuple[CheckpointReady, KeptFile]:
    assert isinstance(reports[-1], RunStopped), reports[-1]
    (kept,) = (one for one in reports if isinstance(one, CheckpointReady))
    path = folder / f"kept {len(list(folder.iterdir()))}"
    path.write_bytes(kept.data)
    return kept, KeptFile(path=str(path), sha256=sha256(kept.data).hexdigest())


def at_stage(stage: Stage) -> Callable[[Report], bool]:
    return lambda report: isinstance(report, StageStarted) and report.stage is stage


def at_step(step: int) -> Callable[[Report], bool]:
    return lambda report: (
        isinstance(report, Progressed) and report.stage is Stage.DETAILING and report.completed == step
    )


@pytest.mark.parametrize(
    ("at", "steps"), [(at_stage(Stage.DETECTING), 1), (at_stage(Stage.DETAILING), 1), (at_step(1), 1), (at_step(3), 3)]
)
def test_a_pause_anywhere_leaves_the_picture_bit_exact(
    loop: Recorder, detector: Model, tmp_path: Path, at: Callable[[Report], bool], steps: int
) -> None:
    wanted = asked(loop.loaded.model, detail(detector, wanted=ANYTHING), strength=0.25)
    whole = made(run(loop, tmp_path, wanted, detectors=(detector,)))
    kept, file = _kept(run(loop, tmp_path, wanted, at=at, detectors=(detector,)), tmp_path)
    assert kept.step == steps, "the picture's one step, and those of the finds that were made anew"
    again = run(loop, tmp_path, wanted, kept=file, detectors=(detector,))
    np.testing.assert_array_equal(made(again)[0], whole[0])
    assert not any(isinstance(one, Degraded) for one in again)
    assert Stage.DENOISING not in [one.stage for one in again if isinstance(one, StageStarted)]


def test_a_checkpoint_of_other_detail_passes_is_dropped(loop: Recorder, detector: Model, tmp_path: Path) -> None:
    wanted = asked(loop.loaded.model, detail(detector))
    _, file = _kept(run(loop, tmp_path, wanted, at=at_stage(Stage.DETAILING), detectors=(detector,)), tmp_path)
    other = asked(loop.loaded.model, detail(detector, strength=0.75))
    reports = run(loop, tmp_path, other, kept=file, detectors=(detector,))
    assert [one.kind for one in reports if isinstance(one, Degraded)] == ["checkpoint_dropped"]
    np.testing.assert_array_equal(made(reports)[0], made(run(loop, tmp_path, other, detectors=(detector,)))[0])


@pytest.mark.parametrize("at", [at_stage(Stage.DETAILING), at_step(1)])
def test_a_cancelled_find_ends_in_its_stage_and_frees_all(
    loop: Recorder, detector: Model, tmp_path: Path, at: Callable[[Report], bool]
) -> None:
    wanted = asked(loop.loaded.model, detail(detector))
    reports = run(loop, tmp_path, wanted, at=at, stop=CANCEL, detectors=(detector,))
    end = reports[-1]
    assert isinstance(end, RunStopped)
    assert end.stage is Stage.DETAILING
    assert not any(isinstance(one, ImageReady) for one in reports)
    assert loop.loop.resources.control_bytes() == {}, "the detector has left the device"


def test_a_pause_keeps_a_picture_whose_file_is_not_written(
    loop: Recorder, detector: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = asked(loop.loaded.model, detail(detector, wanted=ANYTHING), strength=0.25, seeds=(7, 8))
    whole = made(run(loop, tmp_path, wanted, detectors=(detector,)))
    kept_now, encode = Event(), pictures_written.encode_later

    def late(*what: Any) -> bytes:
        assert kept_now.wait(20)
        return encode(*what)

    def at(report: Report) -> bool:
        if isinstance(report, CheckpointReady):
            kept_now.set()
        return isinstance(report, Progressed) and report.stage is Stage.DETAILING and report.completed == 5

    with monkeypatch.context() as patched:
        patched.setattr(pictures_written, "encode_later", late)
        reports = run(loop, tmp_path, wanted, at=at, detectors=(detector,))
    assert not any(isinstance(one, ImageReady) for one in reports)
    _, file = _kept(reports, tmp_path)
    again = run(loop, tmp_path, wanted, kept=file, detectors=(detector,))
    assert not any(isinstance(one, Degraded) for one in again)
    for picture, expected in zip(made(again), whole, strict=True):
        np.testing.assert_array_equal(picture, expected)


def test_a_detector_whose_file_has_changed_fails_the_job_before_the_first_step(
    loop: Recorder, detector: Model, tmp_path: Path
) -> None:
    wanted = asked(loop.loaded.model, detail(detector, detector_sha256="0" * 64), strength=0.5)
    end = run(loop, tmp_path, wanted, detectors=(detector,))[-1]
    assert isinstance(end, RunFailed)
    assert detector.id in end.message
    assert end.receipt.steps_executed == 0


def test_a_find_whose_step_has_no_memory_begins_again_with_the_model_offloaded(
    tiny: Model, detector: Model, tmp_path: Path, aligned: None
) -> None:
    wanted = asked(tiny, detail(detector))
    told = Given(tiny, wanted, picture=stored(tmp_path, torch.from_numpy(TWO.copy())), detectors=(detector,))
    told = replace(told, fallback=Fallback(allow_smaller_batch=False))
    files: list[list[bytes]] = []
    for faults in ((), (OutOfMemory(at_step=2, times=1),)):
        sim = Sim(SimDevice(id="sim-0", memory_bytes=ROOM, runtime_bytes=RUNTIME, speed=1.0, faults=faults))
        files.append(pictures(sim, told))
        given_up = [one.kind for _, one in sim.reports if isinstance(one, Degraded)]
        assert given_up == ["offload"] * len(faults)
        sim.loop.close()
    assert files[0] == files[1]
