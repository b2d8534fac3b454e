"""Jobs of models that have compiled code, what they tell, and how far their latents lie from those without code.

python -m tests.domains.inference.on_device.compiled_jobs FOLDER

makes latents of a model with and without code of torch's compiler, and prints a JSON of what it found. Like a worker it
imports no part of the compiler before it is needed.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.outcome import LatentsReady, RunFinished, RunStopped
from domains.model.model import Model
from domains.model.ways import Ways
from domains.progress import Degraded, Stage, StageTiming
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_model import tiny_model

COMPILED = Ways(compile=True)
SIZE = {"width_px": 48, "height_px": 32}


def asked(model: Model, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {"sampler": "euler", "steps": 2, "return_latents": True, **SIZE}
    return request(model, **{**plain, **changes})


def latents(
    loop: Recorder, wanted: ResolvedGeneration, job: str = "job", model: Model | None = None, **given: Any
) -> Tensor:
    """(pictures, …): a job's latents."""
    loop.loop.submit(job, Given(loop.loaded.model if model is None else model, wanted, **given))
    loop.run()
    assert isinstance(loop.last(job), RunFinished), loop.last(job)
    told = [one for one in loop.of(job, LatentsReady) if isinstance(one, LatentsReady)]
    return torch.cat([next(iter(read_tensors(one.data).values())) for one in told])


def gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def told_usual(loop: Recorder, job: str = "job") -> list[str]:
    """What a job told of steps without code."""
    return [one.detail for one in loop.of(job, Degraded) if isinstance(one, Degraded) and one.kind == "compile"]


def timing(loop: Recorder, stage: Stage, job: str = "job") -> StageTiming | None:
    end = loop.last(job)
    assert isinstance(end, RunFinished | RunStopped)
    return next((one for one in end.receipt.timings if one.stage is stage), None)


def found_of_torchs_compiler(folder: Path) -> dict[str, Any]:
    """What a job with code of torch's compiler tells, and how far its latents lie from those without code."""
    torch.set_num_threads(1)
    pickles: list[str] = []
    sys.addaudithook(lambda name, args: pickles.append(repr(args)) if name.startswith("pickle.") else None)
    model = tiny_model(folder)
    wanted = asked(model, seeds=(1, 2), steps=1)
    usual = latents(Recorder(model, ways=Ways()), wanted)
    loop = Recorder(model, ways=COMPILED)
    compiled = latents(loop, wanted)
    compiling = timing(loop, Stage.COMPILING)
    return {
        "gap": gap(compiled, usual),
        "usual": told_usual(loop),
        "compiling_s": 0.0 if compiling is None else compiling.wall_s,
        "pickles": pickles,
    }


def main(arguments: Sequence[str]) -> int:
    """Print what was found."""
    print(json.dumps(found_of_torchs_compiler(Path(arguments[0]))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
