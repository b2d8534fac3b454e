"""Makes pictures with a process that is killed at a step, and another one that goes on from the checkpoint.

Each run is a forked process of its own: it has nothing of the one before but the file. The forking process computes
nothing and starts no thread, so that what is forked is whole.

python -m tests.domains.inference.on_device.killed_runs FOLDER STEPS SAMPLER …

kills after each of the steps (`0,1,2`), and prints a JSON of those that differ, by sampler.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import torch

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.outcome import CheckpointReady, Report
from domains.inference.samplers import SAMPLERS
from domains.model.model import Model
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_model import tiny_model

STEPS = 5
PAUSE = Stop(kind=StopKind.PAUSE, cause="the process is about to be killed")


def differing(model: Model, sampler: str, folder: Path, steps: Sequence[int]) -> list[int]:
    """Those of the steps after which a killed process left another picture."""
    asked = request(
        model,
        sampler=sampler,
        sigma_schedule=SAMPLERS[sampler].sigma_schedules[0],
        eta=0.5 if SAMPLERS[sampler].eta else None,
        steps=STEPS,
        seeds=(1, 2),
        width_px=16,
        height_px=16,
    )
    whole, kept = folder / "whole", folder / "kept.safetensors"
    _forked(lambda: _finish(asked, model, whole))
    found: list[int] = []
    for step in steps:
        resumed = folder / f"resumed {step}"
        status = _forked(lambda step=step: _killed_at(step, asked, model, kept))
        assert os.WTERMSIG(status) == signal.SIGKILL, f"{sampler}: the process was to be killed at step {step}"
        _forked(lambda resumed=resumed: _finish(asked, model, resumed, kept))
        if resumed.read_bytes() != whole.read_bytes():
            found.append(step)
        kept.unlink()
    return found


def _killed_at(step: int, asked: ResolvedGeneration, model: Model, kept: Path) -> None:
    """Pause after a step; die as soon as the checkpoint is written."""
    recorder = Recorder(model)

    def on_report(job_id: str, report: Report) -> None:
        if isinstance(report, Progressed) and report.stage is Stage.DENOISING and report.completed == step:
            recorder.loop.stop(job_id, PAUSE)
        if isinstance(report, CheckpointReady):
            kept.write_bytes(report.data)
            os.kill(os.getpid(), signal.SIGKILL)

    recorder.on_report = on_report
    recorder.loop.submit("killed", Given(model, asked))
    recorder.run()


def _finish(asked: ResolvedGeneration, model: Model, into: Path, kept: Path | None = None) -> None:
    """Make the pictures, or what is left to make, and write them to a file."""
    recorder = Recorder(model)
    file = None if kept is None else KeptFile(path=str(kept), sha256=sha256(kept.read_bytes()).hexdigest())
    recorder.loop.submit("whole", Given(model, asked, kept=file))
    recorder.run()
    pictures = recorder.files("whole")
    assert len(pictures) == len(asked.seeds), recorder.reports["whole"][-1]
    into.write_bytes(b"".join(pictures))


def _forked(run: Callable[[], None]) -> int:
    """Run in a forked process; returns how that ended."""
    pid = os.fork()
    if not pid:
        _child(run)
    return os.waitpid(pid, 0)[1]


def _child(run: Callable[[], None]) -> NoReturn:
    """Leaves without the parent's clean-up."""
    try:
        run()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main(arguments: Sequence[str]) -> int:
    """Print what differs."""
    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    folder, listed, *samplers = arguments
    steps = [int(step) for step in listed.split(",")]
    model = tiny_model(Path(folder) / "tiny")
    print(json.dumps({sampler: differing(model, sampler, Path(folder), steps) for sampler in samplers}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
