"""Who follows a job through the call that asked for it."""

from domains.processing.jobs.callers import Attachments


def test_the_last_to_leave_leaves_the_job() -> None:
    attachments = Attachments()
    attachments.join("job", detached=False)
    attachments.join("job", detached=False)
    assert [attachments.leave("job"), attachments.leave("job")] == [False, True]


def test_one_who_does_not_follow_keeps_it_going() -> None:
    attachments = Attachments()
    attachments.join("job", detached=False)
    attachments.keep("job")
    assert not attachments.leave("job")
    # What is over is forgotten.
    attachments.join("job", detached=False)
    assert attachments.leave("job")


def test_a_job_that_nobody_follows_needs_no_keeping() -> None:
    attachments = Attachments()
    attachments.keep("job")
    attachments.join("job", detached=False)
    assert attachments.leave("job")
