"""Calls of the system that fail: the n-th of each kind, once or from then on, while a scenario runs (strace's inject).

python -m bench.attacks.nth_fails [WORDS…] [--seconds S] [--seed N] [--tried FILE]      all faults where no time is given

Every call must be answered within 10 s, with its result or a typed error. Afterwards the same server must make a picture.
Every thirtieth server is killed while its calls fail; the next one on its folder must tell every job as it was told. A
server that starts must serve or end with a sentence; the next one must have the job that was there. Words choose faults:
`"thread of start"`, `worker`. What FILE names is not tried again; each fault is written to it. Needs strace and the right to
attach it.
"""

import argparse
import collections
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import grpc

from bench.attacks.failing_calls import KINDS, Fault, Kind, Victim, faults, most_calls, traced
from bench.attacks.failing_scenario import JOB_S, Scenario, Told, connected, nursery_of
from bench.attacks.failing_start import StartAttack
from bench.attacks.harness import tell
from bench.attacks.tried import Tried
from domains.storage import DATABASE
from tests.faults.processes import eventually
from tests.server import asking
from tests.server.harness import RunningServer, running_server

FLAGS = ("--device", "sim", "--durability", "power")
QUICK = {"DEVICEOPS_RECHECK_S": "0.5", "OMP_NUM_THREADS": "1"}
RESTART_EACH = 30
_Start = TypeVar("_Start", bound=StartAttack)
_KILLS = {Victim.SERVER: (Victim.NURSERY, Victim.WORKER), Victim.NURSERY: (Victim.WORKER,)}
"""Who dies in the scenario, so that the victim starts a process."""


class Attack:
    """Injects faults into one server after the other."""

    def __init__(self, server: RunningServer) -> None:
        self._server, self._seed = server, 1000
        self.told = Told()
        self.done = 0
        self.restarts = 0

    def moments(self, kind: str, victim: Victim) -> list[Fault]:
        """All faults of a kind that the scenario can have."""
        with tempfile.NamedTemporaryFile() as trace:
            with traced(self._pid(victim), KINDS[kind], None, Path(trace.name)):
                self._scenario(KINDS[kind], victim, accepts=True)
            return faults(kind, victim, most_calls(Path(trace.name)))

    def once(self, fault: Fault) -> list[str]:
        """Inject one fault, and see that the server or the next one is well."""
        kind, self.done = KINDS[fault.kind], self.done + 1
        with traced(self._pid(fault.victim), kind, fault, Path(os.devnull)):
            found = self._scenario(kind, fault.victim, accepts=fault.kind != "pipe" or not fault.forever).faults
            due = self.done % RESTART_EACH == 0
            if due:
                self._server.kill()
        found += [] if due else self.well()
        return [*found, *(self.restarted() if found or due else [])]

    def well(self) -> list[str]:
        """What is wrong with the server now."""
        if (status := self._server.process.poll()) is not None:
            return [f"the server ended with {status}: {self._server.log.read_text()[-2000:]}"]
        if not self._makes_a_picture():
            return [f"no picture afterwards: {self._server.log.read_text()[-2000:]}"]
        return [] if self._connects() else [f"no new connection afterwards: {self._server.log.read_text()[-2000:]}"]

    def scenario(self, deaths: tuple[Victim, ...], *, accepts: bool = True, job_s: float = JOB_S) -> Scenario:
        """Run the scenario. `deaths`: processes that die first. `accepts`, `job_s`: see `Scenario`."""
        self._seed += 1
        scenario = Scenario(self._server, self.told, self._seed, accepts=accepts, job_s=job_s)
        scenario.run(deaths)
        return scenario

    def kill(self) -> None:
        """Kill the server, while its calls fail."""
        self._server.kill()

    def renewed(self) -> None:
        """Put a new server on the same folder in the place of this one."""
        self._server.kill()
        self._server.start()

    def _pid(self, victim: Victim) -> int:
        if victim is Victim.WORKER:
            eventually(lambda: self._server.worker_pid > 0)
            return self._server.worker_pid
        if victim is Victim.NURSERY:
            eventually(lambda: nursery_of(self._server) is not None)
            return nursery_of(self._server) or 0
        return self._server.process.pid

    def _scenario(self, kind: Kind, victim: Victim, *, accepts: bool) -> Scenario:
        kills = kind.starts_processes or victim is Victim.NURSERY
        return self.scenario(_KILLS.get(victim, ()) if kills else (), accepts=accepts)

    def _makes_a_picture(self) -> bool:
        self._seed += 1
        try:
            job_id = asking.submit(self._server, asking.picture(seed=self._seed))
            return asking.kind(asking.watch(self._server, job_id)[-1]) == "succeeded"
        except grpc.RpcError:
            return False

    def _connects(self) -> bool:
        """Whether a new client is answered. gRPC's core looks again each second where it had no descriptor."""
        try:
            connected(self._server.address)
        except grpc.RpcError:
            return False
        return True

    def restarted(self) -> list[str]:
        """Faults of the next server on the same folder."""
        self._server.kill()
        self.restarts += 1
        with closing(sqlite3.connect(self._server.state / DATABASE)) as database:
            (check,) = database.execute("PRAGMA integrity_check").fetchone()
        found = [] if check == "ok" else [f"the database after the fault: {check}"]
        self._server.start()
        found += [f"after a restart {one}" for one in self.told.broken(self._server)]
        self.told.jobs.clear()
        return [*found, *([] if self._makes_a_picture() else ["no picture after a restart"])]


