"""`--lora MODEL[=WEIGHT]`."""

import pytest

from server.cli.console.failure import CliError
from server.cli.generation.lora_flags import loras_of
from server.cli.generation.request import LoraWish


def test_each_flag_names_a_model_and_may_weigh_it() -> None:
    assert loras_of(["style", "other=-0.5"]) == (LoraWish("style"), LoraWish("other", -0.5))


@pytest.mark.parametrize("given", ["style=", "style=much", "style=nan", "=1"])
def test_a_weight_that_is_no_number_is_refused(given: str) -> None:
    with pytest.raises(CliError, match="write --lora"):
        loras_of([given])
