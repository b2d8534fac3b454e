"""The ladder of degradation: which rung comes next, and what would have helped."""

import pytest
from msgspec.structs import replace

from domains.inference.fallback import FIELD_OF, LADDER, NOTHING, Fallback, Rung, next_rung, would_help
from domains.progress import Stage

ALL = tuple(Rung)


@pytest.mark.parametrize("stage", [stage for stage in LADDER if stage is not Stage.QUEUED])
def test_what_leaves_the_pictures_as_they_are_goes_first(stage: Stage) -> None:
    assert next_rung(stage, Fallback(), ALL, 0) is Rung.EVICTION


def test_a_rung_that_would_change_nothing_is_not_taken() -> None:
    assert next_rung(Stage.DENOISING, Fallback(), (Rung.SMALLER_BATCH,), 0) is Rung.SMALLER_BATCH
    assert next_rung(Stage.DECODING, Fallback(), (Rung.VAE_TILING,), 0) is Rung.VAE_TILING
    assert next_rung(Stage.ENLARGING, Fallback(), (Rung.SMALLER_BATCH,), 0) is None
    assert next_rung(Stage.DENOISING, Fallback(), (), 0) is None


@pytest.mark.parametrize("rung", ALL)
def test_what_the_request_forbids_is_not_given_up_and_is_named_as_what_would_have_helped(rung: Rung) -> None:
    stage = next(stage for stage, rungs in LADDER.items() if rung in rungs)
    forbids = replace(Fallback(), **{FIELD_OF[rung]: False})
    assert next_rung(stage, forbids, (rung,), 0) is None
    assert would_help(stage, forbids, (rung,)) == (FIELD_OF[rung],)
    assert would_help(stage, Fallback(), ()) == ()


def test_the_number_of_rungs_is_limited_and_the_limit_is_named() -> None:
    twice = Fallback(max_attempts=2)
    assert [next_rung(Stage.DECODING, twice, (Rung.VAE_TILING,), taken) for taken in range(3)] == [
        Rung.VAE_TILING,
        Rung.VAE_TILING,
        None,
    ]
    assert would_help(Stage.DECODING, twice, (Rung.VAE_TILING,)) == ("max_attempts",)
    assert next_rung(Stage.DECODING, NOTHING, ALL, 0) is None


def test_a_stage_without_a_ladder_gives_nothing_up() -> None:
    assert next_rung(Stage.ENCODING, Fallback(), ALL, 0) is None
    assert would_help(Stage.ENCODING, NOTHING, ALL) == ()
