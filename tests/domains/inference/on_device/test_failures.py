"""What a job says when something breaks under it, and that the next job does not notice."""

from collections.abc import Iterator

import pytest
import structlog
import torch

from domains.inference.generation import EncodeOptions
from domains.inference.outcome import RunFailed, RunFinished
from domains.model.model import Model
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
    loop.loop.submit("a", loop.loaded.model, request(tiny, steps=5, sampler="euler"))
    for _ in range(3):
        loop.loop.tick()  # conditioning and two steps
    next(loop.loaded.modules["unet"].parameters()).data.fill_(float("nan"))
    loop.run()
    end = failure(loop, "a")
    assert (end.reason, end.facts["step"], end.facts["sampler"]) == ("NUMERIC_FAILURE", "3", "euler")
    assert end.receipt.steps_executed == 2


def test_an_unexpected_error_is_told_without_its_text_and_logged_with_it(loop: Recorder, tiny: Model) -> None:
    loop.loaded.modules["text_encoder"].to("meta")
    loop.loop.submit("a", loop.loaded.model, request(tiny))
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        loop.run()
    end = failure(loop, "a")
    assert end.reason == "INVARIANT_BROKEN"
    assert "meta" not in end.message
    (line,) = lines
    assert line["job_id"] == "a"
    assert "meta" in str(line["exc_info"])


def test_a_picture_too_large_for_the_host_is_out_of_memory(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", loop.loaded.model, request(tiny, width_px=1 << 26, height_px=1 << 22))
    loop.run()
    assert failure(loop, "a").reason == "HOST_OUT_OF_MEMORY"


def test_an_unknown_sampler_is_refused_by_name(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", loop.loaded.model, request(tiny, sampler="magic"))
    loop.run()
    end = failure(loop, "a")
    assert end.reason == "INVALID_FIELD"
    assert "magic" in end.message


def test_the_job_beside_a_failing_one_finishes(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("good", loop.loaded.model, request(tiny, steps=3))
    loop.loop.submit("bad", loop.loaded.model, request(tiny, sampler="magic"))
    loop.run()
    assert isinstance(loop.last("good"), RunFinished)
    assert failure(loop, "bad").receipt.steps_executed == 0


def test_a_file_that_cannot_be_written_fails_its_job(loop: Recorder, tiny: Model) -> None:
    lossy_png = EncodeOptions(media_type="image/png", quality=50)
    loop.loop.submit("a", loop.loaded.model, request(tiny, steps=1, output=lossy_png))
    loop.run()
    assert failure(loop, "a").reason == "UNSUPPORTED_COMBINATION"


def test_a_reporter_that_fails_ends_the_tick_and_is_not_swallowed(tiny: Model) -> None:
    recorder = Recorder(tiny)

    def broken(job_id: str, report: object) -> None:
        raise BrokenPipeError

    recorder.on_report = broken
    recorder.loop.submit("a", recorder.loaded.model, request(tiny))
    with pytest.raises(BrokenPipeError):
        recorder.run()
    recorder.on_report = lambda job_id, report: None
    recorder.loop.close()


def test_ticks_leave_grad_mode_as_it_was(loop: Recorder, tiny: Model) -> None:
    loop.loop.submit("a", loop.loaded.model, request(tiny, steps=1))
    loop.run()
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
