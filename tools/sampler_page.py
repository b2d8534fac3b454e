"""A page of every sampler with every sigma schedule: the same prompt and seed, made by the engine on the CPU.

    python -m tools.sampler_page samplers.html
    python -m tools.sampler_page samplers.html --steps 20 --edge 256 --prompt "a red apple"

The page has one row a sampler and one column a schedule; the pictures lie in it, so that it is one file.
"""

import argparse
import base64
import html
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from domains.inference.generation import EncodeOptions, Generation, ManifestDetail, Sampling
from domains.inference.given import Given
from domains.inference.on_device import StepLoop
from domains.inference.outcome import ImageReady, Report, RunFailed
from domains.inference.resolution.resolve import resolve
from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES
from domains.model.catalogue import embedded_models
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model

_STYLE = (
    "body{font:14px sans-serif} td,th{padding:4px;text-align:center} img{display:block} td:empty::after{content:'–'}"
)


class Pictures:
    """Makes pictures with the model that comes with the package."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._model = self._found()
        self._loop = StepLoop("cpu", self._take)
        self._file = b""

    @staticmethod
    def _found() -> Model:
        return next(iter(embedded_models(Fingerprints())))

    def _take(self, job_id: str, report: Report) -> None:
        if isinstance(report, ImageReady):
            self._file = report.data
        elif isinstance(report, RunFailed):
            raise SystemExit(f"{job_id}: {report.message}")

    def made(self, sampler: str, schedule: str) -> bytes:
        """The file of one picture."""
        asked = self._asked
        steps = min(asked.steps, SAMPLERS[sampler].most_steps or asked.steps)
        request = Generation(
            prompt=asked.prompt,
            width_px=asked.edge,
            height_px=asked.edge,
            sampling=Sampling(sampler=sampler, sigma_schedule=schedule, steps=steps, seed=asked.seed),
            output=EncodeOptions(media_type="image/webp", manifest=ManifestDetail.NONE),
        )
        self._loop.submit(f"{sampler} {schedule}", Given(self._model, resolve(request, self._model)))
        while self._loop.tick():
            pass
        return self._file

    def close(self) -> None:
        """Free the model."""
        self._loop.close()


class Making(Protocol):
    """Makes the picture of a sampler with a schedule."""

    def made(self, sampler: str, schedule: str) -> bytes:
        """A file in WebP."""
        ...


def page(pictures: Making, title: str) -> Iterator[str]:
    """The lines of the page."""
    yield f"<!doctype html><meta charset=utf-8><title>Samplers</title><style>{_STYLE}</style>"
    yield f"<h1>Samplers × sigma schedules</h1><p>{html.escape(title)}</p><table>"
    yield "<tr><th></th>" + "".join(f"<th>{html.escape(name)}</th>" for name in SIGMA_SCHEDULES.values()) + "</tr>"
    for sampler in SAMPLERS.values():
        yield f"<tr><th>{html.escape(sampler.display_name)}</th>"
        for schedule in SIGMA_SCHEDULES:
            yield (
                f"<td>{_image(pictures, sampler.id, schedule)}</td>"
                if schedule in sampler.sigma_schedules
                else "<td></td>"
            )
        yield "</tr>"
    yield "</table>"


def _image(pictures: Making, sampler: str, schedule: str) -> str:
    print(sampler, schedule, file=sys.stderr)
    data = base64.b64encode(pictures.made(sampler, schedule)).decode()
    return f'<img alt="{sampler} {schedule}" src="data:image/webp;base64,{data}">'


def main() -> int:
    """Write the page."""
    reader = argparse.ArgumentParser(description="Render every sampler with every sigma schedule.")
    reader.add_argument("file", type=Path)
    reader.add_argument("--prompt", default="a red apple")
    reader.add_argument("--seed", type=int, default=7)
    reader.add_argument("--steps", type=int, default=12)
    reader.add_argument("--edge", type=int, default=128)
    asked = reader.parse_args()
    pictures = Pictures(asked)
    title = f"{asked.prompt}, seed {asked.seed}, {asked.steps} steps, {asked.edge} × {asked.edge}"
    asked.file.write_text("\n".join(page(pictures, title)), encoding="utf-8")
    pictures.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
