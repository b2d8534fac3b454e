"""A picture by our engine, prompt to PNG in this process, against diffusers' own pipeline with Pillow's PNG.

Same model, prompt, seed, steps, guidance, sampler and threads on both sides. The final latents are compared in the
same run, for each kind of sampler; so are the denoiser alone and the VAE's decoder alone.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two pools of threads that spin would measure each other

import io
from importlib.metadata import version

import torch

from bench.measure import interleave, ratio, result, spread
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.on_device import StepLoop
from domains.inference.outcome import ImageReady, Report
from tests.domains.inference.on_device.recorder import bring
from tests.domains.inference.on_device.reference import COMPARED, final_latents, reference_latents, reference_pipeline
from tests.domains.inference.on_device.requests import embedded_model, request

THREADS = os.cpu_count() or 1
ROUNDS = 7
TOLERANCE = 1e-4
REQUEST = request(embedded_model(), prompt="a red apple", seeds=(7,), steps=20, guidance_scale=5.0)


class Ours:
    """The engine as the worker drives it."""

    def __init__(self) -> None:
        self.loop = StepLoop("cpu", self._take)
        self.loaded = bring(self.loop, embedded_model())
        self._file = b""

    def _take(self, job_id: str, report: Report) -> None:
        if isinstance(report, ImageReady):
            self._file = report.data

    def picture(self) -> bytes:
        """One picture as PNG."""
        self.loop.submit("bench", Given(self.loaded.model, REQUEST))
        while self.loop.tick():
            pass
        return self._file


class Theirs:
    """Diffusers as its documentation shows it."""

    def __init__(self) -> None:
        self.pipe = reference_pipeline(embedded_model())

    def picture(self) -> bytes:
        """One picture as PNG."""
        image = self.pipe(
            REQUEST.prompt,
            num_inference_steps=REQUEST.steps,
            guidance_scale=REQUEST.guidance_scale,
            generator=torch.Generator().manual_seed(REQUEST.seeds[0]),
        ).images[0]
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


def differences(ours: Ours, theirs: Theirs) -> dict[str, float]:
    """Largest absolute difference of the final latents, by sampler and sigma schedule."""
    found: dict[str, float] = {}
    for name, schedule in COMPARED:
        asked = request(embedded_model(), REQUEST, sampler=name, sigma_schedule=schedule, negative_prompt="blue")
        found[f"{name} {schedule}"] = _difference(ours, theirs, asked)
    return found


def _difference(ours: Ours, theirs: Theirs, asked: ResolvedGeneration) -> float:
    gap = final_latents(ours.loaded, asked) - reference_latents(theirs.pipe, asked)
    return gap.abs().max().item()


def main() -> int:
    """Print the ratio ours / theirs; lower is better."""
    torch.set_num_threads(THREADS)
    ours, theirs = Ours(), Theirs()
    gaps = differences(ours, theirs)
    samples = interleave({"engine": ours.picture, "diffusers": theirs.picture}, ROUNDS)
    ours.loop.close()
    default = gaps[f"{REQUEST.sampler} {REQUEST.sigma_schedule}"]
    return result(
        "engine_step",
        ratio(samples["engine"], samples["diffusers"]),
        target=1.0,
        better="lower",
        peer=f"diffusers {version('diffusers')} pipeline + Pillow {version('pillow')} PNG, torch {torch.__version__}",
        conditions={"latents equal within 1e-4": default <= TOLERANCE},
        details={
            "threads": THREADS,
            "largest difference of the measured picture's latents": default,
            "largest difference by sampler and sigma schedule, 20 steps": gaps,
            "engine seconds": spread(samples["engine"]),
            "diffusers seconds": spread(samples["diffusers"]),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
