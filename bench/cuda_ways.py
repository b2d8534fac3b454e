"""On a machine with a CUDA device: what the ways to compute of a load cost a model of SDXL's size, in time and memory.

Each attention kernel against torch's own choice: seconds of a step, and how far the latents are from each other. Each way to
decode four pictures of 1024×1024: seconds and the most bytes. Not part of the CPU set.
"""

import shutil
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load as read_tensors

from bench.cuda_load import Loop
from bench.large_model import write_large_model
from bench.measure import ratio, result, spread
from domains.inference.given import Given
from domains.inference.outcome import LatentsReady, RunFinished
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.ways import Ways
from domains.progress import Degraded, Stage
from tests.domains.inference.on_device.requests import request

STEPS = 12
"""The first two of them do not count: libraries are set up in them."""
PICTURES = 4
KERNELS = ("flash", "memory_efficient", "cudnn", "math")
DECODING = {
    "one by one": Ways(),
    "all at once": Ways(vae_slicing=False),
    "in tiles of 512": Ways(vae_tiling=True),
    "in tiles of 256": Ways(vae_tiling=True, vae_tile_px=256),
}
CLOSE = 0.05
"""Largest mean distance of latents, whose deviation is about 1, between two kernels after all steps in half precision."""


class Run:
    """A generation on a model that computes in some ways."""

    def __init__(self, model: Model, ways: Ways, pictures: int = 1, steps: int = STEPS) -> None:
        loop = Loop()
        loop.loop.load("load", model, Execution(ways=ways))
        loop.ended("load")
        for name in ("warm", "run"):
            seeds = tuple(range(pictures))
            asked = request(model, steps=steps, seeds=seeds, return_latents=True, width_px=1024, height_px=1024)
            loop.loop.submit(name, Given(model, asked))
            end = cast(RunFinished, loop.ended(name)[1])
        at = loop.steps_of("run")
        self.step_s = [next_one - one for one, next_one in pairwise(at)][2:]
        timings = {one.stage: one for one in end.receipt.timings}
        self.decode_s = timings[Stage.DECODING].device_s or timings[Stage.DECODING].wall_s
        self.peak_bytes = end.receipt.peak_device_bytes or 0
        """Of the steps and the decoding, weights included."""
        told = [one for _, job, one in loop.reports if job == "run"]
        self.latents = [next(iter(read_tensors(one.data).values())) for one in told if isinstance(one, LatentsReady)]
        self.given_up = [one.detail for one in told if isinstance(one, Degraded)]
        loop.loop.unload(model.id)
        loop.loop.close()

    def gap(self, other: "Run") -> float:
        """The mean distance of the latents of two runs."""
        pairs = zip(self.latents, other.latents, strict=True)
        return max(float((one.float() - two.float()).abs().mean()) for one, two in pairs)


def main() -> int:
    """Print the ratio of the times of a step, `math` to torch's own choice of a kernel."""
    root = Path(sys.argv[sys.argv.index("--at") + 1] if "--at" in sys.argv else tempfile.mkdtemp(prefix="cuda-ways-"))
    torch.cuda.init()
    model = write_large_model(root / "large", 1)
    usual = Run(model, Ways())
    kernels = {name: Run(model, Ways(attention_kernel=name)) for name in KERNELS}
    sliced = Run(model, Ways(attention_kernel="math", attention_slicing=True))
    every = {**kernels, "math in slices": sliced}
    decoded = {name: Run(model, ways, PICTURES, 1) for name, ways in DECODING.items()}
    shutil.rmtree(root)
    return result(
        "cuda_ways",
        ratio(kernels["math"].step_s, usual.step_s),
        target=1.0,
        peer=f"the same model with attention_kernel math, torch {torch.__version__}",
        conditions={
            "latents are close": all(one.gap(usual) < CLOSE for one in every.values()),
            "slices of math take less memory": sliced.peak_bytes <= kernels["math"].peak_bytes,
            "tiles take less memory": decoded["in tiles of 512"].peak_bytes < decoded["one by one"].peak_bytes,
        },
        details={
            "device": torch.cuda.get_device_name(),
            "seconds of a step, torch's choice": spread(usual.step_s),
            **{f"seconds of a step, {name}": spread(one.step_s) for name, one in every.items()},
            **{f"peak bytes, {name}": one.peak_bytes for name, one in {"torch's choice": usual, **every}.items()},
            **{f"mean distance of latents, {name}": one.gap(usual) for name, one in every.items()},
            **{f"computed with math all the same, {name}": one.given_up for name, one in every.items()},
            **{f"seconds to decode {PICTURES} pictures, {name}": one.decode_s for name, one in decoded.items()},
            **{f"peak bytes, {PICTURES} pictures decoded {name}": one.peak_bytes for name, one in decoded.items()},
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
