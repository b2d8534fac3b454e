"""The mix of precisions of a model's tensors, and how a message says it."""

import pytest

from domains.model.precision import text_of


@pytest.mark.parametrize(
    ("mix", "text"),
    [
        ((), ""),
        ((("float32", 7),), "float32 100 %"),
        ((("float16", 982), ("float32", 18)), "float16 98.2 %, float32 1.8 %"),
        ((("float16", 2), ("float32", 1)), "float16 66.7 %, float32 33.3 %"),
    ],
)
def test_a_mix_is_told_in_percent_of_its_elements(mix: tuple[tuple[str, int], ...], text: str) -> None:
    assert text_of(mix) == text
