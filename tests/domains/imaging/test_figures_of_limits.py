"""Limits and defaults of files and decoders, and what each format keeps: each was chosen, and another is another choice.

Limits that refuse something have tests of their own, at and beyond the limit.
"""

from types import ModuleType

import pytest

from domains.imaging import (
    avif,
    decoder_child,
    decoder_frames,
    decoder_process,
    media_types,
    png,
    png_chunks,
    terminal,
    texts,
)

CHOSEN: list[tuple[ModuleType, dict[str, object]]] = [
    (avif, {"_THREADS": 4, "_SPEED": 8}),
    (decoder_child, {"COMPUTE_S": 1.5, "ADDRESS_SPACE_BYTES": 4 * 1024**3}),
    (
        decoder_frames,
        {"PICTURE": 1, "REFUSED": 2, "TEXTS": 3, "TEXTS_BYTES": 5 * 1024**2, "REFUSED_BYTES": 16 * 1024},
    ),
    (decoder_process, {"ANSWER_S": 10.0, "_START_S": 60.0, "_STARTS": 2}),
    (media_types, {"DEFAULT_QUALITY": 90}),
    (png, {"_LEVEL": 1, "_CLEAN_WAYS": ((2, 2), (2, 15), (0, 15)), "_BAND": 32, "_CLEAN_BELOW": 0.25}),
    (png_chunks, {"TEXT_LIMIT_BYTES": 16 * 1024**2}),
    (terminal, {"_KITTY_PIECE": 4096}),
    (texts, {"TEXT_BYTES": 1024**2}),
]


@pytest.mark.parametrize(("module", "figures"), CHOSEN, ids=[module.__name__ for module, _ in CHOSEN])
def test_a_figure_is_the_one_that_was_chosen(module: ModuleType, figures: dict[str, object]) -> None:
    assert {name: getattr(module, name) for name in figures} == figures


FORMATS = {  # extension, alpha, longest side, lossy, lossless, longest parameters
    "image/png": (".png", True, 2**31 - 1, False, True, None),
    "image/jpeg": (".jpg", False, 65_500, True, False, 65_474),
    "image/webp": (".webp", True, 16_383, True, True, None),
    "image/avif": (".avif", True, 65_536, True, False, None),
}


@pytest.mark.parametrize("name", media_types.MEDIA_TYPES)
def test_a_format_keeps_what_it_kept(name: str) -> None:
    one = media_types.MEDIA_TYPES[name]
    kept = one.extension, one.alpha, one.side_limit_px, one.lossy, one.lossless, one.parameters_limit_bytes
    assert kept == FORMATS[name]
