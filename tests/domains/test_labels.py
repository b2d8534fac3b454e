"""Labels in a filter."""

import pytest

from domains.labels import has_all

LABELS = (("owner", "ada"), ("draft", ""))


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ((), True),
        ((("owner", "ada"),), True),
        ((("owner", "bob"),), False),
        ((("owner", ""),), True),
        ((("draft", ""),), True),
        ((("draft", "yes"),), False),
        ((("team", ""),), False),
        ((("owner", "ada"), ("draft", "")), True),
        ((("owner", "ada"), ("team", "")), False),
    ],
)
def test_all_must_be_there_and_an_empty_value_stands_for_any(wanted: tuple[tuple[str, str], ...], fits: bool) -> None:
    assert has_all(wanted, LABELS) is fits
