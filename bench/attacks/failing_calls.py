"""Calls of the system that strace lets fail: the kinds of faults, and one fault in a process that runs or starts."""

import collections
import contextlib
import re
import signal
import subprocess
from collections.abc import Generator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec


class Victim(StrEnum):
    """Whose calls fail."""

    SERVER = "server"
    """The server's own threads, and the processes that they start."""
    NURSERY = "nursery"
    """The process that workers are forked from, and its forks."""
    WORKER = "worker"
    """The process that owns the device."""
    START = "start"
    """A server that starts on a folder with a job in it."""
    FIRST_START = "first start"
    """A server that starts on a folder that does not exist yet."""


class Kind(msgspec.Struct, frozen=True):
    """A kind of fault."""

    calls: str
    """Names of the system's calls, as strace takes them."""
    errors: tuple[str, ...]
    victims: tuple[Victim, ...] = (Victim.SERVER, Victim.START, Victim.FIRST_START)

    @property
    def starts_processes(self) -> bool:
        """Whether calls fail that start processes and threads: a worker has to die for the scenario to have one."""
        return "fork" in self.calls


_ALL = tuple(Victim)
KINDS = {
    "write": Kind("pwrite64", ("ENOSPC", "EIO")),
    "sync": Kind("fsync,fdatasync", ("ENOSPC", "EIO")),
    "rename": Kind("/^rename", ("ENOSPC", "EIO")),
    "open": Kind("openat", ("EMFILE", "EIO"), _ALL),
    "room": Kind("fallocate,ftruncate", ("ENOSPC", "EIO")),
    "folder": Kind("/^mkdir", ("ENOSPC", "EIO")),
    "unlink": Kind("/^unlink", ("EIO",)),
    "pipe": Kind("pipe2,socketpair,socket,accept4,accept,dup", ("EMFILE",), (Victim.SERVER, Victim.NURSERY)),
    "memory": Kind("mmap", ("ENOMEM",), _ALL),
    "fork and thread": Kind("/^v?fork$|^clone", ("EAGAIN", "ENOMEM"), _ALL),
}


class Fault(msgspec.Struct, frozen=True):
    """What fails, and when."""

    kind: str
    """A key of `KINDS`."""
    victim: Victim
    error: str
    number: int
    """1: the first of such calls that a thread makes."""
    forever: bool
    """Whether all calls after it fail too."""

    def __str__(self) -> str:
        """As findings name it."""
        since = "from then on" if self.forever else "once"
        return f"{self.kind} of {self.victim} {self.number} {self.error} {since}"

    @property
    def injection(self) -> str:
        """As strace takes it."""
        return f"--inject={KINDS[self.kind].calls}:error={self.error}:when={self.number}{'+' * self.forever}"


def faults(kind: str, victim: Victim, most: int) -> list[Fault]:
    """Each of the calls of one scenario, with each error, once and from then on."""
    return [
        Fault(kind, victim, error, number, forever)
        for error in KINDS[kind].errors
        for number in range(1, most + 1)
        for forever in (False, True)
    ]


def options(kind: Kind, fault: Fault | None, trace: Path) -> list[str]:
    """What strace is told: the calls to look at, and which of them fails (None: none does)."""
    inject = [fault.injection] if fault else []
    return ["strace", "-y", "-o", str(trace), f"--trace={kind.calls}", "--signal=none", *inject]


@contextlib.contextmanager
def traced(pid: int, kind: Kind, fault: Fault | None, trace: Path) -> Generator[None]:
    """Attach strace to a process and all that it starts; if starting is what fails, to its present threads alone.

    A nursery that is traced imports torch three times as long.
    """
    tasks = [one.name for one in Path(f"/proc/{pid}/task").iterdir()] if kind.starts_processes else [str(pid)]
    follow = [] if kind.starts_processes else ["-f"]
    pids = [part for one in tasks for part in ("-p", one)]
    strace = subprocess.Popen([*options(kind, fault, trace), *follow, *pids], stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    for _ in tasks:
        first = strace.stderr.readline()
        assert "attached" in first, first
    try:
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            strace.communicate(timeout=10)
        strace.kill()
        strace.wait()


def started_with(kind: Kind, fault: Fault | None, trace: Path, paths: Sequence[Path]) -> list[str]:
    """What stands before a command so that its calls fail, those that name one of the paths (none: all of them)."""
    only = [part for path in paths for part in ("-P", str(path))]
    return [*options(kind, fault, trace), "-D", "-f", "--seccomp-bpf", *only]


def most_calls(trace: Path) -> int:
    """The most calls that one thread made: strace counts by thread."""
    threads = collections.Counter(re.findall(r"^(\d+) +\w+\(", trace.read_text(errors="replace"), re.MULTILINE))
    return max(threads.values(), default=0)


def paths_below(folder: Path, trace: Path) -> list[Path]:
    """The files of a folder that the calls named."""
    named = re.findall(rf"{re.escape(str(folder))}[^\">,]*", trace.read_text(errors="replace"))
    return sorted({Path(one) for one in named})
