"""The scripted memory of a simulated device: bytes by owner, never more than the device has."""

import msgspec

from domains.amounts import compared
from domains.device.simulated.script import SimDevice
from domains.errors import ErrorReason, ResourceExhausted
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind


class MemoryBook:
    """Held bytes by owner."""

    def __init__(self, device: SimDevice) -> None:
        self.device = device
        """The device, as the script defines it now."""
        self._held: dict[str, int] = {}
        self._leaked = 0
        self._peak = 0
        self._recent_peak = 0
        self._allocations = 0
        self._refusals = 0

    @property
    def room_bytes(self) -> int:
        """Bytes that can still be allocated."""
        return max(0, self.device.memory_bytes - self._taken)

    @property
    def _taken(self) -> int:
        return self.device.runtime_bytes + self._leaked + sum(self._held.values())

    def held(self, owner: str) -> int:
        """Bytes that an owner holds."""
        return self._held.get(owner, 0)

    def hold(self, owner: str, size_bytes: int) -> None:
        """Set the bytes that an owner holds. Raises DEVICE_OUT_OF_MEMORY without room; changes nothing then."""
        growth = size_bytes - self.held(owner)
        if growth > 0:
            if growth > self.room_bytes:
                raise self.refusal(owner, growth, self.room_bytes)
            self._allocations += 1
        self._held[owner] = size_bytes
        self._peak = max(self._peak, self._taken)
        self._recent_peak = max(self._recent_peak, sum(self._held.values()))

    def peak_of_owners(self) -> int:
        """Most bytes that all owners held at once since the last call."""
        peak, self._recent_peak = self._recent_peak, sum(self._held.values())
        return peak

    def free(self, owner: str) -> None:
        """Free all that an owner holds."""
        self._held.pop(owner, None)

    def leak(self, size_bytes: int) -> None:
        """Leak memory: it has no owner and is never freed. The part that has no room is not leaked."""
        self._leaked += min(size_bytes, self.room_bytes)

    def refusal(self, owner: str, needed: int, available: int) -> ResourceExhausted:
        """The error for missing memory; counts it."""
        self._refusals += 1
        has, needs = compared(available, needed)
        return ResourceExhausted(
            f"{self.device.id} has {has} of the {needs} that {owner} needs; unload a model, or ask for less",
            ErrorReason.DEVICE_OUT_OF_MEMORY,
            device_id=self.device.id,
            needed_bytes=needed,
            available_bytes=available,
            total_bytes=self.device.memory_bytes,
        )

    def measured(self, measure: MemoryMeasure) -> MemoryMeasure:
        """The measure that the device's driver and allocator would give. The owners add up."""
        own = (
            MemoryOwner(kind=OwnerKind.RUNTIME, live_bytes=self.device.runtime_bytes),
            MemoryOwner(kind=OwnerKind.UNATTRIBUTED, live_bytes=self._leaked),
        )
        owners = tuple(owner for owner in (*measure.owners, *own) if owner.live_bytes)
        live = sum(owner.live_bytes for owner in owners)
        return msgspec.structs.replace(
            measure,
            total_bytes=self.device.memory_bytes,
            used_bytes=live,
            held_bytes=live,
            live_bytes=live,
            peak_live_bytes=max(live, self._peak),
            cached_bytes=0,
            pinned_bytes=0,
            largest_free_block_bytes=max(0, self.device.memory_bytes - live),
            fragmentation_ratio=None,
            allocation_count=self._allocations,
            allocation_failure_count=self._refusals,
            owners=owners,
        )
