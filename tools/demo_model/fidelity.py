"""Whether a caption's picture is nearest to the icon that it names, among all icons of the set."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Draw = Callable[[str, int], Image.Image]
"""Prompt and seed → picture."""
Word = Callable[[random.Random, int, str], str]
"""Icon (number) and background → a caption."""

_EDGE_PX = 64
_MISSES_TOLD = 12


class Fidelity:
    """The set's icons as thumbnails, to compare pictures with."""

    def __init__(self, data: Path, draw: Draw) -> None:
        self._draw = draw
        self._words: dict[str, Any] = json.loads((data / "captions.json").read_text("utf-8"))
        self._items: list[dict[str, Any]] = self._words["items"]
        with zipfile.ZipFile(data / "images.zip") as images:
            icons = [_thumbnail(images.read(f"{item['icon']}.png")) for item in self._items]
        self._rgba = np.stack(icons)
        """Icons × 64 × 64 × RGBA in 0..255."""

    def trained(self, rng: random.Random, icon: int, background: str) -> str:
        """A caption of the training set."""
        return rng.choice(self._words["captions"][background][icon])

    def strange(self, rng: random.Random, icon: int, background: str) -> str:
        """Wording that was never trained on."""
        item = self._items[icon]
        name = rng.choice([item["name"], *item["alias"]])
        place = "" if background == "white" else f" on a {background} background"
        return f"could we perhaps get {name} as our new mascot{place}"

    def measure(self, label: str, word: Word, count: int) -> str:
        """A line with the shares that were right, for `count` icons chosen always the same."""
        if not count:
            return f"{label}: no captions tried"
        rng = random.Random(7)
        ranks: list[int] = []
        misses: list[str] = []
        for number, icon in enumerate(rng.sample(range(len(self._items)), count)):
            background = rng.choice(["white"] * 7 + list(self._words["backgrounds"]))
            caption = word(rng, icon, background)
            errors = self._errors(self._draw(caption, 1000 + number), background)
            ranks.append(int((errors < errors[icon]).sum()))
            if ranks[-1]:
                misses.append(f"{caption!r} -> {self._items[int(errors.argmin())]['name']}")
        found = np.array(ranks)
        shares = f"top-1 {np.mean(found < 1):.2f}, top-5 {np.mean(found < 5):.2f}"
        return f"{label}: {count} captions, {shares}; missed: {misses[:_MISSES_TOLD]}"

    def _errors(self, picture: Image.Image, background: str) -> NDArray[np.floating[Any]]:
        """Of each icon on that background, the mean squared distance."""
        small = np.asarray(picture.resize((_EDGE_PX, _EDGE_PX), Image.Resampling.BOX), dtype=np.float32)
        alpha = self._rgba[..., 3:] / 255
        colour = np.array(self._words["backgrounds"][background])
        return ((self._rgba[..., :3] * alpha + colour * (1 - alpha) - small) ** 2).mean((1, 2, 3))


def _thumbnail(file: bytes) -> NDArray[np.float32]:
    icon = Image.open(io.BytesIO(file)).convert("RGBA").resize((_EDGE_PX, _EDGE_PX), Image.Resampling.BOX)
    return np.asarray(icon, dtype=np.float32)
