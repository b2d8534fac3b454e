"""Step 4: measure the model on this machine's CPU: time a picture, a contact sheet, and whether captions come out right.

    python -m tools.demo_model.evaluate --model emoji-sd --data data --captions 100

A caption is right (top-1) when, among all icons of the set drawn on the caption's background, the one it names is the
nearest to the picture (mean squared distance of 64×64 thumbnails).
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from PIL import Image, ImageDraw

from tools.demo_model.fidelity import Fidelity

SHEET_PROMPTS = (
    "a red apple",
    "a cat face",
    "a rocket",
    "a cute penguin",
    "grinning face",
    "smiling face with sunglasses",
    "a house",
    "a pizza on a blue background",
    "a red car",
    "a guitar",
    "a sunflower on a yellow background",
    "a ghost on a purple background",
    "an astronaut",
    "a snowman",
    "a butterfly",
    "a burger on a green background",
    "a cactus",
    "an owl icon",
    "birthday cake on a pink background",
    "a crab",
    "a volcano",
    "robot",
    "a sailboat, flat vector art",
    "a strawberry",
)
_COLUMNS, _EDGE_PX, _LABEL_PX = 8, 176, 18


class Artist:
    """The pipeline of diffusers with the settings that are measured."""

    def __init__(self, folder: Path, guidance: float) -> None:
        self._pipe: Any = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        self._pipe.set_progress_bar_config(disable=True)
        self._guidance = guidance

    def draw(self, prompt: str, seed: int, steps: int) -> Image.Image:
        """One picture of 256×256."""
        generator = torch.Generator().manual_seed(seed)
        wish = {"num_inference_steps": steps, "guidance_scale": self._guidance, "generator": generator}
        return self._pipe(prompt, **wish).images[0]

    def use_euler(self) -> None:
        """From now on."""
        self._pipe.scheduler = EulerDiscreteScheduler.from_config(self._pipe.scheduler.config)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    wish = _parser().parse_args(arguments)
    torch.set_num_threads(os.cpu_count() or 1)
    began = time.time()
    artist = Artist(wish.model, wish.guidance)
    print(f"loaded in {time.time() - began:.1f} s")
    artist.draw("a dog", 0, wish.steps)
    spent = _times(artist, wish.steps, 5)
    pace = f"median {np.median(spent):.2f} s a picture (min {min(spent):.2f}) on {os.cpu_count()} cores"
    print(f"DPM++ 2M, {wish.steps} steps: {pace}", flush=True)
    _write_sheet(artist, wish.steps, wish.sheet)
    fidelity = Fidelity(wish.data, lambda prompt, seed: artist.draw(prompt, seed, wish.steps))
    print(fidelity.measure("captions of the training kind", fidelity.trained, wish.captions), flush=True)
    print(fidelity.measure("wording never trained on", fidelity.strange, wish.captions * 4 // 10), flush=True)
    artist.use_euler()
    print(f"Euler, 25 steps: median {np.median(_times(artist, 25, 4)):.2f} s a picture")


def _times(artist: Artist, steps: int, pictures: int) -> list[float]:
    """Seconds for each."""
    spent: list[float] = []
    for seed in range(pictures):
        began = time.time()
        artist.draw("a dog", seed, steps)
        spent.append(time.time() - began)
    return spent


def _write_sheet(artist: Artist, steps: int, file: Path) -> None:
    rows = -(-len(SHEET_PROMPTS) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _EDGE_PX, rows * (_EDGE_PX + _LABEL_PX)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, prompt in enumerate(SHEET_PROMPTS):
        left, top = number % _COLUMNS * _EDGE_PX, number // _COLUMNS * (_EDGE_PX + _LABEL_PX)
        small = artist.draw(prompt, number, steps).resize((_EDGE_PX, _EDGE_PX), Image.Resampling.LANCZOS)
        sheet.paste(small, (left, top))
        pen.text((left + 4, top + _EDGE_PX + 2), prompt[:29], fill="black")
    sheet.quantize(200).save(file, optimize=True)
    print("sheet", file.stat().st_size // 1024, "KB", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure time and fidelity on this machine's CPU.")
    parser.add_argument("--model", type=Path, default=Path("emoji-sd"), help="diffusers folder")
    parser.add_argument("--data", type=Path, default=Path("data"), help="what `prepare` wrote")
    parser.add_argument("--sheet", type=Path, default=Path("contact-sheet.png"), help="PNG to write")
    parser.add_argument(
        "--captions", type=int, default=100, help="captions to try; 0.4 times as many in strange wording"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    return parser


if __name__ == "__main__":
    main()
