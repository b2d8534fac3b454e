"""What the workers of all devices measured last."""

from domains.memory.measure import MemoryMeasure, OwnerKind


class LastMeasures:
    """The last measurement of each worker, by device. Built before those that fill and read it."""

    def __init__(self) -> None:
        self.by_device: dict[str, MemoryMeasure] = {}
        """By device id; a device whose worker has ended is absent."""

    def session_bytes(self, session_id: str) -> int | None:
        """The bytes that the jobs of a session hold on all devices, without weights. None: no worker has measured it."""
        owners = [owner for measure in self.by_device.values() for owner in measure.owners]
        held = [owner for owner in owners if owner.kind is OwnerKind.JOB and owner.session_id == session_id]
        return sum(owner.live_bytes for owner in held) if self.by_device else None
