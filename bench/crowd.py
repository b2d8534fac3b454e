"""Requests of many clients at once, and the same made by diffusers, for the measurements of shared steps."""

import io
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.on_device import StepLoop
from domains.inference.outcome import ImageReady, Report, RunFailed, RunFinished
from domains.model.model import Model
from tests.domains.inference.on_device.recorder import bring
from tests.domains.inference.on_device.reference import reference_pipeline
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.tiny_model import write_tiny_model
from tests.domains.inference.solvers.test_against_diffusers import CLASSES

AT_ONCE = 8
PROMPT, GUIDANCE = "a red apple", 5.0
STEPS = (10, 30, 14, 26, 12, 28, 16, 20)
SAMPLERS = ("euler", "dpmpp_2m")
PIXEL_TOLERANCE = 2
"""Of 255, as in `serve_overhead`."""


def tiny_model(folder: Path) -> Model:
    """A model of random weights, whose forwards cost less than their launches: what a GPU is to most models.

    A latent pixel is 8×8 pixels, as in published models; attention between more of them would cost more than launches.
    """
    return write_tiny_model(folder / "tiny", vae_levels=4)


def crowd(model: Model, count: int = AT_ONCE, **changes: Any) -> list[ResolvedGeneration]:
    """Requests with different seeds, steps and samplers."""
    return [
        request(
            model,
            prompt=PROMPT,
            guidance_scale=GUIDANCE,
            seeds=(place,),
            steps=STEPS[place % len(STEPS)],
            sampler=SAMPLERS[place % len(SAMPLERS)],
            **changes,
        )
        for place in range(count)
    ]


class Engine:
    """The engine as a worker drives it, with so many jobs at once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.files: dict[str, bytes] = {}
        self.on_report: Callable[[str, Report], None] = lambda name, report: None
        self._ended: list[str] = []
        self.loop = StepLoop("cpu", self._take)
        bring(self.loop, model)

    def _take(self, name: str, report: Report) -> None:
        if isinstance(report, ImageReady):
            self.files[name] = report.data
        if isinstance(report, RunFinished):
            self._ended.append(name)
        assert not isinstance(report, RunFailed), report
        self.on_report(name, report)

    def make(self, asked: Sequence[ResolvedGeneration], at_once: int = AT_ONCE) -> None:
        """All pictures; the next job begins when one has ended."""
        waiting, running = deque(enumerate(asked)), 0
        while waiting or running:
            while waiting and running < at_once:
                place, one = waiting.popleft()
                self.loop.submit(str(place), Given(self.model, one))
                running += 1
            self._ended.clear()
            self.loop.tick()
            running -= len(self._ended)


class Diffusers:
    """Its pipeline as its documentation shows it, with Pillow's PNG."""

    def __init__(self, model: Model) -> None:
        self._pipe = reference_pipeline(model)
        self.files: list[bytes] = []

    def make(self, asked: Sequence[ResolvedGeneration], at_once: int = 1) -> None:
        """All pictures, in batches of so many, each as long as its longest request."""
        self.files = []
        own = self._pipe.scheduler
        for begin in range(0, len(asked), at_once):
            batch = asked[begin : begin + at_once]
            scheduler, options = CLASSES[batch[0].sampler]
            self._pipe.scheduler = scheduler.from_config(own.config, **options)
            for picture in self._pipe(
                [one.prompt for one in batch],
                height=batch[0].height_px,
                width=batch[0].width_px,
                num_inference_steps=max(one.steps for one in batch),
                guidance_scale=batch[0].guidance_scale,
                generator=[torch.Generator().manual_seed(one.seeds[0]) for one in batch],
            ).images:
                file = io.BytesIO()
                picture.save(file, "PNG")
                self.files.append(file.getvalue())
        self._pipe.scheduler = own


def difference(left: bytes, right: bytes) -> int:
    """Largest difference of a channel, 0..255."""
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16) for data in (left, right))
    return int(np.abs(a - b).max())


def folder() -> tempfile.TemporaryDirectory[str]:
    """For a model's files."""
    return tempfile.TemporaryDirectory()
