"""The limits and defaults that the contract tells callers: another value would be another contract."""

from domains.memory.blobs.blob import MappedFile
from domains.memory.blobs.creation import MAX_ALIGNMENT_BYTES
from domains.memory.blobs.quotas import BlobLimits
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.uploads import MAX_CHUNK_BYTES
from domains.memory.pools import (
    budget,
    leaks,
    pressure,
    pressure_log,
    reclaim,
    reservation,
    reservation_table,
    reservations,
)

HOUR_S = 3600.0
MIB = 1024 * 1024


def test_blobs() -> None:
    assert (MAX_CHUNK_BYTES, MAX_ALIGNMENT_BYTES) == (MIB, 2 * MIB)
    assert BlobLimits() == BlobLimits(max_count=100_000, max_bytes=None, keep_for_s=24 * HOUR_S)
    plain = Registration(backing=MappedFile(path="/f"))
    assert plain == Registration(backing=MappedFile(path="/f", offset_bytes=0), generation=0, verify=True)


def test_pools_and_reservations() -> None:
    assert (reservation.DEFAULT_LIVE_S, reservation.MAX_LIVE_S) == (60.0, HOUR_S)
    assert (reservation.MAX_WAIT_S, reservation.MAX_PURPOSE, reservation.MAX_BYTES) == (600.0, 255, 2**63 - 1)
    assert (reservations.MAX_HELD, reservation_table.LISTED_S) == (10_000, HOUR_S)
    assert (budget.MAX_IDLE_S, pressure.HYSTERESIS, pressure.HORIZON_S) == (24 * HOUR_S, 0.05, 24 * HOUR_S)
    assert (pressure_log.KEPT, leaks.LEAST_WINDOWS) == (1000, 4)
    for numbers in (pressure.Pressure, reclaim.ReclaimLevel, reservation.Priority):
        assert list(numbers) == [1, 2, 3, 4]
