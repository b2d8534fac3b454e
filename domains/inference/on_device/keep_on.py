"""Abandons a unit of work inside it, where the device computes in the calling thread."""

from collections.abc import Callable, Sequence

from domains.inference.on_device.families.family import Abandoned, KeepOn
from domains.inference.on_device.run import Run
from domains.stop import Stop, StopKind


def keep_on_for(group: Sequence[Run], stop_of: Callable[[str], Stop | None], *, pauses: bool) -> KeepOn:
    """A check that raises Abandoned when all jobs of the group are to stop. `stop_of`: returns the pending request to stop a
    job (id). `pauses`: whether a pause counts as one."""

    def keep_on() -> None:
        for job in group:
            job.show_life()
        stops: list[Stop] = []
        for job in group:
            stop = stop_of(job.id)
            if stop is None or (stop.kind is StopKind.PAUSE and not pauses):
                return
            stops.append(stop)
        for job, stop in zip(group, stops, strict=True):
            job.ask_to_stop(stop)
        raise Abandoned

    return keep_on
