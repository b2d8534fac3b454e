"""On a machine with a CUDA device: what compiled code saves of a step, and what making it takes, at published sizes.

Against the same model without code, in the same run, in bfloat16 with random weights: seconds of a step of one picture and
of four, seconds of the compilation, the most bytes, and how far the latents are from each other. Not part of the CPU set;
names of families on the command line measure these alone (sd1, sd2, sdxl, sd3, flux1).
"""

import gc
import shutil
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load as read_tensors

from bench.cuda_families import SIZES, Sizes, write_family
from bench.cuda_load import Loop
from bench.measure import Spread, ratio, result, spread
from domains.inference.given import Given
from domains.inference.outcome import LatentsReady, RunFinished
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.ways import Ways
from domains.progress import Degraded, Stage
from tests.domains.inference.on_device.requests import request

NAMES = ("sd1", "sdxl", "flux1")
PICTURES = (1, 4)
RUNS = 3
STEPS = 12
"""The first two of a run do not count: libraries are set up in them."""
FEW = 4
"""Steps of the latents that are compared: random weights make small differences grow."""
CLOSE = 0.1
"""Largest mean distance of these, whose deviation is about 1, in bfloat16."""


class Run:
    """A model that computes in some ways."""

    def __init__(self, model: Model, sizes: Sizes, ways: Ways) -> None:
        self._loop, self._model, self._sizes = Loop(), model, sizes
        self._loop.loop.load("load", model, Execution(precision="bfloat16", ways=ways))
        self._loop.ended("load")
        self.step_s: dict[int, list[float]] = {}
        self.compile_s: dict[int, float] = {}
        """By pictures: of the first job with so many."""
        self.given_up: set[str] = set()
        for pictures in PICTURES:
            first = self._made(f"{pictures} first", pictures, STEPS)
            self.compile_s[pictures] = first.get(Stage.COMPILING, 0.0)
            steps = list[float]()
            for number in range(RUNS):
                job = f"{pictures}/{number}"
                again = self._made(job, pictures, STEPS)
                assert Stage.COMPILING not in again, "code is made once"
                steps += [end - begin for begin, end in pairwise(self._loop.steps_of(job))][2:]
            self.step_s[pictures] = steps
        self.peak_bytes = self._loop.loop.peak_bytes
        self._made("latents", 1, FEW)
        told = [one for _, job, one in self._loop.reports if job == "latents" and isinstance(one, LatentsReady)]
        self.latents = next(iter(read_tensors(told[0].data).values())).float()
        self._loop.loop.unload(model.id)
        self._loop.loop.close()
        gc.collect()
        torch.cuda.empty_cache()

    def _made(self, job: str, pictures: int, steps: int) -> dict[Stage, float]:
        """Seconds of each stage of a job."""
        edge, flux = self._sizes.edge_px, self._model.family == "flux1"
        sampler = self._sizes.sampler or {"sampler": self._model.default_sampler, "sigma_schedule": "normal"}
        asked: dict[str, Any] = {
            **({"guidance_scale": 1.0, "distilled_guidance": 5.0} if flux else {"guidance_scale": 5.0}),
            **{"width_px": edge, "height_px": edge, "steps": steps, "seeds": tuple(range(pictures))},
            **sampler,
        }
        self._loop.loop.submit(job, Given(self._model, request(self._model, None, return_latents=True, **asked)))
        end = cast(RunFinished, self._loop.ended(job)[1])
        self.given_up |= {
            one.detail for _, name, one in self._loop.reports if name == job and isinstance(one, Degraded)
        }
        return {one.stage: one.wall_s for one in end.receipt.timings}


def measured(name: str, root: Path) -> tuple[Spread, dict[str, bool], dict[str, Any]]:
    """The ratio of the times of a step, the conditions that held, and the figures of one family."""
    model = write_family(root / name, SIZES[name])
    usual, compiled = (Run(model, SIZES[name], ways) for ways in (Ways(), Ways(compile=True)))
    shutil.rmtree(root / name)
    gap = float((usual.latents - compiled.latents).abs().mean())
    one, *_ = PICTURES
    figures: dict[str, Any] = {
        f"{name}: mean distance of latents": gap,
        f"{name}: peak bytes": {"as usual": usual.peak_bytes, "compiled": compiled.peak_bytes},
        f"{name}: computed as usual all the same": sorted(compiled.given_up),
    }
    for pictures in PICTURES:
        told = f"{name}, {pictures} pictures"
        figures |= {
            f"{told}: seconds of a step as usual": spread(usual.step_s[pictures]),
            f"{told}: seconds of a step compiled": spread(compiled.step_s[pictures]),
            f"{told}: times as fast": statistics.median(usual.step_s[pictures])
            / statistics.median(compiled.step_s[pictures]),
            f"{told}: seconds of the compilation": compiled.compile_s[pictures],
        }
    conditions = {
        f"{name}: latents are close": gap < CLOSE,
        f"{name}: all steps are compiled": not compiled.given_up,
        f"{name}: something was compiled": compiled.compile_s[one] > 0,
    }
    return ratio(usual.step_s[one], compiled.step_s[one]), conditions, figures


def main() -> int:
    """Print how many times as fast a step of the first family is with compiled code."""
    root = Path(sys.argv[sys.argv.index("--at") + 1] if "--at" in sys.argv else tempfile.mkdtemp(prefix="cuda-code-"))
    torch.cuda.init()
    ratios = list[Spread]()
    conditions, details = dict[str, bool](), dict[str, Any]()
    for name in [name for name in SIZES if name in sys.argv[1:]] or NAMES:
        times, held, figures = measured(name, root)
        ratios.append(times)
        conditions |= held
        details |= figures
        print(name, figures, flush=True)
    return result(
        "cuda_compile",
        ratios[0],
        target=1.0,
        peer=f"the same model without compiled code, torch {torch.__version__}",
        conditions=conditions,
        details={"device": torch.cuda.get_device_name(), **details},
    )


if __name__ == "__main__":
    raise SystemExit(main())
