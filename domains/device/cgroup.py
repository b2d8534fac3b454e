"""The memory that this process may use: the container's limit if there is one (cgroup v2 and v1)."""

from pathlib import Path

import msgspec
import psutil

_ROOT = Path("/sys/fs/cgroup")
_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
)


class HostMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Host memory at one moment."""

    total_bytes: int
    used_bytes: int
    """Without file caches, which the system can reclaim."""


def host_memory(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> HostMemory:
    """The tightest memory limit of this process's group and its parents, if it is below the machine's memory.

    Of equal limits: the one of which most is in use, since a parent's is shared with others.
    """
    machine = psutil.virtual_memory()
    found = HostMemory(total_bytes=machine.total, used_bytes=machine.total - machine.available)
    limits = filter(None, map(_limited, _groups(root, membership)))
    return min((found, *limits), key=lambda one: (one.total_bytes, -one.used_bytes))


def _groups(root: Path, membership: Path) -> list[Path]:
    """Folders of this process's memory group and its parents, innermost first."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory") or "memory" in controllers.split(","):
            base = root / "memory" if controllers else root
            inner = base / path.lstrip("/")
            # Inside a container the path may be the host's; the root is then the container's own group.
            folders += [folder for folder in (inner, *inner.parents) if folder == base or base in folder.parents]
    return folders


def _limited(folder: Path) -> HostMemory | None:
    for limit_file, used_file, stat_file in _FILES:
        try:
            limit = (folder / limit_file).read_text().strip()
            used = int((folder / used_file).read_text())
            stat = dict(line.split() for line in (folder / stat_file).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit.isdecimal():
            cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            return HostMemory(total_bytes=int(limit), used_bytes=max(0, used - cache))
    return None
