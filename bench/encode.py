"""PNG encoding of a 1024×1024 picture against Pillow's default: at least 20 times faster, at most 5 % larger.

The ratio that counts is the smallest over the kinds of pictures. Every file is decoded by Pillow in the same run and
compared with the pixels that went in. `--picture FILE` adds a picture of one's own.
"""

import argparse
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import cv2
import numpy as np
from PIL import Image, features

from bench import pictures
from bench.measure import Spread, interleave, ratio, result, spread
from domains import imaging

SIDE_PX = 1024
ROUNDS = 9
TARGET = 20.0
SIZE_LIMIT = 1.05
MANIFEST = '{"seed": 1234, "prompt": "a fox in the snow", "model": "demo", "steps": 30}'


def main() -> int:
    """Measure each kind of picture and print the outcome."""
    kinds = {maker.__name__: maker(SIDE_PX) for maker in (
        pictures.photograph, pictures.render, pictures.emoji_sheet, pictures.enlarged_icons
    )}  # fmt: skip
    if chosen := _options().picture:
        image = Image.open(chosen).convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
        kinds["own"] = np.array(image)
    figures = {kind: _measure(pixels) for kind, pixels in kinds.items()}
    times = {kind: figure["times_faster"] for kind, figure in figures.items()}
    slowest = min(times, key=lambda kind: times[kind].median)
    return result(
        "encode",
        times[slowest],
        target=TARGET,
        peer=f"Pillow {version('pillow')} PNG, default level, zlib-ng {features.version('zlib_ng') or 'absent'}",
        conditions={
            "every file decodes to the same pixels": all(figure["equal"] for figure in figures.values()),
            f"every file is at most {SIZE_LIMIT:.2f} of the peer's": all(
                figure["size_ratio"] <= SIZE_LIMIT for figure in figures.values()
            ),
        },
        details={
            "smallest_ratio_of": slowest,
            "kinds": figures,
            "with": {name: version(name) for name in ("isal", "numpy", "opencv-python-headless")},
        },
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", help="a file to measure as well, scaled to the size measured")
    parser.add_argument("--save", action="store_true", help="write bench/results/encode.json")
    return parser.parse_args(sys.argv[1:])


def _measure(pixels: pictures.Pixels) -> dict[str, object]:
    ours, peer = _ours(pixels), _pillow(pixels)
    with ThreadPoolExecutor(2) as pool:
        samples = interleave(
            {
                "ours": lambda: _ours(pixels),
                "pillow": lambda: _pillow(pixels),
                "opencv": lambda: cv2.imencode(".png", pixels),
                "two": lambda: list(pool.map(_ours, [pixels, pixels])),
                "jpeg": lambda: imaging.encode(pixels, "image/jpeg", manifest=MANIFEST),
            },
            ROUNDS,
        )
    return {
        "times_faster": ratio(samples["pillow"], samples["ours"]),
        "times_faster_than_opencv": ratio(samples["opencv"], samples["ours"]),
        "two_at_once_per_single": ratio(samples["two"], samples["ours"]),
        "size_ratio": len(ours) / len(peer),
        "size_bytes": len(ours),
        "equal": _equal(ours, pixels) and imaging.read_manifest(ours) == MANIFEST,
        "milliseconds": {name: _milliseconds(values) for name, values in samples.items()},
    }


def _ours(pixels: pictures.Pixels) -> bytes:
    return imaging.encode(pixels, "image/png", manifest=MANIFEST)


def _pillow(pixels: pictures.Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _equal(file: bytes, pixels: pictures.Pixels) -> bool:
    with Image.open(io.BytesIO(file)) as image:
        return np.array_equal(np.asarray(image), pixels)


def _milliseconds(seconds: list[float]) -> Spread:
    return spread([1000 * value for value in seconds])


if __name__ == "__main__":
    raise SystemExit(main())
