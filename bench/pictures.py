"""Pictures to encode, made here so that a benchmark needs no files: the same pixels for the same seed."""

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def photograph(side_px: int) -> Pixels:
    """Like a photograph: detail falls with frequency (1/f), colours go together, and a sensor's noise on top."""
    random = np.random.default_rng(1)
    frequencies = np.fft.fftfreq(side_px)[:, None] ** 2 + np.fft.fftfreq(side_px)[None, :] ** 2
    frequencies[0, 0] = 1.0
    common, *colours = (_cloud(random, frequencies) for _ in range(4))
    planes = [128 + 45 * (0.85 * common + 0.3 * colour) for colour in colours]
    return _bytes(np.stack(planes, axis=-1) + random.normal(0, 1.5, (side_px, side_px, 3)))


def emoji_sheet(side_px: int) -> Pixels:
    """Flat colours with soft edges and a few gradients on white, eight by eight: what an icon model is trained on."""
    random = np.random.default_rng(2)
    sheet = np.full((side_px, side_px, 3), 255, np.uint8)
    step = side_px // 8
    for place in range(64):
        _draw_face(sheet[place // 8 * step :, place % 8 * step :][:step, :step], random)
    return sheet


def render(side_px: int) -> Pixels:
    """The icons as a diffusion model returns them: enlarged, and with the decoder's faint noise everywhere."""
    small = emoji_sheet(side_px // 2).astype(np.float32)
    large = cv2.resize(small, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return _bytes(large + np.random.default_rng(3).normal(0, 2.0, large.shape))


def enlarged_icons(side_px: int) -> Pixels:
    """The icons enlarged without noise: the hardest for a fast deflater, since far matches do pay here."""
    small = emoji_sheet(side_px // 4)
    return np.asarray(cv2.resize(small, (side_px, side_px), interpolation=cv2.INTER_CUBIC), np.uint8)


def _cloud(random: np.random.Generator, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    spectrum = np.fft.fft2(random.normal(size=frequencies.shape)) / frequencies**0.6
    cloud = np.fft.ifft2(spectrum).real
    return (cloud - cloud.mean()) / cloud.std()


def _draw_face(tile: Pixels, random: np.random.Generator) -> None:
    side = tile.shape[0]
    drawing = np.ascontiguousarray(tile)
    skin, ink = random.integers(80, 256, 3), random.integers(0, 120, 3)
    middle, radius = side // 2, int(side * 0.42)
    shade = np.linspace(1.0, 0.75, side)[:, None, None] * np.ones((side, side, 1))
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (middle, middle), radius, 255, -1, cv2.LINE_AA)
    cover = mask[..., None] / 255.0
    drawing[:] = _bytes(drawing * (1 - cover) + skin * shade * cover)
    colour = tuple(int(value) for value in ink)
    for left in (-1, 1):
        cv2.circle(
            drawing, (middle + left * side // 7, middle - side // 9), max(1, side // 16), colour, -1, cv2.LINE_AA
        )
    ends = (0, 180) if random.random() < 0.5 else (180, 360)
    cv2.ellipse(
        drawing, (middle, middle + side // 8), (side // 5, side // 8), 0, *ends, colour, max(1, side // 24), cv2.LINE_AA
    )
    tile[:] = drawing


def _bytes(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
