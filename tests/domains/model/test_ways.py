"""Ways to compute: what the engine does where nothing is asked for, and which request another way does not meet."""

from typing import Any

import pytest

from domains.model.ways import AS_THE_SERVER_CHOOSES, DEFAULT_TILE_PX, Ways


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ({}, {"attention_slicing": False, "vae_slicing": True, "vae_tiling": None, "vae_tile_px": 0}),
        ({"vae_slicing": False}, {"vae_slicing": False}),
        ({"attention_slicing": True}, {"attention_slicing": True}),
        ({"vae_tiling": True}, {"vae_tiling": True, "vae_tile_px": 512}),
        ({"vae_tiling": True, "vae_tile_px": 256}, {"vae_tile_px": 256}),
        ({"vae_tiling": False, "vae_tile_px": 256}, {"vae_tiling": False, "vae_tile_px": 0}),
        ({"attention_kernel": "math"}, {"attention_kernel": "math"}),
    ],
)
def test_what_is_not_asked_for_is_the_engines_choice(asked: dict[str, Any], taken: dict[str, Any]) -> None:
    found = Ways(**asked).taken
    assert {name: getattr(found, name) for name in taken} == taken
    assert found.taken == found


@pytest.mark.parametrize(
    ("asked", "there", "told"),
    [
        ({}, {"attention_kernel": "flash", "attention_slicing": True, "vae_slicing": False}, None),
        ({"attention_kernel": "flash"}, {}, ("attention_kernel", "")),
        ({"attention_kernel": "flash"}, {"attention_kernel": "flash"}, None),
        ({"attention_kernel": "flash"}, {"attention_kernel": "math"}, ("attention_kernel", "math")),
        ({"attention_slicing": False}, {}, None),
        ({"attention_slicing": False}, {"attention_slicing": True}, ("attention_slicing", True)),
        ({"attention_slicing": True}, {}, ("attention_slicing", False)),
        ({"vae_slicing": False}, {}, ("vae_slicing", True)),
        ({"vae_slicing": True}, {}, None),
        ({"vae_tiling": True}, {}, ("vae_tiling", None)),
        ({"vae_tiling": False}, {"vae_tiling": True}, ("vae_tiling", True)),
        ({"vae_tile_px": 0}, {"vae_tiling": True, "vae_tile_px": 256}, None),
        ({"vae_tile_px": DEFAULT_TILE_PX}, {"vae_tiling": True}, None),
        ({"vae_tile_px": 256}, {"vae_tiling": True}, ("vae_tile_px", 512)),
    ],
)
def test_the_first_option_that_another_way_does_not_meet_is_named(
    asked: dict[str, Any], there: dict[str, Any], told: tuple[str, object] | None
) -> None:
    assert Ways(**asked).other_than(Ways(**there)) == told
    assert AS_THE_SERVER_CHOOSES.other_than(Ways(**there)) is None
