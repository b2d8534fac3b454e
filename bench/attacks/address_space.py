"""A server, its nursery or its worker gets no more address space (RLIMIT_AS) while a scenario runs: malloc fails, too.

python -m bench.attacks.address_space [--seconds S]

`each_place` refuses calls of `mmap` through the linker alone. Here glibc and libraries get nothing beyond some MiB, from a
moment on. Each call must be answered as in `nth_fails`; with the limit lifted the same server must make a picture, or the
next one. Python and gRPC's core can end where they get no page; that is told apart. Needs Linux.
"""

import contextlib
import resource
import sys
import time
from collections import Counter

import psutil

from bench.attacks.failing_calls import Victim
from bench.attacks.failing_scenario import nursery_of
from bench.attacks.harness import tell
from bench.attacks.nth_fails import FLAGS, QUICK, Attack, parser
from tests.faults.processes import eventually
from tests.server.harness import running_server

JOB_S = 25.0
"""How long to follow a job whose worker may never come."""
ROOM_MIB = (0, 1, 4, 16, 64)
"""Address space beyond what the process has."""
DEATHS = {Victim.SERVER: ((), (Victim.WORKER,)), Victim.NURSERY: ((Victim.WORKER,),), Victim.WORKER: ((),)}
"""Who dies before the scenario, so that the victim has to do something new."""


class Starved:
    """Limits the address space of one process of a server while the block runs, and of what it forks."""

    def __init__(self, server: int, pid: int, room_mib: int) -> None:
        self._server, self._pid, self._room = server, pid, room_mib << 20

    def __enter__(self) -> None:
        self._before, hard = resource.prlimit(self._pid, resource.RLIMIT_AS)
        self._limit = psutil.Process(self._pid).memory_info().vms + self._room
        resource.prlimit(self._pid, resource.RLIMIT_AS, (self._limit, hard))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(psutil.Error):
            server = psutil.Process(self._server)
            for one in (server, *server.children(recursive=True)):
                with contextlib.suppress(ProcessLookupError):
                    soft, hard = resource.prlimit(one.pid, resource.RLIMIT_AS)
                    # Processes that decode pictures have limits of their own.
                    if soft == self._limit:
                        resource.prlimit(one.pid, resource.RLIMIT_AS, (self._before, hard))


def main() -> int:
    """Print what was attacked and found; the status is 1 if anything was."""
    given = parser("address_space").parse_args()
    begin, done, findings, ended = time.monotonic(), Counter[str](), list[str](), Counter[str]()
    with running_server(*FLAGS, environment=QUICK) as server:
        attack = Attack(server)
        attack.scenario(())
        for victim, ways in DEATHS.items():
            for room in ROOM_MIB:
                for deaths in ways:
                    if time.monotonic() - begin > given.seconds:
                        break
                    eventually(lambda: server.worker_pid > 0)
                    eventually(lambda: nursery_of(server) is not None)
                    pids = {
                        Victim.SERVER: server.process.pid,
                        Victim.NURSERY: nursery_of(server) or 0,
                        Victim.WORKER: server.worker_pid,
                    }
                    with Starved(server.process.pid, pids[victim], room):
                        found = attack.scenario(deaths, job_s=JOB_S).faults
                    name = f"{victim} with {room} MiB{' and no worker' if deaths else ''}"
                    done[str(victim)] += 1
                    status = server.process.poll()
                    if status is not None:
                        # What follows in the scenario found no server.
                        ended[f"{name}: {status}"] += 1
                        found = attack.restarted()
                    elif wrong := attack.well():
                        found = [*found, *wrong, *attack.restarted()]
                    findings += [f"{name}: {one}" for one in found]
                    print(f"{time.monotonic() - begin:.0f} s {name}: {found or 'well'}", file=sys.stderr, flush=True)
        answers = attack.told.answers
    tell(
        "address_space",
        seconds=time.monotonic() - begin,
        attacked=done,
        ended=ended,
        answers=answers,
        findings=findings,
    )
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
