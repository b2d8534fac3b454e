"""Draws the package's icons as PNGs. Needs `resvg_py`, which nothing else here needs."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

SIZE_PX = 256


def write_images(icons: Mapping[str, Mapping[str, Any]], names: Iterable[str], archive: Path) -> None:
    """One RGBA PNG of 256×256 for each name, in a ZIP."""
    drawn = list(names)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as images, ThreadPoolExecutor() as pool:
        files = pool.map(_png, drawn, [icons[name] for name in drawn])
        for name, file in zip(drawn, files, strict=True):
            # With a fixed date, so that the same icons give the same file.
            images.writestr(zipfile.ZipInfo(f"{name}.png"), file)


def svg_of(icon: Mapping[str, Any]) -> str:
    """A whole SVG document for one icon."""
    box = (icon.get("left", 0), icon.get("top", 0), icon.get("width", 32), icon.get("height", 32))
    head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    place = f'viewBox="{" ".join(map(str, box))}" width="{SIZE_PX}" height="{SIZE_PX}"'
    return f"<svg {head} {place}>{icon['body']}</svg>"


def _png(name: str, icon: Mapping[str, Any]) -> bytes:
    import resvg_py

    drawn = bytes(resvg_py.svg_to_bytes(svg_string=svg_of(icon)))
    image = Image.open(io.BytesIO(drawn)).convert("RGBA")
    if image.size != (SIZE_PX, SIZE_PX):
        raise ValueError(f"{name} was drawn at {image.size}, not {SIZE_PX}×{SIZE_PX}")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
