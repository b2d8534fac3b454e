"""On a machine with a CUDA device: how fast weights of SDXL's size reach it, and what that costs the jobs beside.

Against `safetensors.torch.load_file` onto the same device, from the same warm file, bytes compared. Not part of the CPU set.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file

from bench.large_model import write_large_model
from bench.measure import interleave, ratio, result, spread
from domains.device.on_device.launch_queue import lengthen_launch_queue
from domains.inference.given import Given
from domains.inference.on_device import StepLoop
from domains.inference.outcome import Report, RunFailed, RunFinished, RunStopped
from domains.model.model import Model
from domains.model.on_device import load
from domains.model.on_device.components import BUILDERS, build
from domains.model.on_device.host_tier import HostTier
from domains.model.on_device.weights import Filling, plan
from domains.model.weight_file import WeightFile
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.requests import request

UNET = "unet/diffusion_pytorch_model.safetensors"
DEVICE = torch.device("cuda:0")
CANCEL = Stop(kind=StopKind.CANCEL, cause="not wanted")
ROUNDS = 5
STEPS = 1000
"""More than there are in all loads; the job is stopped."""
LOADS = 8
SWITCHES = 5
ALONE = 15
"""Steps that are measured before each load."""


def read_unet(model: Model, tier: HostTier) -> tuple[torch.nn.Module, float]:
    """The UNet on the device, and the seconds from the opened file until every byte was there."""
    with WeightFile(model, UNET) as file:
        unet = build(model, "unet", BUILDERS["sd1"]["unet"], len(file.tensors))
        slots = plan(unet, "unet", [file], torch.bfloat16, torch.channels_last)
        begin = time.perf_counter()
        with Filling(DEVICE, tier) as filling:
            for read in filling.fill(unet, slots):
                while not read.ready.passed():
                    read.ready.wait()
            torch.cuda.synchronize()
            return unet, time.perf_counter() - begin


def fresh_s(model: Model) -> float:
    """Seconds from the page cache: the map is registered on the way, and kept."""
    tier = HostTier()
    _, took_s = read_unet(model, tier)
    tier.clear()
    return took_s


def registered_s(model: Model) -> list[float]:
    """Seconds from a map that was registered before."""
    tier = HostTier()
    read_unet(model, tier)
    took = [read_unet(model, tier)[1] for _ in range(ROUNDS)]
    tier.clear()
    return took


def theirs(path: Path) -> None:
    """The same file by the format's own library."""
    load_file(path, device="cuda:0")
    torch.cuda.synchronize()


class Loop:
    """A step loop, and when each report came."""

    def __init__(self) -> None:
        self.reports: list[tuple[float, str, Report]] = []
        self.loop = StepLoop("cuda:0", self._take)

    def _take(self, job_id: str, report: Report) -> None:
        self.reports.append((time.perf_counter(), job_id, report))

    def until(self, found: Callable[[str, Report], bool]) -> tuple[float, Report]:
        """Tick until a report that fits has come; its time."""
        seen = len(self.reports)
        while True:
            for at, job_id, report in self.reports[seen:]:
                if isinstance(report, RunFailed):
                    raise AssertionError(report.message)
                if found(job_id, report):
                    return at, report
            seen = len(self.reports)
            self.loop.tick()

    def ended(self, job_id: str) -> tuple[float, Report]:
        """Tick until a job has ended."""
        return self.until(lambda name, report: name == job_id and isinstance(report, RunFinished | RunStopped))

    def steps_of(self, job_id: str) -> list[float]:
        """When each denoising step of a job was reported."""
        return [
            at
            for at, name, report in self.reports
            if name == job_id and isinstance(report, Progressed) and report.stage is Stage.DENOISING
        ]


def is_step(job_id: str, job: str, report: Report) -> bool:
    """Whether a report is a finished denoising step of a job."""
    step = isinstance(report, Progressed) and report.stage is Stage.DENOISING and report.completed > 0
    return step and job_id == job


def first_step_s(model: Model) -> dict[str, list[float]]:
    """Seconds from the order to the begin and to the end of the first step: from the page cache, then from the RAM tier.

    A step is enqueued while the weights are still on their way, so its begin is its end without a step's time, the median of
    the others.
    """
    loop, took = Loop(), dict[str, list[float]]()
    for name in ("page cache", *(f"RAM tier {number}" for number in range(1, 1 + SWITCHES))):
        begin = time.perf_counter()
        loop.loop.submit(name, Given(model, request(model, steps=1 + ALONE, width_px=1024, height_px=1024)))
        loop.ended(name)
        ends = loop.steps_of(name)[1:]
        took[name] = [ends[0] - begin - _median_step(ends), ends[0] - begin]
        loop.loop.unload(model.id)
    loop.loop.close()
    return took


