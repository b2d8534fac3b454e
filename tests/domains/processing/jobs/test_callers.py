"""Who follows a job through the call that asked for it."""

import pytest

from domains.processing.jobs.callers import Callers


def test_the_last_to_leave_leaves_the_job() -> None:
    callers = Callers()
    callers.join("job", detached=False)
    callers.join("job", detached=False)
    assert [callers.leave("job"), callers.leave("job")] == [False, True]


@pytest.mark.parametrize("asked", ["again, without following", "detached", "detached by the second"])
def test_one_who_does_not_follow_keeps_it_going(asked: str) -> None:
    callers = Callers()
    callers.join("job", detached=asked == "detached")
    if asked == "again, without following":
        callers.keep("job")
    else:
        callers.join("job", detached=asked == "detached by the second")
        assert not callers.leave("job")
    assert not callers.leave("job")
    # What is over is forgotten.
    callers.join("job", detached=False)
    assert callers.leave("job")


def test_a_job_that_nobody_follows_needs_no_keeping() -> None:
    callers = Callers()
    callers.keep("job")
    callers.join("job", detached=False)
    assert callers.leave("job")


def test_a_job_that_one_caller_wants_goes_on_when_all_have_left() -> None:
    callers = Callers()
    for detached, asked_to_stop in ((False, True), (True, False)):
        callers.join("job", detached=False)
        callers.join("job", detached=detached)
        assert callers.leave("job") is False
        assert callers.leave("job") is asked_to_stop
    callers.keep("job")
    callers.join("job", detached=False)
    assert callers.leave("job") is True, "nobody followed it when it was kept"
    callers.join("job", detached=False)
    callers.keep("job")
    assert callers.leave("job") is False
