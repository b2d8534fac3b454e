"""The limits name what other tables hold."""

from domains import imaging
from domains.imaging.media_types import DEFAULT_QUALITY, MEDIA_TYPES
from domains.inference import limits
from tests.domains.inference import facts


def test_every_media_type_that_can_be_asked_for_can_be_written() -> None:
    assert set(limits.MEDIA_TYPES) == set(imaging.MEDIA_TYPES)


def test_files_with_a_quality_get_the_writers_own() -> None:
    assert {name for name, one in MEDIA_TYPES.items() if one.lossy} == set(limits.LOSSY_MEDIA_TYPES)
    assert limits.DEFAULT_QUALITY == DEFAULT_QUALITY


def test_limits_fields_and_samplers_are_those_that_were_meant() -> None:
    assert facts.facts() == facts.FILE.read_text("utf-8"), "meant? then run python -m tests.domains.inference.facts"


def test_each_limit_is_the_one_that_was_meant() -> None:
    told = [line for line in facts.FILE.read_text("utf-8").splitlines() if line.startswith("limit ")]
    assert facts.limit_lines() == told, "meant? then run python -m tests.domains.inference.facts"
