"""Power of processor packages, from Linux's energy counters in /sys/class/powercap (RAPL)."""

from collections.abc import Callable
from pathlib import Path


class Rapl:
    """Mean power since the previous reading. Most systems let only administrators read the counters."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        # `intel-rapl:0` is a package (also AMD's), `intel-rapl:0:1` a part that the package includes.
        self._packages = [path for path in sorted(folder.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self._before = self._read()

    def _read(self) -> tuple[float, list[int]] | None:
        try:
            joules = [int((path / "energy_uj").read_text()) for path in self._packages]
        except (OSError, ValueError):
            return None
        return (self._clock(), joules) if joules else None

    def watts(self) -> float | None:
        """Mean power since the previous call, of all packages. None: no counter can be read, or none has changed."""
        before, now = self._before, self._read()
        if before is None or now is None:
            self._before = now
            return None
        span = now[0] - before[0]
        if span <= 0:
            return None
        self._before = now
        used = [self._grown(at, old, new) for at, old, new in zip(self._packages, before[1], now[1], strict=True)]
        return sum(used) / 1e6 / span

    @staticmethod
    def _grown(package: Path, old: int, new: int) -> int:
        """Growth of the counter, which restarts at its maximum."""
        if new >= old:
            return new - old
        try:
            return new - old + int((package / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            return 0
