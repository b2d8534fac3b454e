"""The training set in device memory: icons as RGBA, captions as tokens."""

import io
import json
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer


class Dataset:
    """What `prepare` wrote."""

    def __init__(self, folder: Path, tokenizer: CLIPTokenizer, device: torch.device, limit: int) -> None:
        """`limit`: only the first so many icons."""
        words = json.loads((folder / "captions.json").read_text("utf-8"))
        self.device = device
        self.names: list[str] = [item["name"] for item in words["items"][:limit]]
        self.backgrounds: list[str] = list(words["backgrounds"])
        colours = [words["backgrounds"][name] for name in self.backgrounds]
        self.colours = torch.tensor(colours, device=device) / 255.0
        """Backgrounds × RGB in 0..1."""
        self._rgba = _images(folder / "images.zip", [item["icon"] for item in words["items"][:limit]]).to(device)
        self.tokens = [self._captions(tokenizer, words["captions"][name][:limit]) for name in self.backgrounds]
        """For each background: icons × captions × 77."""
        self.empty = encoded(tokenizer, [""])[0].to(device)
        """77 tokens of no caption."""
        self.plain = encoded(tokenizer, self.names).to(device)
        """Icons × 77: the bare names."""

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self) -> Tensor:
        """Of all icons."""
        return torch.arange(len(self), device=self.device)

    def _captions(self, tokenizer: CLIPTokenizer, captions: Sequence[Sequence[str]]) -> Tensor:
        rows = torch.stack([encoded(tokenizer, row) for row in captions])
        return rows.to(torch.int16).to(self.device)

    def picture(self, icons: Tensor, colours: Tensor) -> Tensor:
        """Icons (numbers) on colours (RGB in 0..1) → n×3×256×256 in -1..1."""
        image = self._rgba[icons].float() / 255
        return (image[:, :3] * image[:, 3:] + colours[:, :, None, None] * (1 - image[:, 3:])) * 2 - 1

    def random_tokens(self, icons: Tensor, backgrounds: Tensor) -> Tensor:
        """A random caption of each icon on its background: n×77."""
        count = len(icons)
        drawn = [rows[icons, torch.randint(rows.shape[1], (count,), device=self.device)] for rows in self.tokens]
        return torch.stack(drawn)[backgrounds, torch.arange(count, device=self.device)].long()

    def augmented(self, count: int) -> Tensor:
        """Random pictures, n×3×256×256 in -1..1: half of them moved, turned and flipped, a third on any colour."""
        device = self.device
        colours = self.colours[torch.randint(len(self.colours), (count,), device=device)]
        anything = torch.rand(count, 1, device=device) < 0.33
        colours = torch.where(anything, torch.rand(count, 3, device=device), colours)
        return self.moved(torch.randint(len(self), (count,), device=device), colours, 0.5)

    def moved(self, icons: Tensor, colours: Tensor, share: float) -> Tensor:
        """As `picture`; this share of the icons is moved, turned and flipped, each otherwise."""
        count, device = len(icons), self.device
        image = self._rgba[icons].float() / 255
        image = torch.cat([image[:, :3] * image[:, 3:], image[:, 3:]], 1)  # premultiplied, so that edges stay clean
        moved = (torch.rand(count, device=device) < share).float()
        grid = F.affine_grid(_moves(moved), list(image.shape), align_corners=False)
        other = F.grid_sample(image, grid, align_corners=False, padding_mode="zeros")
        image = torch.where(moved[:, None, None, None] > 0, other, image)
        return (image[:, :3] + colours[:, :, None, None] * (1 - image[:, 3:])) * 2 - 1


def encoded(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Captions → n×77 tokens."""
    rows: Any = tokenizer(list(captions), padding="max_length", max_length=77, truncation=True).input_ids
    return torch.tensor(rows)


def _moves(moved: Tensor) -> Tensor:
    """Random affine maps, n×2×3; the neutral one where `moved` is 0."""
    count, device = len(moved), moved.device
    angle = (torch.rand(count, device=device) - 0.5) * 0.7 * moved
    size = 1 + moved * (torch.rand(count, device=device) * 0.6 - 0.15)
    flip = torch.where(torch.rand(count, device=device) < 0.5 * moved, -1.0, 1.0)
    shift = (torch.rand(count, 2, device=device) - 0.5) * 0.3 * moved[:, None]
    across = torch.stack([size * flip * angle.cos(), -size * angle.sin(), shift[:, 0]], 1)
    down = torch.stack([size * flip * angle.sin(), size * angle.cos(), shift[:, 1]], 1)
    return torch.stack([across, down], 1)


def _images(archive: Path, icons: Sequence[str]) -> Tensor:
    """Icons × 4 × 256 × 256, 8 bits."""
    with zipfile.ZipFile(archive) as images:
        files = [images.read(f"{icon}.png") for icon in icons]
    with ThreadPoolExecutor(16) as pool:
        arrays = list(pool.map(_pixels, files))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def _pixels(file: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGBA"))
