"""What a job says when something breaks under it, and that the next job does not notice."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from PIL import Image
from torch import Tensor

from domains.inference.generation import EncodeOptions
from domains.inference.given import Given
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.vae_decoder import VaeDecoder
from domains.inference.outcome import RunFailed, RunFinished
from domains.model.model import Model
from domains.progress import Degraded
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request


@pytest.fixture
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def failure(loop: Recorder, job_id: str) -> RunFailed:
    end = loop.last(job_id)
    assert isinstance(end, RunFailed)
    return end


def test_latents_that_are_no_numbers_name_step_and_sampler(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=5, sampler="euler")))
    for _ in range(3):
        loop.loop.tick()  # conditioning and two steps
    next(loop.loaded.modules["unet"].parameters()).data.fill_(float("nan"))
    loop.run()
    end = failure(loop, "a")
    assert (end.reason, end.facts["step"], end.facts["sampler"]) == ("NUMERIC_FAILURE", "3", "euler")
    assert end.receipt.steps_executed == 2


def test_an_unexpected_error_is_told_without_its_text_and_logged_with_it(loop: Recorder, tiny: Model) -> None:
    loop.loaded.modules["text_encoder"].to("meta")
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny)))
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        loop.run()
    end = failure(loop, "a")
    assert end.reason == "INVARIANT_BROKEN"
    assert "meta" not in end.message
    (line,) = lines
    assert line["job_id"] == "a"
    assert "meta" in str(line["exc_info"])


def test_a_picture_too_large_for_the_host_is_out_of_memory(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, width_px=1 << 26, height_px=1 << 22)))
    loop.run()
    assert failure(loop, "a").reason == "HOST_OUT_OF_MEMORY"


def test_an_unknown_sampler_is_refused_by_name(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, sampler="magic")))
    loop.run()
    end = failure(loop, "a")
    assert end.reason == "INVALID_FIELD"
    assert "magic" in end.message


def test_the_job_beside_a_failing_one_finishes(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("good", Given(loop.loaded.model, request(tiny, steps=3)))
    loop.loop.submit("bad", Given(loop.loaded.model, request(tiny, sampler="magic")))
    loop.run()
    assert isinstance(loop.last("good"), RunFinished)
    assert failure(loop, "bad").receipt.steps_executed == 0


def test_a_file_that_cannot_be_written_fails_its_job(loop: Recorder, tiny: Model) -> None:
    lossy_png = EncodeOptions(media_type="image/png", quality=50)
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1, output=lossy_png)))
    loop.run()
    assert failure(loop, "a").reason == "UNSUPPORTED_COMBINATION"


def test_a_reporter_that_fails_ends_the_tick_and_is_not_swallowed(tiny: Model) -> None:
    recorder = Recorder(tiny)

    def broken(job_id: str, report: object) -> None:
        raise BrokenPipeError

    recorder.on_report = broken
    recorder.loop.submit("a", Given(recorder.loaded.model, request(tiny)))
    with pytest.raises(BrokenPipeError):
        recorder.run()
    recorder.on_report = lambda job_id, report: None
    recorder.loop.close()


def test_ticks_leave_grad_mode_as_it_was(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", Given(loop.loaded.model, request(tiny, steps=1)))
    loop.run()
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def not_finite_unless_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VAE whose values overflow in a narrow precision: one of them, as a tile would."""
    decode = VaeDecoder.__call__

    def call(self: VaeDecoder, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        found = decode(self, latents, keep_on)
        if found.dtype is not torch.float32:
            found[0, 0, 0, 0] = float("nan")
        return found

    monkeypatch.setattr(VaeDecoder, "__call__", call)


def test_a_decode_that_overflows_is_repeated_in_float32_and_told(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tiny)
    wide: dict[str, Any] = {"steps": 2, "seeds": (1, 2)}
    recorder.loop.submit("float32", Given(recorder.loaded.model, request(tiny, **wide)))
    recorder.run()
    expected = [pixels(file) for file in recorder.files("float32")]
    recorder.loaded.modules["vae"].to(torch.bfloat16)
    not_finite_unless_float32(monkeypatch)
    recorder.loop.submit("a", Given(recorder.loaded.model, request(tiny, **wide)))
    recorder.run()
    end = recorder.last("a")
    assert isinstance(end, RunFinished)
    told = [(one.kind, one.reason) for one in end.receipt.degradations]
    assert told == [("decode_in_float32", "NUMERIC_FAILURE")] * 2
    assert len(recorder.of("a", Degraded)) == 2
    for file, plain in zip(recorder.files("a"), expected, strict=True):
        # The weights were rounded to bfloat16 before.
        assert np.abs(pixels(file).astype(int) - plain).mean() < 4
    recorder.loop.close()


def pixels(file: bytes) -> Any:
    with Image.open(io.BytesIO(file)) as opened:
        return np.asarray(opened)


def test_pixels_that_are_no_numbers_in_float32_fail_the_job_and_are_no_black_picture(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tiny)
    decode = VaeDecoder.__call__

    def call(self: VaeDecoder, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        found = decode(self, latents, keep_on)
        found[0, 1, 3, 2] = float("inf")
        return found

    monkeypatch.setattr(VaeDecoder, "__call__", call)
    recorder.loop.submit("a", Given(recorder.loaded.model, request(tiny, steps=2)))
    recorder.run()
    end = failure(recorder, "a")
    assert (end.reason, end.facts["stage"], end.facts["image_index"]) == ("NUMERIC_FAILURE", "decoding", "0")
    assert not recorder.files("a")
    recorder.loop.close()