@contextmanager
def attacks(start: type[_Start]) -> Generator[tuple[Attack, _Start]]:
    """A server to hurt, and the folder of one that has a job."""
    with running_server(*FLAGS, environment=QUICK) as server, tempfile.TemporaryDirectory() as folder:
        job_id = asking.submit(server)
        asking.watch(server, job_id)
        server.kill()
        shutil.copytree(server.state, Path(folder) / "template")
        server.start()
        yield Attack(server), start(Path(folder), FLAGS, QUICK, job_id)


def parser(name: str) -> argparse.ArgumentParser:
    """The command line of an attack that tries fault after fault."""
    command = argparse.ArgumentParser(prog=f"python -m bench.attacks.{name}")
    command.add_argument("words", nargs="*", help="parts of `KIND of VICTIM`; all faults where none is given")
    command.add_argument("--seconds", type=float, default=float("inf"), help="begin no fault after so long")
    command.add_argument("--tried", type=Path, help="a file of the faults that need not be tried again")
    return command


def main() -> int:
    """Print what was injected and found; the status is 1 if anything was."""
    command = parser("nth_fails")
    command.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    given = command.parse_args()
    done, possible, findings = collections.Counter[str](), collections.Counter[str](), list[str]()
    begin, tried = time.monotonic(), Tried(given.tried)
    with attacks(StartAttack) as (attack, starts):
        todo = list[Fault]()
        for name, kind in KINDS.items():
            for victim in kind.victims:
                if all(word in f"{name} of {victim}" for word in given.words):
                    todo += (starts if "start" in victim else attack).moments(name, victim)
        possible.update(f"{one.kind} of {one.victim}" for one in todo)
        before = [one for one in todo if one in tried]
        todo = [one for one in todo if one not in tried]
        random.Random(given.seed).shuffle(todo)
        for fault in todo:
            if time.monotonic() - begin > given.seconds:
                break
            found = (starts if "start" in fault.victim else attack).once(fault)
            tried.add(fault, found)
            done[f"{fault.kind} of {fault.victim}"] += 1
            findings += [f"{fault}: {one}" for one in found]
            for one in found:
                print(f"{fault}: {one}", file=sys.stderr, flush=True)
        answers, restarts = attack.told.answers + starts.answers, attack.restarts
    tell(
        "nth_fails",
        seed=given.seed,
        seconds=time.monotonic() - begin,
        injected={name: f"{done[name]} of {count}" for name, count in possible.items()},
        total=f"{done.total()} of {possible.total()}",
        tried_before=len(before),
        restarts=restarts,
        answers=answers,
        findings=findings,
    )
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
