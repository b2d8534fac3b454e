"""On a machine with a CUDA device: steps of a denoiser of SDXL's size whose layers pass through the device.

Against the same model with all of it on the device, in the same run, pictures compared. Not part of the CPU set.
"""

import shutil
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch

from bench.cuda_load import Loop
from bench.large_model import write_large_model
from bench.measure import ratio, result, spread
from domains.inference.given import Given
from domains.inference.outcome import ImageReady
from domains.model.execution import BY_LAYER, Execution
from domains.model.model import Model
from tests.domains.inference.on_device.requests import request

STEPS = 12
"""The first two of them do not count: libraries are set up in them."""
SHARES = (0.0, 0.25, 0.5, 0.75)
"""Parts of the denoiser's bytes that its budget is; 0: the least that its layers allow."""


class Run:
    """A generation on a model that is loaded in one way."""

    def __init__(self, model: Model, execution: Execution) -> None:
        loop = Loop()
        loop.loop.load("load", model, execution)
        loop.ended("load")
        loop.loop.peak_bytes = 0
        loop.loop.submit("run", Given(model, request(model, steps=STEPS, width_px=1024, height_px=1024)))
        loop.ended("run")
        at = loop.steps_of("run")
        self.step_s = [end - begin for begin, end in pairwise(at)][2:]
        self.files = [one.data for _, job, one in loop.reports if job == "run" and isinstance(one, ImageReady)]
        loaded = loop.loop.loaded(model.id)
        self.whole_bytes = loaded.bytes_per_component["unet"]
        self.held_bytes = self.whole_bytes if loaded.turns is None else loaded.turns.size_of("unet")
        self.peak_bytes = loop.loop.peak_bytes
        del loaded
        loop.loop.unload(model.id)
        loop.loop.close()


def main() -> int:
    """Print the ratio of the times of a step, all on the device to half of it; higher is better, 1 is as fast."""
    root = Path(sys.argv[sys.argv.index("--at") + 1] if "--at" in sys.argv else tempfile.mkdtemp(prefix="cuda-layers-"))
    torch.cuda.init()
    model = write_large_model(root / "large", 1)
    whole = Run(model, Execution())
    streamed = {
        share: Run(model, Execution(offload=BY_LAYER, offload_budget_bytes=int(share * whole.whole_bytes)))
        for share in SHARES
    }
    shutil.rmtree(root)
    return result(
        "cuda_layers",
        ratio(whole.step_s, streamed[0.5].step_s),
        target=0.3,
        peer=f"the same model with all its weights on the device, torch {torch.__version__}",
        conditions={
            "the pictures are the same": all(one.files == whole.files for one in streamed.values()),
            "the denoiser keeps its budget": all(
                one.held_bytes <= share * whole.whole_bytes for share, one in streamed.items() if share
            ),
        },
        details={
            "device": torch.cuda.get_device_name(),
            "GB of the denoiser": whole.whole_bytes / 1e9,
            "seconds of a step, whole": spread(whole.step_s),
            "peak bytes, whole": whole.peak_bytes,
            **{f"seconds of a step, budget {share:.0%}": spread(one.step_s) for share, one in streamed.items()},
            **{f"bytes of the denoiser, budget {share:.0%}": one.held_bytes for share, one in streamed.items()},
            **{f"peak bytes, budget {share:.0%}": one.peak_bytes for share, one in streamed.items()},
            **{
                f"GB/s that pass, budget {share:.0%}": (one.whole_bytes - one.held_bytes)
                / statistics.median(one.step_s)
                / 1e9
                for share, one in streamed.items()
            },
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
