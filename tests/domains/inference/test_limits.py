"""The limits name what other tables hold."""

from domains import imaging
from domains.inference import limits


def test_every_media_type_that_can_be_asked_for_can_be_written() -> None:
    assert set(limits.MEDIA_TYPES) == set(imaging.MEDIA_TYPES)
