"""What a step loop promises of the jobs that it finishes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from domains import imaging
from domains.errors import AlreadyExists, ErrorReason, FailedPrecondition, NotFound
from domains.inference import manifest
from domains.inference.generation import Determinism, EncodeOptions, ManifestDetail, Previews
from domains.inference.given import Given
from domains.inference.outcome import ImageReady, RunFailed, RunFinished
from domains.model.execution import Execution
from domains.model.model import Model
from domains.progress import Degraded, PreviewReady, Progressed, Stage, StageStarted
from tests.domains.inference.on_device.recorder import Recorder, bring
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model


@pytest.fixture
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def test_a_job_tells_stages_steps_pictures_and_its_end_in_order(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=3, seeds=(4, 9))))
    loop.run()
    stages = [report.stage for report in loop.reports["a"] if isinstance(report, StageStarted)]
    assert stages == [Stage.CONDITIONING, Stage.DENOISING, Stage.DECODING, Stage.ENCODING]
    steps = [r.completed for r in loop.reports["a"] if isinstance(r, Progressed) and r.stage is Stage.DENOISING]
    assert steps == [0, 1, 2, 3]
    images = [report for report in loop.reports["a"] if isinstance(report, ImageReady)]
    assert [(image.index, image.seed) for image in images] == [(0, 4), (1, 9)]
    assert isinstance(loop.last("a"), RunFinished)


def test_a_long_unit_of_work_on_a_cpu_shows_signs_of_life(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domains.inference.on_device.load_run._LIFE_S", 0.0)
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=2, seeds=(4, 9))))
    loop.run()
    told = [report for report in loop.reports["a"] if isinstance(report, Progressed)]
    steps = [report.completed for report in told if report.stage is Stage.DENOISING]
    assert min(steps.count(0), steps.count(1)) > 1
    assert steps == sorted(steps)
    decoded = [report.completed for report in told if report.stage is Stage.DECODING]
    assert min(decoded.count(0), decoded.count(1)) > 1
    assert decoded == sorted(decoded)


def test_a_receipt_measures_every_stage(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=3)))
    loop.run()
    end = loop.last("a")
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == 3
    assert [timing.stage for timing in end.receipt.timings] == ["conditioning", "denoising", "decoding", "encoding"]
    assert all(timing.wall_s > 0 for timing in end.receipt.timings)
    assert end.receipt.peak_device_bytes is None  # a CPU's tensors share the process's heap
    assert (end.receipt.peak_host_bytes or 0) > loop.loaded.size_bytes


def test_a_file_carries_the_manifest_that_makes_it_again(loop: Recorder, tiny: Model) -> None:
    asked = request(tiny, steps=2, seeds=(4, 9))
    loop.loop.submit("a", Given(loop.loaded.model, asked))
    loop.run()
    said = imaging.read_manifest(loop.files("a")[1])
    assert said is not None
    told = manifest.parse(said)
    assert (told.request, told.seed, told.image_index) == (asked, 9, 1)


@pytest.mark.parametrize("media_type", list(imaging.MEDIA_TYPES))
def test_the_file_is_of_the_type_and_size_asked_for(loop: Recorder, tiny: Model, media_type: str) -> None:
    output = EncodeOptions(media_type=media_type, manifest=ManifestDetail.NONE)
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1, width_px=40, height_px=24, output=output)))
    loop.run()
    header = imaging.probe(loop.files("a")[0])
    assert (header.media_type, header.width_px, header.height_px) == (media_type, 40, 24)
    assert imaging.read_manifest(loop.files("a")[0]) is None


def test_an_exact_request_gives_the_same_bytes_alone_and_in_a_crowd(loop: Recorder, tiny: Model) -> None:
    asked = request(tiny, steps=4, sampler="euler_a", seeds=(4, 9), determinism=Determinism.EXACT)
    loop.loop.submit("alone", Given(loop.loaded.model, asked))
    loop.run()
    for number in range(3):
        loop.loop.submit(f"other {number}", Given(loop.loaded.model, request(tiny, steps=3, seeds=(number,))))
    loop.loop.submit("crowd", Given(loop.loaded.model, asked))
    loop.run()
    assert loop.files("alone") == loop.files("crowd")


def test_a_seed_gives_the_same_picture_whatever_its_neighbours_in_the_job(loop: Recorder, tiny: Model) -> None:
    for name, seeds in {"both": (4, 9), "second": (9,)}.items():
        loop.loop.submit(name, Given(loop.loaded.model, request(tiny, steps=4, sampler="euler_a", seeds=seeds)))
    loop.run()
    both, second = (imaging.decode(loop.files(name)[-1], max_pixels=1 << 20) for name in ("both", "second"))
    assert np.abs(both.astype(int) - second.astype(int)).max() <= 1
    first = imaging.decode(loop.files("both")[0], max_pixels=1 << 20)
    assert np.abs(first.astype(int) - second.astype(int)).max() > 10


def test_a_short_job_does_not_wait_for_a_long_one(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("long", Given(loop.loaded.model, request(tiny, steps=40)))
    loop.loop.submit("short", Given(loop.loaded.model, request(tiny, steps=2)))
    loop.run()
    assert loop.order == ["short", "long"]


def test_prompts_are_encoded_once(loop: Recorder, tiny: Model) -> None:
    for name, prompt in {"first": "owl", "same": "owl", "other": "red apple"}.items():
        loop.loop.submit(name, Given(loop.loaded.model, request(tiny, steps=1, prompt=prompt)))
        loop.run()
    hits = {name: end.receipt.cache_hits for name in loop.order if isinstance(end := loop.last(name), RunFinished)}
    assert hits == {"first": 0, "same": 2, "other": 1}


def test_without_guidance_the_negative_prompt_is_not_encoded(loop: Recorder, tiny: Model) -> None:
    asked = request(tiny, steps=1, guidance_scale=1.0, negative_prompt="blue")
    loop.loop.submit("without", Given(loop.loaded.model, asked))
    loop.run()
    loop.loop.submit("with", Given(loop.loaded.model, request(tiny, asked, guidance_scale=2.0)))
    loop.run()
    end = loop.last("with")
    assert isinstance(end, RunFinished)
    assert end.receipt.cache_hits == 1


def test_a_prompt_that_is_too_long_says_what_was_cut(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1, prompt="owl " * 100)))
    loop.run()
    (told,) = loop.of("a", Degraded)
    assert isinstance(told, Degraded)
    assert told.kind == "prompt_truncated"
    assert "77" in told.detail
    end = loop.last("a")
    assert isinstance(end, RunFinished)
    assert end.receipt.degradations == (told,)


def test_previews_come_as_often_and_as_large_as_asked(loop: Recorder, tiny: Model) -> None:
    asked = request(tiny, steps=6, width_px=96, height_px=48, previews=Previews(every_steps=2, max_edge_px=32))
    loop.loop.submit("a", Given(loop.loaded.model, asked))
    loop.run()
    previews = [report for report in loop.reports["a"] if isinstance(report, PreviewReady)]
    assert {preview.step for preview in previews} <= {2, 4}  # the newest is kept; after the last comes the picture
    assert previews
    for preview in previews:
        header = imaging.probe(preview.data)
        assert (header.media_type, header.width_px, header.height_px) == ("image/jpeg", 32, 16)


def test_an_id_that_runs_is_refused_and_free_again_afterwards(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1)))
    with pytest.raises(AlreadyExists):
        loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1)))
    loop.run()
    loop.reports.clear()
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1)))
    loop.run()
    assert isinstance(loop.last("a"), RunFinished)


def test_a_model_in_use_cannot_be_unloaded_and_gives_its_bytes_back_afterwards(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1)))
    with pytest.raises(FailedPrecondition, match="in use by a"):
        loop.loop.unload(tiny.id)
    loop.run()
    assert loop.loop.unload(tiny.id) == loop.loaded.size_bytes
    with pytest.raises(NotFound):
        loop.loop.unload(tiny.id)
    with pytest.raises(FailedPrecondition) as refused:
        loop.loop.loaded(tiny.id)
    assert refused.value.reason is ErrorReason.MODEL_NOT_LOADED
    loop.loop.submit("b", Given(tiny, request(tiny, steps=1)))
    loop.run()
    assert loop.reports["b"][0] == StageStarted(stage=Stage.LOADING)
    assert isinstance(loop.last("b"), RunFinished)


def test_a_loaded_model_is_answered_again_but_not_in_another_precision(loop: Recorder, tiny: Model) -> None:
    assert bring(loop.loop, tiny) is loop.loaded
    loop.loop.load("a", tiny, Execution(precision="bfloat16"))
    loop.run()
    end = loop.last("a")
    assert isinstance(end, RunFailed)
    assert "unload it first" in end.message


def rewritten(folder: Path) -> Model:
    """The model with another bias in its UNet, scanned again."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"conv_out.bias": torch.ones(4)}, path)
    return tiny_model(folder)


