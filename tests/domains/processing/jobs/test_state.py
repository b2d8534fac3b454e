"""Refusals of moves, in words."""

import pytest

from domains.errors import FailedPrecondition
from domains.processing.jobs.state import NEXT, JobState, check_move


@pytest.mark.parametrize(
    ("present", "wanted", "told"),
    [
        (JobState.SUCCEEDED, JobState.CANCELLING, "job j has already ended (succeeded)"),
        (JobState.FAILED, JobState.RUNNING, "job j has already ended (failed)"),
        (JobState.CANCELLING, JobState.QUEUED, "job j is cancelling and cannot be resumed"),
        (JobState.QUEUED, JobState.CANCELLING, "job j is queued and cannot be cancelled"),
    ],
)
def test_a_refused_move_says_what_the_job_is_and_what_it_cannot_be(
    present: JobState, wanted: JobState, told: str
) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        check_move("j", present, wanted)
    assert (refused.value.message, refused.value.facts["state"]) == (told, present)


def test_every_other_move_is_allowed() -> None:
    for present, following in NEXT.items():
        for wanted in following:
            check_move("j", present, wanted)


@pytest.mark.parametrize("present", list(JobState))
def test_no_other_move_is(present: JobState) -> None:
    for wanted in JobState:
        if wanted not in NEXT[present]:
            with pytest.raises(FailedPrecondition):
                check_move("j", present, wanted)
