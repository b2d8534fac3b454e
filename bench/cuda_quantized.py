"""On a machine with a CUDA device: a denoiser of SDXL's size whose weights are stored in fewer bits.

Against the same model with bfloat16 weights, in the same run: bytes held, time of the load, time of a step. Not part of the
CPU set.
"""

import gc
import shutil
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

from bench.cuda_load import Loop
from bench.large_model import write_large_model
from bench.measure import ratio, result, spread
from domains.inference.given import Given
from domains.inference.outcome import ImageReady
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.weight_quantization import QUANTIZATIONS, UNQUANTIZED
from tests.domains.inference.on_device.requests import request

STEPS = 12
"""The first two of them do not count: libraries are set up in them."""
LOADS = 3


class Run:
    """A model that is loaded in one way, several times, and a generation twice on the last."""

    def __init__(self, model: Model, quantization: str) -> None:
        loop, before = Loop(), torch.cuda.memory_allocated()
        self.load_s, self.load_peak_bytes = list[float](), 0
        for number in range(LOADS):
            if number:
                loop.loop.unload(model.id)
            torch.cuda.reset_peak_memory_stats()
            begin = time.perf_counter()
            loop.loop.load(f"load {number}", model, Execution(precision="bfloat16", quantization=quantization))
            self.load_s.append(loop.ended(f"load {number}")[0] - begin)
            self.load_peak_bytes = torch.cuda.max_memory_allocated() - before
        self.held_bytes = torch.cuda.memory_allocated() - before
        self.told_bytes = loop.loop.loaded(model.id).size_bytes
        torch.cuda.reset_peak_memory_stats()
        self.step_s = list[float]()
        for job in ("first", "second"):
            loop.loop.submit(job, Given(model, request(model, steps=STEPS, width_px=1024, height_px=1024)))
            loop.ended(job)
            self.step_s += [end - begin for begin, end in pairwise(loop.steps_of(job))][2:]
        self.run_peak_bytes = torch.cuda.max_memory_allocated() - before
        found = [
            [one.data for _, name, one in loop.reports if name == job and isinstance(one, ImageReady)]
            for job in ("first", "second")
        ]
        self.same_twice = found[0] == found[1] != []
        self.files = found[0]
        loop.loop.unload(model.id)
        loop.loop.close()
        del loop
        gc.collect()
        torch.cuda.empty_cache()


def main() -> int:
    """Print the ratio of the times of a step, bfloat16 to int8; higher is better, 1 is as fast."""
    root = Path(sys.argv[sys.argv.index("--at") + 1] if "--at" in sys.argv else tempfile.mkdtemp(prefix="cuda-bits-"))
    torch.cuda.init()
    model = write_large_model(root / "large", 1)
    runs = {one: Run(model, one) for one in (UNQUANTIZED, *QUANTIZATIONS)}
    shutil.rmtree(root)
    wide = runs[UNQUANTIZED]
    coded = [runs[one] for one in QUANTIZATIONS]
    return result(
        "cuda_quantized",
        ratio(wide.step_s, runs["int8"].step_s),
        target=0.5,
        peer=f"the same model with bfloat16 weights, torch {torch.__version__}",
        conditions={
            "the same request gives the same bytes": all(one.same_twice for one in runs.values()),
            "pictures differ from those of bfloat16": all(one.files != wide.files for one in coded),
            "bytes told are those held": all(
                abs(one.held_bytes - one.told_bytes) < 0.02 * one.told_bytes for one in runs.values()
            ),
            "a load never holds the wide weights": all(one.load_peak_bytes < 0.8 * wide.held_bytes for one in coded),
        },
        details={
            "device": torch.cuda.get_device_name(),
            **{f"GB held, {name}": one.held_bytes / 1e9 for name, one in runs.items()},
            **{f"GB at the peak of a load, {name}": one.load_peak_bytes / 1e9 for name, one in runs.items()},
            **{f"GB at the peak of a run, {name}": one.run_peak_bytes / 1e9 for name, one in runs.items()},
            **{f"seconds of a load, {name}": spread(one.load_s) for name, one in runs.items()},
            **{f"seconds of a step, {name}": spread(one.step_s) for name, one in runs.items()},
            **{
                f"steps of bfloat16 in one of {name}": statistics.median(one.step_s) / statistics.median(wide.step_s)
                for name, one in runs.items()
            },
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
