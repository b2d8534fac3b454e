"""What `--image-prompt` and the flags beside it are read as."""

from pathlib import Path

import pytest

from server.cli.console.failure import CliError
from server.cli.generation.image_prompt_flags import ImagePromptWish, image_prompts_of


def test_each_image_prompt_has_its_pictures_and_the_weight_in_its_place() -> None:
    given = ("plus=a.png,b.png", "face=c.png")
    assert image_prompts_of(given, (0.5,), "style") == (
        ImagePromptWish(model="plus", files=(Path("a.png"), Path("b.png")), weight=0.5, mode="style"),
        ImagePromptWish(model="face", files=(Path("c.png"),), mode="style"),
    )


@pytest.mark.parametrize("given", ["plus", "plus=", "=a.png", "plus=,"])
def test_an_image_prompt_without_a_model_or_a_picture_is_refused(given: str) -> None:
    with pytest.raises(CliError, match="MODEL=FILE"):
        image_prompts_of((given,), (), "")


def test_more_weights_than_image_prompts_are_refused() -> None:
    with pytest.raises(CliError, match="2 times for 1"):
        image_prompts_of(("plus=a.png",), (0.5, 0.6), "")
