"""Where a job may run, as a value that jobs share: a lane is tested once for all jobs of one placement."""

from collections.abc import Iterable

import msgspec

from domains.device.device import Device, DeviceState
from domains.device.record import DeviceView
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import FrontWork


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a job that decide which lanes it fits."""

    front: type | None
    """Type of the front work. None: a device carries out the job."""
    device_ids: frozenset[str] = frozenset()
    """Ids or aliases that the job's options or its work name. Empty: any device."""
    allow_cpu: bool = False
    """Allow the CPU although it is not named and there are other devices."""
    left_device_ids: frozenset[str] = frozenset()
    """Ids of devices that the job has left for others."""

    def allows(self, device: Device) -> bool:
        """Whether the devices that are named, if any are, include this one, and the job has not left it."""
        if device.id in self.left_device_ids:
            return False
        return not self.device_ids or not self.device_ids.isdisjoint((device.id, *device.aliases))

    def leaves_cpu(self, views: Iterable[DeviceView]) -> bool:
        """Whether the CPU takes no job of this placement: it is neither named nor allowed, and another of these devices is
        enabled."""
        if self.allow_cpu or self.device_ids:
            return False
        return any(
            view.device.id != "cpu" and view.settings.enabled and view.state is not DeviceState.LOST for view in views
        )


def placement_of(job: Job) -> Placement:
    """The placement of a job; it changes when the job leaves a device for another one."""
    if isinstance(job.work, FrontWork):
        return Placement(front=type(job.work))
    named = job.work.device_ids or job.options.device_ids
    return Placement(
        front=None,
        device_ids=frozenset(named),
        allow_cpu=job.options.allow_cpu,
        left_device_ids=frozenset(job.left_device_ids),
    )
