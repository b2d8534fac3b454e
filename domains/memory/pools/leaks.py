"""Leak suspects: owners whose memory grows although their work does not.

Time is divided into windows. An owner grows in a window if its minimum there exceeds its minimum in the window before, so
a rise and fall within a window is no growth. A run of growing windows counts only if it exceeds the owner's maximum before
the run, so a sawtooth of any period does not count. More work ends the run, because it explains the memory.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from domains.memory.measure import MemoryOwner, OwnerKind

WINDOW_S = 60.0
LEAST_WINDOWS = 4
LEAST_GROWTH_BYTES = 1024 * 1024
"""Growth of a window below this is noise of the measurement."""
MAX_OWNERS = 4096
"""The most owners that are followed, largest first."""

OwnerKey = tuple[OwnerKind, str]


class LeakSuspect(msgspec.Struct, frozen=True, kw_only=True):
    """An owner that may leak."""

    owner: MemoryOwner
    """The owner with its present memory."""
    growth_bytes_per_s: float
    growing_s: float
    """Duration of the growth without a fall."""
    windows: int
    """Number of growing windows in a row."""


class _Track:
    """The measurements of one owner."""

    def __init__(self, owner: MemoryOwner, time_s: float) -> None:
        self.owner = owner
        self.floor = self.top = owner.live_bytes
        """Minimum and maximum of the present window."""
        self.last_floor = math.inf
        """Minimum of the window before. Infinite: no window has ended."""
        self.peak = owner.live_bytes
        """Maximum of all windows."""
        self.work = self.last_work = 0.0
        self._begin(time_s)

    def _begin(self, time_s: float) -> None:
        """Start a new run of growing windows."""
        self.run = 0
        self.begin_s = self.end_s = time_s
        self.begin_bytes = self.floor
        self.peak_before = self.peak
        self.above = 0
        """Bytes by which the last window of the run exceeds the peak before the run."""

    def see(self, owner: MemoryOwner, work: float) -> None:
        """Add a measurement of the owner."""
        self.owner = owner
        self.floor = min(self.floor, owner.live_bytes)
        self.top = max(self.top, owner.live_bytes)
        self.peak = max(self.peak, owner.live_bytes)
        self.work = max(self.work, work)

    def close(self, time_s: float, least_growth: int) -> None:
        """End the window."""
        if self.floor - self.last_floor >= least_growth and self.work <= self.last_work:
            self.run += 1
            self.end_s = time_s
            self.above = self.top - self.peak_before
        else:
            self._begin(time_s)
        self.last_floor, self.last_work = self.floor, self.work
        self.floor = self.top = self.owner.live_bytes
        self.work = 0.0


class LeakWatch:
    """The followed owners of one pool."""

    def __init__(self, window_s: float = WINDOW_S, least_growth_bytes: int = LEAST_GROWTH_BYTES) -> None:
        self._window_s = window_s
        self._least_growth = least_growth_bytes
        self._tracks: dict[OwnerKey, _Track] = {}
        self._window_end_s: float | None = None
        self._time_s = 0.0

    def add(self, time_s: float, owners: Sequence[MemoryOwner], work: Mapping[OwnerKey, float] | None = None) -> None:
        """Add a measurement of all owners. `work`: the present work of each; missing: no more than before."""
        if self._window_end_s is None:
            self._window_end_s = time_s + self._window_s
        self._time_s = time_s
        if time_s >= self._window_end_s:
            for track in self._tracks.values():
                track.close(time_s, self._least_growth)
            self._window_end_s = time_s + self._window_s
        # Of several together, one that grows cannot be told from one more.
        single = (owner for owner in owners if not owner.several)
        followed = sorted(single, key=lambda owner: -owner.live_bytes)[:MAX_OWNERS]
        tracks: dict[OwnerKey, _Track] = {}
        for owner in followed:
            key = (owner.kind, owner.id)
            track = tracks[key] = self._tracks.get(key) or _Track(owner, time_s)
            track.see(owner, (work or {}).get(key, 0.0))
        self._tracks = tracks

    def suspects(self) -> list[LeakSuspect]:
        """The owners that may leak, fastest growth first."""
        found = [_suspect(track, self._time_s) for track in self._tracks.values() if self._leaks(track)]
        return sorted(found, key=lambda suspect: -suspect.growth_bytes_per_s)

    def _leaks(self, track: _Track) -> bool:
        fell_back = track.owner.live_bytes < track.last_floor
        return track.run >= LEAST_WINDOWS and track.above >= self._least_growth and not fell_back


def _suspect(track: _Track, now_s: float) -> LeakSuspect:
    return LeakSuspect(
        owner=track.owner,
        growth_bytes_per_s=(track.last_floor - track.begin_bytes) / (track.end_s - track.begin_s),
        growing_s=now_s - track.begin_s,
        windows=track.run,
    )
