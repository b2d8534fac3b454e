"""The limits name what other tables hold."""

from domains import imaging
from domains.imaging.media_types import DEFAULT_QUALITY, MEDIA_TYPES
from domains.inference import limits


def test_every_media_type_that_can_be_asked_for_can_be_written() -> None:
    assert set(limits.MEDIA_TYPES) == set(imaging.MEDIA_TYPES)


def test_files_with_a_quality_get_the_writers_own() -> None:
    assert {name for name, one in MEDIA_TYPES.items() if one.lossy} == set(limits.LOSSY_MEDIA_TYPES)
    assert limits.DEFAULT_QUALITY == DEFAULT_QUALITY