def cancels_s(model: Model) -> tuple[list[float], int]:
    """Seconds from a request to stop to its proof at different moments of the load, and bytes left on the device."""
    loop, took = Loop(), []
    before = torch.cuda.memory_allocated()
    for number, share in enumerate((0.0, 0.1, 0.3, 0.5, 0.7, 0.9)):
        loop.loop.load(f"{number}", model)
        while loop.loop.resources.model_bytes().get(model.id, 0) < share * model.size_bytes:
            loop.loop.tick()
        begin = time.perf_counter()
        loop.loop.stop(f"{number}", CANCEL)
        at, _ = loop.ended(f"{number}")
        took.append(at - begin)
    left = torch.cuda.memory_allocated() - before
    loop.loop.close()
    return took, left


def beside_s(model: Model, other: Model) -> dict[str, list[float]]:
    """Times of a job's steps alone and while another model is loaded, in turns; the ratios of their medians, turn by turn;
    the times of those loads. The first load, which also registers the file, does not count."""
    loop = Loop()
    loop.loop.submit("beside", Given(model, request(model, steps=STEPS, width_px=1024, height_px=1024)))
    took: dict[str, list[float]] = {"alone": [], "beside": [], "ratios": [], "loads": []}
    for number in range(LOADS + 1):
        first = len(loop.steps_of("beside"))
        loop.until(lambda job, report, first=first: len(loop.steps_of("beside")) >= first + ALONE)
        alone = _median_step(loop.steps_of("beside")[first + 1 :])
        begin = time.perf_counter()
        loop.loop.load(f"load {number}", other)
        end, _ = loop.ended(f"load {number}")
        beside = _median_step([at for at in loop.steps_of("beside") if begin <= at <= end])
        loop.loop.unload(other.id)
        if number:
            for name, value in (
                ("alone", alone),
                ("beside", beside),
                ("ratios", beside / alone),
                ("loads", end - begin),
            ):
                took[name].append(value)
    loop.loop.stop("beside", CANCEL)
    loop.ended("beside")
    loop.loop.close()
    return took


def _median_step(at: list[float]) -> float:
    return statistics.median(b - a for a, b in pairwise(at))


def main() -> int:
    """Print the ratio theirs / ours; higher is better."""
    root = Path(sys.argv[sys.argv.index("--at") + 1] if "--at" in sys.argv else tempfile.mkdtemp(prefix="cuda-load-"))
    lengthen_launch_queue()
    torch.cuda.init()
    model, other = (write_large_model(root / f"large-{seed}", seed) for seed in (1, 2))
    path = Path(model.folder) / UNET
    size = os.path.getsize(path)
    unet, stored = read_unet(model, HostTier(lambda: 0))[0], load_file(path, device="cuda:0")
    placed = unet.state_dict()
    equal = all(torch.equal(placed[name], value) for name, value in stored.items())
    del unet, stored, placed
    ours: list[float] = []
    samples = interleave({"ours": lambda: ours.append(fresh_s(model)), "theirs": partial(theirs, path)}, ROUNDS)
    rates = [size / seconds / 1e9 for seconds in ours[1:]]
    registered = [size / seconds / 1e9 for seconds in registered_s(model)]
    whole = [load(model, "cuda:0").load_s for _ in range(3)]
    cancelled, left = cancels_s(model)
    switch = first_step_s(model)
    begun = sorted(begin for name, (begin, _) in switch.items() if name.startswith("RAM"))
    times = beside_s(model, other)
    slower = statistics.median(times["ratios"])
    shutil.rmtree(root)
    return result(
        "cuda_load",
        ratio(samples["theirs"], ours[1:]),
        target=8.0,
        peer=f"safetensors {version('safetensors')} load_file onto the same device, torch {torch.__version__}",
        conditions={
            "bytes equal": equal,
            "page cache to device at least 30 GB/s": statistics.median(rates) >= 30,
            "switch to a model in RAM at most 160 ms to its first step": statistics.median(begun) <= 0.16,
            "cancel at most 100 ms": max(cancelled) <= 0.1,
            "a cancelled load leaves nothing": left == 0,
            "a neighbour's step at most 1.1 times as long": slower <= 1.1,
        },
        details={
            "device": torch.cuda.get_device_name(),
            "GB of the UNet": size / 1e9,
            "GB/s": spread(rates),
            "GB/s from a registered map": spread(registered),
            "peer GB/s": spread([size / seconds / 1e9 for seconds in samples["theirs"]]),
            "GB of the model": model.size_bytes / 1e9,
            "whole load seconds": spread(whole),
            "cancel seconds": cancelled,
            "seconds to begin and end of the first step": switch,
            "neighbour's step alone": spread(times["alone"]),
            "neighbour's step during loads": spread(times["beside"]),
            "the same, beside / alone": spread(times["ratios"]),
            "load seconds beside the neighbour": spread(times["loads"]),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
