"""Loads models that are on the device again with more of them in host memory, beneath all runs that compute with them.

Each run keeps its progress, gives the models back, and goes on where it was as soon as they are there.
"""

from collections.abc import Callable, Collection, Sequence

from domains.errors import DeviceOpsError
from domains.inference.fallback import Rung
from domains.inference.on_device.ending import Ends
from domains.inference.on_device.load_run import LoadRun
from domains.inference.on_device.resources import Resources
from domains.inference.on_device.run import Run
from domains.inference.outcome import ModelUnloaded, Report


class Offloading:
    """For the runs of one device."""

    def __init__(
        self, runs: Collection[LoadRun], resources: Resources, ends: Ends, report: Callable[[str, Report], None]
    ) -> None:
        """`runs`: all of the device, as they are when a method is called."""
        self._runs = runs
        self._resources = resources
        self._ends = ends
        self._report = report

    def permitted(self, job: Run) -> bool:
        """Whether all other runs with a model of the job permit that it is offloaded, too. Of one that loads: yes."""
        others = self._beside(job) if job.has_model else ()
        return all(one.given.fallback.permits(Rung.OFFLOAD) and one.given.fallback.max_attempts for one in others)

    def offload(self, job: Run, why: DeviceOpsError) -> None:
        """Have more of the job's models in host memory, and go on with the unit of work that was out of memory (`why`).

        Raises what ended a unit of the job before this one.
        """
        before, present, turns = job.executions, job.loaded.model.id, job.loaded.turns
        held = None if turns is None else sum(map(turns.size_of, job.computing))
        runs = [job, *self._beside(job)]
        job.begin_again()
        for one in runs[1:]:
            with self._ends.answering(one):
                one.begin_again()
        whole = {name for name, way in before.items() if not way.offload}
        for name in whole | {present}:
            freed = self._resources.reload(name)
            self._report(job.id, ModelUnloaded(model_id=name, freed_bytes=freed))
        # Only now the memory is free that the layers of a denoiser can share.
        ways = {name: self._resources.offloaded(before[name], held) for name in whole | {present}}
        for one in runs:
            if one in self._runs:
                one.load_as(ways)
                one.offloaded_by(ways[present], why)

    def _beside(self, job: Run) -> Sequence[Run]:
        names = job.executions
        return [one for one in self._runs if isinstance(one, Run) and one is not job and any(map(one.needs, names))]