def test_a_load_replaces_a_model_whose_files_have_changed(tmp_path: Path) -> None:
    recorder = Recorder(write_tiny_model(tmp_path / "tiny"))
    changed = rewritten(tmp_path / "tiny")
    loaded = bring(recorder.loop, changed)
    assert loaded is not recorder.loaded
    assert loaded.model.sha256 == changed.sha256
    assert torch.equal(loaded.modules["unet"].state_dict()["conv_out.bias"], torch.ones(4))
    assert list(recorder.loop.resources.model_bytes()) == [changed.id]
    recorder.loop.close()


def test_a_model_that_a_job_uses_is_not_replaced(tmp_path: Path) -> None:
    recorder = Recorder(write_tiny_model(tmp_path / "tiny"))
    recorder.loop.submit("a", Given(recorder.loaded.model, request(recorder.loaded.model, steps=3)))
    changed = rewritten(tmp_path / "tiny")
    recorder.loop.tick()
    recorder.loop.load("b", changed)
    recorder.run()
    refused = recorder.last("b")
    assert isinstance(refused, RunFailed)
    assert "in use by a" in refused.message
    assert isinstance(recorder.last("a"), RunFinished)
    assert bring(recorder.loop, changed).model.sha256 == changed.sha256
    recorder.loop.close()
