"""PNG encoding of a 1024×1024 picture against Pillow's default: at least 20 times faster, at most 5 % larger.

The ratio that counts is the smallest over the kinds of pictures. Every file is decoded by Pillow in the same run and
compared with the pixels that went in. `--picture FILE` adds a picture of one's own. Icons enlarged without noise are
measured and shown, outside the target: they come out larger (see `domains/imaging/png.py`).
"""

import argparse
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import cv2
import msgspec
import numpy as np
from PIL import Image, features

from bench import pictures
from bench.measure import Spread, interleave, ratio, result, spread
from domains import imaging

SIDE_PX = 1024
ROUNDS = 9
MAKERS = (pictures.photograph, pictures.render, pictures.emoji_sheet)
TARGET = 20.0
SIZE_LIMIT = 1.05
MANIFEST = '{"seed": 1234, "prompt": "a fox in the snow", "model": "demo", "steps": 30}'


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on one picture."""

    times_faster: Spread
    """Pillow's time / ours."""
    times_faster_than_opencv: Spread
    two_at_once_per_one: Spread
    """Two pictures in two threads / one picture alone: 1 is perfect, 2 is no gain. Two free cores are needed."""
    size_ratio: float
    """Our bytes / Pillow's."""
    size_bytes: int
    equal: bool
    """Pillow reads the same pixels, and we the same manifest."""
    milliseconds: dict[str, Spread]


def main() -> int:
    """Measure each kind of picture and print the outcome."""
    kinds = {maker.__name__: _measure(maker(SIDE_PX)) for maker in MAKERS}
    if chosen := _options().picture:
        kinds["own"] = _measure(_opened(chosen))
    outside = _measure(pictures.enlarged_icons(SIDE_PX))
    slowest = min(kinds, key=lambda kind: kinds[kind].times_faster.median)
    return result(
        "encode",
        kinds[slowest].times_faster,
        target=TARGET,
        peer=f"Pillow {version('pillow')} PNG, default level, zlib-ng {features.version('zlib_ng') or 'absent'}",
        conditions={
            "every file decodes to the same pixels": all(one.equal for one in (*kinds.values(), outside)),
            f"every file at most {SIZE_LIMIT} of the peer's": all(
                one.size_ratio <= SIZE_LIMIT for one in kinds.values()
            ),
        },
        details={
            "smallest_ratio_of": slowest,
            "kinds": kinds,
            "outside_the_target": {"enlarged_icons": outside},
            "with": {name: version(name) for name in ("isal", "numpy", "opencv-python-headless")},
        },
    )


def _opened(path: str) -> pictures.Pixels:
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", help="a file to measure as well, scaled to the size measured")
    parser.add_argument("--save", action="store_true", help="write bench/results/encode.json")
    return parser.parse_args(sys.argv[1:])


def _measure(pixels: pictures.Pixels) -> Figures:
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
    return Figures(
        times_faster=ratio(samples["pillow"], samples["ours"]),
        times_faster_than_opencv=ratio(samples["opencv"], samples["ours"]),
        two_at_once_per_one=ratio(samples["two"], samples["ours"]),
        size_ratio=len(ours) / len(peer),
        size_bytes=len(ours),
        equal=_equal(ours, pixels) and imaging.read_manifest(ours) == MANIFEST,
        milliseconds={name: _milliseconds(values) for name, values in samples.items()},
    )


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
