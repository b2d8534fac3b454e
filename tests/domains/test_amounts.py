"""Amounts of bytes in a person's words."""

import pytest

from domains.amounts import bytes_told, compared


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3_033_984, "2.9 MiB"),
        (21_981_843_456, "20.5 GiB"),
        (-1536, "-1.5 KiB"),
        (5 * 1024**5, "5120.0 TiB"),
    ],
)
def test_bytes_have_the_largest_unit_and_one_decimal(count: int, told: str) -> None:
    assert bytes_told(count) == told


def test_amounts_that_would_read_the_same_are_told_exactly() -> None:
    assert compared(1024, 2048) == ("1.0 KiB", "2.0 KiB")
    assert compared(1024, 1024) == ("1.0 KiB", "1.0 KiB")
    assert compared(2**30, 2**30 + 1) == ("1,073,741,824 bytes", "1,073,741,825 bytes")
