"""Decides which jobs run beside each other on a device: those whose activations fit there together."""

from typing import Protocol

from domains.inference.generation import ResolvedGeneration
from domains.memory.pools.pools import Pools
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.lanes.lane import Lane
from domains.processing.memory.care import pool_of


class Activations(Protocol):
    """Implemented by `domains.processing.memory.estimates.Estimates`."""

    def activation_bytes(self, resolved: ResolvedGeneration, device_id: str) -> int | None:
        """Bytes that a generation holds on a device beside the weights. None: not known."""
        ...


class Company:
    """Compares the forecasts of the running jobs and of the next one with what the device's memory can give."""

    def __init__(self, activations: Activations, loaded: LoadedModels, pools: Pools) -> None:
        self._activations = activations
        self._loaded = loaded
        self._pools = pools

    def __call__(self, job: Job, lane: Lane) -> bool:
        """Whether the job fits beside those that run on the lane. True where a forecast is missing: then the worker's ladder
        of degradation decides."""
        own, pool_id = self._bytes(job, lane.device_id), pool_of(lane.device_id)
        if not own or not lane.running or pool_id not in self._pools.ids():
            return True
        ceiling = self._pools.room(pool_id).ceiling_bytes
        weights = sum(one.resident_bytes for one in self._loaded.list() if one.device_id == lane.device_id)
        others = sum(self._bytes(one.job, lane.device_id) for one in lane.running.values())
        return ceiling is None or weights + others + own <= ceiling

    def _bytes(self, job: Job, device_id: str) -> int:
        work = job.work
        return (
            self._activations.activation_bytes(work.resolved, device_id) or 0 if isinstance(work, GenerateWork) else 0
        )


def any_company(job: Job, lane: Lane) -> bool:
    """Every job runs beside every other."""
    return True
