"""On a machine with a CUDA device: what models cost whose place on the device is too small. Not part of the CPU set.

First SD3 Medium with T5-XXL (published sizes, random weights) whose components take turns, and whose layers pass through the
device, against the same model with all of it on the device. Then a model of SDXL's size whose device another program fills
in the middle of a job, twice: a real out of memory, after which more of the model waits in host memory.
"""

import shutil
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from bench.cuda_families import SIZES, write_family
from bench.cuda_load import Loop
from bench.large_model import write_large_model
from bench.measure import ratio, result, spread
from domains.device.on_device.launch_queue import lengthen_launch_queue
from domains.inference.fallback import Fallback
from domains.inference.given import Given
from domains.inference.outcome import ImageReady, Report, RunFinished
from domains.model.execution import BY_COMPONENT, BY_LAYER, Execution
from domains.model.model import Model
from domains.progress import Degraded, Progressed, Stage
from tests.domains.inference.on_device.requests import request

STEPS = 12
ROUNDS = 3
LEFT_BYTES = 256 * 2**20
"""What the other program leaves free: less than a step needs beside the weights."""
ONLY_OFFLOAD = Fallback(allow_smaller_batch=False, allow_tiling=False, allow_eviction=False)
_SD3: dict[str, Any] = {"width_px": 1024, "height_px": 1024, "steps": STEPS, "sigma_schedule": "normal"}


class Pictures:
    """Pictures of a model that is loaded in one way. Each has a prompt of its own, so that each encodes one."""

    def __init__(self, model: Model, execution: Execution) -> None:
        loop = Loop()
        loop.loop.load("load", model, execution)
        loop.ended("load")
        self.picture_s, self.condition_s, self.step_s = list[float](), list[float](), list[float]()
        for number in range(ROUNDS + 1):
            name, begin = f"{number}", time.perf_counter()
            loop.loop.peak_bytes = 0
            wanted = request(model, sampler=model.default_sampler, prompt=f"owl {number}", **_SD3)
            loop.loop.submit(name, Given(model, wanted))
            at, end = loop.ended(name)
            assert isinstance(end, RunFinished)
            if number:
                self.picture_s.append(at - begin)
                self.condition_s += [one.wall_s for one in end.receipt.timings if one.stage is Stage.CONDITIONING]
                self.step_s += [after - before for before, after in pairwise(loop.steps_of(name)[1:])]
        self.files = [one.data for _, _, one in loop.reports if isinstance(one, ImageReady)]
        self.peak_bytes = loop.loop.peak_bytes
        loop.loop.unload(model.id)
        loop.loop.close()


class Filled:
    """A job whose device another program fills after its second step, and again after its fifth."""

    def __init__(self, model: Model) -> None:
        self.loop = Loop()
        wanted = request(model, steps=STEPS, width_px=1024, height_px=1024)
        self.loop.loop.submit("whole", Given(model, wanted))
        self.loop.ended("whole")
        self.loop.loop.submit("filled", Given(model, wanted, fallback=ONLY_OFFLOAD))
        others: list[torch.Tensor] = []
        for step in (2, 5):
            self.loop.until(lambda job, report, step=step: _has_done(step, job, report))
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info()
            others.append(torch.empty(max(0, free - LEFT_BYTES), dtype=torch.uint8, device="cuda:0"))
        _, end = self.loop.ended("filled")
        assert isinstance(end, RunFinished)
        self.steps_executed = end.receipt.steps_executed
        del others
        self.ways = [one.kind for _, job, one in self.loop.reports if job == "filled" and isinstance(one, Degraded)]
        self.loaded_as = self.loop.loop.loaded(model.id).execution.offload
        self.same = self._files("whole") == self._files("filled")
        self.step_s = [after - before for before, after in pairwise(self.loop.steps_of("filled"))]
        self.loop.loop.unload(model.id)
        self.loop.loop.close()

    def _files(self, job_id: str) -> list[bytes]:
        return [one.data for _, job, one in self.loop.reports if job == job_id and isinstance(one, ImageReady)]


def _has_done(step: int, job: str, report: Report) -> bool:
    if not isinstance(report, Progressed) or report.stage is not Stage.DENOISING:
        return False
    return job == "filled" and report.completed == step


def main() -> int:
    """Print the ratio of the times of a picture, all on the device to layers that pass; higher is better, 1 is as fast."""
    root = Path(sys.argv[sys.argv.index("--at") + 1] if "--at" in sys.argv else tempfile.mkdtemp(prefix="cuda-short-"))
    lengthen_launch_queue()
    torch.cuda.init()
    model = write_family(root / "sd3", SIZES["sd3"])
    ways = {
        "whole": Execution(),
        "by component": Execution(offload=BY_COMPONENT),
        "by layer": Execution(offload=BY_LAYER, offload_budget_bytes=0),
    }
    found = {name: Pictures(model, way) for name, way in ways.items()}
    shutil.rmtree(root / "sd3")
    filled = Filled(write_large_model(root / "large", 1))
    shutil.rmtree(root)
    return result(
        "cuda_short_of_memory",
        ratio(found["whole"].picture_s, found["by layer"].picture_s),
        target=0.1,
        peer=f"the same model with all its weights on the device, torch {torch.__version__}",
        conditions={
            "the pictures are the same": all(one.files == found["whole"].files for one in found.values()),
            "T5-XXL leaves the peak": found["by layer"].peak_bytes < found["whole"].peak_bytes / 3,
            "a job goes on when its device is filled": filled.ways == ["offload"] * 2,
            "its picture is the same": filled.same,
            "no step is done twice": filled.steps_executed == STEPS,
        },
        details={
            "device": torch.cuda.get_device_name(),
            "GB of the model": model.size_bytes / 1e9,
            **{f"seconds of a picture, {name}": spread(one.picture_s) for name, one in found.items()},
            **{f"seconds of its prompt, {name}": spread(one.condition_s) for name, one in found.items()},
            **{f"seconds of a step, {name}": spread(one.step_s) for name, one in found.items()},
            **{f"peak GB, {name}": one.peak_bytes / 1e9 for name, one in found.items()},
            "loaded at last": str(filled.loaded_as),
            "seconds of the steps of a filled job": filled.step_s,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
