"""Previews show the picture's colours and stay small."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from domains.inference.generation import Previews
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.preview_writer import PreviewWriter
from domains.limits import INLINE_BYTES
from domains.model.on_device import OnDeviceModel
from tests.domains.inference.on_device.requests import embedded_model, request

RED, GREEN, BLUE, WHITE = (1.0, -0.8, -0.8), (-0.6, 0.6, -0.6), (-0.7, -0.5, 0.9), (1.0, 1.0, 1.0)
QUARTERS = ((RED, GREEN), (BLUE, WHITE))


def test_a_preview_has_the_colours_of_the_picture(embedded: OnDeviceModel) -> None:
    vae: Any = embedded.modules["vae"]
    rows = [torch.cat([torch.tensor(one)[:, None, None].expand(3, 64, 64) for one in row], 2) for row in QUARTERS]
    family = family_of(embedded)
    with torch.inference_mode():
        latents = vae.encode(torch.cat(rows, 1)[None]).latent_dist.mean * vae.config.scaling_factor
        shown = family.preview(latents, (128, 128))[0].float()
        picture = family.decode(latents)[0][0].float()
    for top in (0, 64):
        for left in (0, 64):
            inside = slice(top + 16, top + 48), slice(left + 16, left + 48)
            gap = shown[inside].mean((0, 1)) - picture[inside].mean((0, 1))
            assert gap.abs().max() < 50, (shown[inside].mean((0, 1)), picture[inside].mean((0, 1)))


def test_a_preview_of_pure_noise_stays_within_its_limit() -> None:
    asked = request(embedded_model(), width_px=512, height_px=512, previews=Previews(every_steps=1, max_edge_px=512))
    noise = torch.randint(0, 256, (1, 512, 512, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with ThreadPoolExecutor(1) as files:
        writer = PreviewWriter(asked, files)
        writer.write(1, noise)
    (preview,) = writer.ready()
    assert 0 < len(preview.data) <= INLINE_BYTES


def test_a_preview_has_the_size_that_was_wanted_when_it_was_taken() -> None:
    asked = request(embedded_model(), width_px=64, height_px=32, previews=Previews(every_steps=1, max_edge_px=16))
    with ThreadPoolExecutor(1) as files:
        writer = PreviewWriter(asked, files)
        writer.write(1, torch.zeros(1, *writer.size, 3, dtype=torch.uint8))
        writer.show(Previews(every_steps=1, max_edge_px=32))
    (preview,) = writer.ready()
    assert (preview.width_px, preview.height_px, writer.size) == (16, 8, (16, 32))


def test_only_the_newest_preview_of_a_picture_is_kept() -> None:
    asked = request(embedded_model(), previews=Previews(every_steps=1, max_edge_px=16))
    with ThreadPoolExecutor(1) as files:
        writer = PreviewWriter(asked, files)
        for step in (1, 2, 3):
            writer.write(step, torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    assert [(preview.image_index, preview.step) for preview in writer.ready()] == [(0, 3), (1, 3)]
    assert list(writer.ready()) == []
