"""What `--region` and the flag beside it are read as."""

from pathlib import Path

import pytest

from server.cli.console.failure import CliError
from server.cli.generation.region_flags import RegionWish, regions_of


def test_a_region_is_a_rectangle_or_a_file_with_its_prompt_and_weight() -> None:
    assert regions_of(("0,8,32,64=a cat = a pet", "sky.png=clouds"), (0.5,)) == (
        RegionWish(prompt="a cat = a pet", rectangle=(0, 8, 32, 64), weight=0.5),
        RegionWish(prompt="clouds", mask=Path("sky.png")),
    )


@pytest.mark.parametrize("given", ["a cat", "=a cat"])
def test_a_region_without_a_place_is_refused(given: str) -> None:
    with pytest.raises(CliError, match="names no place"):
        regions_of((given,), ())


def test_more_weights_than_regions_are_refused() -> None:
    with pytest.raises(CliError, match="1 times for 0"):
        regions_of((), (1.0,))
