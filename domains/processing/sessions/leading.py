"""What a session does to its jobs: pauses those that run, resumes them, and cancels them."""

from collections.abc import Set

from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.state import AT_REST, JobState
from domains.processing.sessions.live_session import LiveSession
from domains.processing.sessions.session import SessionState
from domains.stop import Origin

UNASKED = frozenset(JobState) - {JobState.CANCELLING}
"""The states of jobs that a cancellation asks to stop."""


class LedJobs:
    """Pauses, resumes and cancels the jobs of sessions."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def pause(self, live: LiveSession) -> None:
        """Pause the jobs that run."""
        for job_id in _in_state(live, JobState.RUNNING):
            self._jobs.pause(job_id, live.session.cause, Origin.SESSION)

    def go_on(self, live: LiveSession) -> None:
        """Resume the jobs that the session paused; jobs that a caller paused stay paused."""
        for job_id in self._paused(live):
            self._jobs.let_go_on(job_id, live.session.cause, Origin.SESSION)

    def cancel(self, live: LiveSession, cause: str, states: Set[JobState] = UNASKED) -> int:
        """Cancel the jobs in these states; returns their number."""
        return self._cancel(live, [job_id for job_id, state in live.jobs.items() if state in states], cause)

    def cancel_pending(self, live: LiveSession, cause: str) -> int:
        """Cancel the jobs that have not begun, or that a caller paused; returns their number."""
        paused = self._paused(live)
        pending = [job_id for job_id, state in live.jobs.items() if state in AT_REST and job_id not in paused]
        return self._cancel(live, pending, cause)

    def lead(self, live: LiveSession, job_id: str) -> None:
        """Do to a job what the state of its session asks for."""
        paused = live.session.state is SessionState.PAUSED
        if paused and live.jobs.get(job_id) is JobState.RUNNING:
            self._jobs.pause(job_id, live.session.cause, Origin.SESSION)
        elif not paused:
            self.go_on(live)

    def _cancel(self, live: LiveSession, job_ids: list[str], cause: str) -> int:
        # Those that wait go first, so that none of them starts in the room of another.
        for job_id in sorted(job_ids, key=lambda job_id: live.jobs[job_id] not in AT_REST):
            self._jobs.cancel(job_id, cause)
        return len(job_ids)

    def _paused(self, live: LiveSession) -> list[str]:
        """Ids of the jobs that the session paused."""
        paused = _in_state(live, JobState.PAUSED)
        return [job_id for job_id in paused if self._jobs.live(job_id).pause_origin is Origin.SESSION]


def must_follow(live: LiveSession, job: Job) -> bool:
    """Whether a job's new state asks its session for something."""
    match job.state:
        case JobState.RUNNING:
            return live.session.state is SessionState.PAUSED
        case JobState.PAUSED:
            return live.session.state is not SessionState.PAUSED
        case _:
            return not live.jobs


def _in_state(live: LiveSession, state: JobState) -> list[str]:
    return [job_id for job_id, its in live.jobs.items() if its is state]
