"""Latents in and out: what one run hands out, another one goes on from."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.latents import ResolvedLatents
from domains.inference.outcome import CheckpointReady, ImageReady, LatentsReady, Report, RunFailed, RunFinished
from domains.inference.step_range import StepRange
from domains.model.model import Model
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import reference_latents, reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_hires import far, hires, their_second

PAUSE = Stop(kind=StopKind.PAUSE, cause="the device is needed")
SIZE = {"width_px": 32, "height_px": 16}
STEPS = 4


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def asked(model: Model, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {**SIZE, "steps": STEPS, "sampler": "euler", "seeds": (3, 4), "return_latents": True}
    return request(model, **{**plain, **changes})


def run(loop: Recorder, wanted: ResolvedGeneration, pause_at: Report | None = None, **given: Any) -> list[Report]:
    name = f"latents {len(loop.order)}"

    def pause(job_id: str, report: Report) -> None:
        if job_id == name and report == pause_at:
            loop.loop.stop(job_id, PAUSE)

    loop.on_report = pause
    loop.loop.submit(name, Given(loop.loaded.model, wanted, **given))
    loop.run()
    loop.last(name)
    return loop.reports[name]


def handed(reports: list[Report]) -> Tensor:
    """All latents that a run handed out."""
    found = [one for one in reports if isinstance(one, LatentsReady)]
    assert [one.index for one in found] == list(range(len(found)))
    return torch.cat([load(one.data)["latents"] for one in found])


def files(reports: list[Report]) -> list[bytes]:
    return [one.data for one in reports if isinstance(one, ImageReady)]


def kept(folder: Path, latents: Tensor) -> KeptFile:
    data = save({"latents": latents})
    path = folder / "latents.safetensors"
    path.write_bytes(data)
    return KeptFile(path=str(path), sha256=sha256(data).hexdigest())


def start(strength: float) -> ResolvedLatents:
    return ResolvedLatents(blob_id="b-1", sha256="0" * 64, strength=strength)


def test_the_latents_are_those_of_diffusers_and_without_strength_make_the_same_picture(
    loop: Recorder, tiny: Model, tmp_path: Path
) -> None:
    whole = run(loop, asked(tiny))
    out = handed(whole)
    assert far(out, reference_latents(reference_pipeline(tiny), asked(tiny))) < 1e-4
    again = run(loop, asked(tiny, init_latents=start(0.0), return_latents=False), latents=kept(tmp_path, out))
    assert files(again) == files(
        run(loop, asked(tiny, return_latents=False, init_latents=start(0.0)), latents=kept(tmp_path, out))
    )
    assert [shown(one) for one in files(again)] == [shown(one) for one in files(whole)]


def shown(file: bytes) -> bytes:
    """The pixels of a file; its manifest tells how it was made."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(file)) as opened:
        return opened.convert("RGB").tobytes()


def test_latents_with_strength_are_denoised_as_diffusers_does(loop: Recorder, tiny: Model, tmp_path: Path) -> None:
    torch.manual_seed(1)
    latents = torch.randn(2, 4, 8, 16)
    wanted = asked(tiny, init_latents=start(0.5), guidance_scale=4.0)
    theirs = their_second(tiny, wanted, latents, 0.5)
    assert far(handed(run(loop, wanted, latents=kept(tmp_path, latents))), theirs) < 1e-4


@pytest.mark.parametrize("sampler", ["euler", "ddim", "heun"])
@pytest.mark.parametrize("cut", [1, 3])
def test_a_walk_in_two_jobs_ends_where_the_undivided_one_does(
    loop: Recorder, tiny: Model, tmp_path: Path, sampler: str, cut: int
) -> None:
    eta = 0.0 if sampler == "ddim" else None
    whole = handed(run(loop, asked(tiny, sampler=sampler, eta=eta)))
    first = run(loop, asked(tiny, sampler=sampler, eta=eta, part=StepRange(last_step=cut)))
    told = [one.completed_steps for one in first if isinstance(one, LatentsReady)]
    assert told == [cut, cut]
    rest = asked(
        tiny,
        sampler=sampler,
        eta=eta,
        init_latents=start(1.0),
        part=StepRange(first_step=cut, add_noise=False),
    )
    second = run(loop, rest, latents=kept(tmp_path, handed(first)))
    assert far(handed(second), whole) < 1e-5
    end = second[-1]
    assert isinstance(end, RunFinished)
    assert end.receipt.steps_executed == STEPS - cut


def test_a_flow_model_goes_on_too(tmp_path: Path, flow: Recorder) -> None:
    model = flow.loaded.model
    plain = {"width_px": 64, "height_px": 64, "sigma_schedule": "normal"}
    whole = handed(run(flow, asked(model, **plain)))
    first = handed(run(flow, asked(model, **plain, part=StepRange(last_step=2))))
    rest = asked(model, **plain, init_latents=start(1.0), part=StepRange(first_step=2, add_noise=False))
    assert far(handed(run(flow, rest, latents=kept(tmp_path, first))), whole) < 1e-5


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    from tests.domains.inference.on_device.tiny_families import write_tiny_family

    recorder = Recorder(write_tiny_family("sd3-without-t5", tmp_path_factory.mktemp("flow") / "sd3-without-t5"))
    yield recorder
    recorder.loop.close()


def test_the_latents_of_the_first_pass_outlive_a_pause_in_the_second(
    loop: Recorder, tiny: Model, tmp_path: Path
) -> None:
    wanted = asked(tiny, hires_pass=hires())
    whole = handed(run(loop, wanted))
    assert torch.equal(whole, handed(run(loop, asked(tiny))))
    paused = run(loop, wanted, next(one for one in run(loop, wanted) if _in_second(one)))
    last = paused[-2]
    assert isinstance(last, CheckpointReady)
    path = tmp_path / "kept.safetensors"
    path.write_bytes(last.data)
    resumed = run(loop, wanted, kept=KeptFile(path=str(path), sha256=sha256(last.data).hexdigest()))
    assert torch.equal(handed(resumed), whole)


def _in_second(report: Report) -> bool:
    return isinstance(report, Progressed) and (report.stage, report.completed) == (Stage.HIRES, 1)


def test_latents_of_one_picture_start_all(loop: Recorder, tiny: Model, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = torch.randn(1, 4, 8, 16)
    wanted = asked(tiny, init_latents=start(0.0))
    assert torch.equal(
        handed(run(loop, wanted, latents=kept(tmp_path, one.half()))), one.half().float().expand(2, 4, 8, 16)
    )


def test_latents_that_have_changed_end_the_run(loop: Recorder, tiny: Model, tmp_path: Path) -> None:
    file = kept(tmp_path, torch.zeros(2, 4, 8, 16))
    Path(file.path).write_bytes(save({"latents": torch.ones(2, 4, 8, 16)}))
    end = run(loop, asked(tiny, init_latents=start(0.5)), latents=file)[-1]
    assert isinstance(end, RunFailed)
    assert end.reason == "BLOB_CORRUPT"
