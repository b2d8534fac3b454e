"""Which jobs share a forward, and in which order jobs get the device."""

from collections import deque
from collections.abc import Hashable, Iterator

from domains.inference.on_device.load_run import LoadRun
from domains.inference.on_device.pace import Pace
from domains.inference.on_device.run import Run

Group = tuple[LoadRun, ...]
"""Jobs that do their next unit of work together; several only for a denoising step."""


class Turns(deque[LoadRun]):
    """All jobs of a device. The first one's turn is next; those that had a turn go to the back."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def take(self) -> Group:
        """The jobs whose turn it is; they go to the back. Empty: no unit can be enqueued."""
        for job in self:
            group = self._led_by(job)
            # Wait for a job whose units in flight are at the limit: left behind, it would never share a step again.
            if all(member.ready for member in group):
                for member in group:
                    self.remove(member)
                self.extend(group)
                return group
        return ()

    def seat(self, job: LoadRun) -> None:
        """Let a job that has just begun to denoise have its first step before those that have done one."""
        self.remove(job)
        others = (place for place, other in enumerate(self) if _has_stepped(other))
        self.insert(next(others, len(self)), job)

    def _led_by(self, lead: LoadRun) -> Group:
        if not isinstance(lead, Run) or (kind := kind_of(lead)) is None:
            return (lead,)
        room = self._pace.of(*kind).most_rows - lead.walking.rows
        group: list[LoadRun] = [lead]
        for job in self._others(lead, kind):
            if job.walking.rows <= room:
                room -= job.walking.rows
                group.append(job)
        return tuple(group)

    def _others(self, lead: Run, kind: Hashable) -> Iterator[Run]:
        """Jobs that could share the lead's step, in the order of their turns."""
        return (job for job in self if job is not lead and isinstance(job, Run) and kind_of(job) == kind)


def kind_of(job: Run) -> tuple[object, Hashable] | None:
    """The model and the shapes of a job's next step; jobs that have them in common can share it. None: it shares none."""
    if not job.denoising or job.alone or job.walking.done:
        return None
    return job.family, job.walking.alike


def _has_stepped(job: LoadRun) -> bool:
    return isinstance(job, Run) and job.trajectory is not None and job.trajectory.place > 0
