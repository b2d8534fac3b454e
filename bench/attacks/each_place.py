"""Each place that calls the system fails, once and from then on, while a scenario runs or a server starts (by a preload).

python -m bench.attacks.each_place [WORDS…] [--seconds S] [--tried FILE] [--lines]      all places where no time is given

As `nth_fails`, which counts calls; this names the line that makes them, so that each is tried and none twice. Words choose
places by kind and victim: `"fork and thread of start"`, `worker`; `--without WORD` leaves some out. Needs a C compiler.

`--lines` tries what is new: of each of our lines that make calls the first place (its other callers get the same error from
the same line), and no line of `tried_places.json`. It leaves out libraries that are imported, which read their own sources,
and workers without a nursery, which import them. `python -m bench.attacks.tried FILE` adds what FILE has to the known lines.
"""

import collections
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.attacks.failing_calls import KINDS, Fault, Kind, Victim
from bench.attacks.failing_places import Place, PlaceFault, Table, compiled
from bench.attacks.failing_scenario import JOB_S
from bench.attacks.failing_start import StartAttack
from bench.attacks.harness import tell
from bench.attacks.nth_fails import RESTART_EACH, Attack, attacks, parser
from bench.attacks.tried import MISSED, Tried, in_import, kept_lines
from tests.server import nursery_source


class Way(msgspec.Struct, frozen=True):
    """How a place is reached."""

    deaths: tuple[Victim, ...] = ()
    """Who dies before the scenario."""
    new: bool = False
    """Whether the server is a new one."""


_DEATHS: tuple[tuple[Victim, ...], ...] = ((), (Victim.WORKER,), (Victim.NURSERY, Victim.WORKER))
"""Who dies in a scenario: the first that reaches a place is the one that attacks it."""
_AGAIN: dict[Victim, tuple[tuple[Victim, ...], ...]] = {
    Victim.SERVER: _DEATHS[:2],
    Victim.WORKER: _DEATHS[1:2],
    Victim.NURSERY: _DEATHS[1:],
}
"""Further scenarios that may reach a place: much is reached by a process's start and its first job alone."""
_OF_WORKERS = ("pipe", "open", "fork and thread")
"""Kinds of calls without which a server starts no worker."""
_NO_WORKER_S = 25.0
"""How long to follow a job whose worker may never come: two heartbeats."""
_LINGER_S = 5.0
"""Longest wait for a place that a timer reaches."""


def faults_of(place: Place) -> list[PlaceFault]:
    """Once and from then on, with different errors where the kind has two."""
    errors = KINDS[place.kind].errors
    return [PlaceFault(place, errors[0], False), PlaceFault(place, errors[-1], True)]


class PlaceAttack:
    """Attacks the places of a server that runs, of its nursery and its worker."""

    def __init__(self, attack: Attack, table: Table) -> None:
        self._attack, self._table = attack, table
        self._ways = dict[int, Way]()
        self._started = set[int]()
        """Places that only a start has reached."""

    def explore(self, *, nursery: bool) -> None:
        """Reach the places, and note for each the cheapest way. `nursery`: also those that only its death reaches, and those
        of a worker without it, which imports torch itself."""
        self._table.forget(imports=True)
        before = self._table.calls()
        deaths = [one for one in _DEATHS[:0:-1] if nursery or Victim.NURSERY not in one]
        for way in (Way(new=True), *map(Way, deaths), Way(), Way()):
            self._attack.scenario(way.deaths)
            now = self._table.calls()
            self._ways |= dict.fromkeys((one for one, count in now.items() if count > before.get(one, 0)), way)
            before = now

    def known(self) -> list[Place]:
        """Places that a scenario reaches. Those of error paths become known while others are attacked."""
        return [one for one in self._table.places() if one.hash in self._ways]

    def once(self, fault: PlaceFault) -> list[str]:
        """Attack one place; see `Attack.once`."""
        attack, found, due = self._attack, list[str](), False
        again = map(Way, _AGAIN[fault.place.victim])
        # Much is reached by the first job of a server alone.
        for way in dict.fromkeys((self._ways[fault.place.hash], *again, Way(new=True))):
            if way.new:
                attack.renewed()
                self._note_started()
            with self._table.failing(fault):
                accepts = not (fault.place.kind == "pipe" and fault.forever)
                no_worker = fault.place.victim is not Victim.SERVER or fault.place.kind in _OF_WORKERS
                job_s = _NO_WORKER_S if fault.forever and no_worker else JOB_S
                found += attack.scenario(way.deaths, accepts=accepts, job_s=job_s).faults
                if way.new:
                    self._table.wait(_LINGER_S)
                attack.done += self._table.failed > 0
                due = self._table.failed > 0 and attack.done % RESTART_EACH == 0
                if due:
                    attack.kill()
            self._see(way)
            if self._table.failed:
                self._ways[fault.place.hash] = way
                break
        found += [] if due else attack.well()
        if found or due:
            found += attack.restarted()
            self._note_started()
        return [*found, *([] if self._table.failed else [MISSED])]

    def _note_started(self) -> None:
        """A server has just started: what is new was reached by that, and is attacked as a place of `start`."""
        self._started |= {one.hash for one in self._table.places()} - self._ways.keys()

    def _see(self, way: Way) -> None:
        for place in self._table.places():
            if place.hash not in self._started:
                self._ways.setdefault(place.hash, way)


class PlaceStart(StartAttack):
    """Attacks the places of a server that starts."""

    table: Table

    def explore(self, victim: Victim) -> list[Place]:
        """The places of a start."""
        self.table.forget(imports=False)
        for _ in range(2):
            self._run(next(iter(KINDS.values())), None, victim, ())
        return self.table.places(victim)

    def attacked(self, fault: PlaceFault) -> list[str]:
        """Start a server with the fault, and then one without on the same folder."""
        self.accepts = not (fault.place.kind == "pipe" and fault.forever)
        with self.table.failing(fault):
            found, told = self._run(KINDS[fault.place.kind], None, fault.place.victim, ())
        # The next server is a fork that has imported itself: its own imports are no part of the attack.
        with nursery_source.forking():
            found += self._recovered(fault.place.victim, told)
        return [*found, *([] if self.table.failed else [MISSED])]

    def _traced(self, kind: Kind, fault: Fault | None, paths: Sequence[Path]) -> list[str]:
        return []


class Choice:
    """Which places are attacked."""

    def __init__(self, words: Sequence[str], without: Sequence[str], tried: Tried, *, lines: bool) -> None:
        """`lines`: of the places of one line, only the first is attacked; none of a line in `tried_places.json`, and none of
        a library that is imported."""
        self._words, self._without, self._tried, self._lines = words, without, tried, lines
        self._before = collections.Counter[tuple[str, str]]()
        """Places by kind and line."""
        self._known = (
            {(one.kind, one.victim, one.line) for one in kept_lines() if one.faults > one.missed}
            if lines
            else set[tuple[str, str, str]]()
        )

    def of(self, places: Sequence[Place], seen: set[int]) -> list[Place]:
        """The new ones whose faults were not all tried: by kind, and the first of each line that makes the call before the
        second of any."""
        ordered = list[tuple[int, int, Place]]()
        for one in sorted(places, key=lambda each: bool(self.faults(each))):
            if one.hash not in seen and self._chosen(one):
                line, kind = (one.kind, one.line), list(KINDS).index(one.kind)
                # A place that was tried counts as the first of its line.
                if (self._lines and self._before[line]) or not self.faults(one):
                    self._before[line] += 1
                else:
                    ordered.append((kind, self._before[line], one))
                    self._before[line] += 1
        return [one for _, _, one in sorted(ordered, key=lambda each: each[:2])]

    def faults(self, place: Place) -> list[PlaceFault]:
        """Those that were not tried."""
        return [one for one in faults_of(place) if one not in self._tried]

    def _chosen(self, place: Place) -> bool:
        name = f"{place.kind} of {place.victim}"
        if (place.kind, str(place.victim), place.line) in self._known or (self._lines and in_import(place.text)):
            return False
        return all(word in name for word in self._words) and not any(word in name for word in self._without)


def _running(attack: PlaceAttack, choice: Choice, *, nursery: bool) -> Iterator[tuple[PlaceFault, list[str]]]:
    """Attack until no place is new. `nursery`: see `PlaceAttack.explore`."""
    attack.explore(nursery=nursery)
    seen = set[int]()
    while new := choice.of(attack.known(), seen):
        print(len(new), "new places", file=sys.stderr, flush=True)
        for place in new:
            seen.add(place.hash)
            for fault in choice.faults(place):
                found = attack.once(fault)
                yield fault, found
                if MISSED in found:
                    break


_OF_STATE = ("write", "sync", "rename", "room", "folder", "unlink")
"""Kinds of calls that meet the state folder: an empty one can make a difference to them."""


def _starting(attack: PlaceStart, choice: Choice) -> Iterator[tuple[PlaceFault, list[str]]]:
    """Attack a start, and then of a first start what is no call of the other that needs no state."""
    seen = set[int]()
    for victim in (Victim.START, Victim.FIRST_START):
        found = attack.explore(victim)
        if victim is Victim.FIRST_START:
            usual = {one.hash for one in attack.explore(Victim.START) if one.kind not in _OF_STATE}
            found = [one for one in found if one.hash not in usual]
        new = choice.of(found, set() if victim is Victim.FIRST_START else seen)
        print(len(new), "new places", file=sys.stderr, flush=True)
        for place in new:
            seen.add(place.hash)
            for fault in choice.faults(place):
                yield fault, attack.attacked(fault)


def main() -> int:
    """Print what was attacked and found; the status is 1 if anything was."""
    command = parser("each_place")
    command.add_argument("--without", action="append", default=[], help="a part of `KIND of VICTIM` to leave out")
    command.add_argument(
        "--lines",
        action="store_true",
        help="attack one place of each of our lines that make calls, if `tried_places.json` has none",
    )
    given = command.parse_args()
    begin, findings, tried = time.monotonic(), list[str](), Tried(given.tried)
    choice = Choice(given.words, given.without, tried, lines=given.lines)
    done, missed, known = (collections.Counter[str]() for _ in range(3))
    places = set[tuple[str, int]]()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ |= {"LD_PRELOAD": str(compiled(folder)), "DEVICEOPS_BENCH_PLACES": str(folder / "places")}
        table = Table(folder / "places")
        # Roles are told by command lines, and a server may start within strace.
        stack.enter_context(nursery_source.opened(execs=True))
        attack, starts = stack.enter_context(attacks(PlaceStart))
        starts.table = table
        start = "start" in " ".join(given.words)
        nursery = not given.lines or not given.words or "nursery" in " ".join(given.words)
        running = PlaceAttack(attack, table)
        for fault, found in _starting(starts, choice) if start else _running(running, choice, nursery=nursery):
            tried.add(fault, found)
            name = f"{fault.place.kind} of {fault.place.victim}"
            places.add((name, fault.place.hash))
            (missed if MISSED in found else done)[name] += 1
            wrong = [one for one in found if one != MISSED]
            known[name] += bool(wrong) and fault.place.in_grpc
            print(f"{time.monotonic() - begin:.0f} s {fault}: {found or 'well'}", file=sys.stderr, flush=True)
            if not fault.place.in_grpc:
                findings += [f"{fault}: {one}" for one in wrong]
            if time.monotonic() - begin > given.seconds:
                break
        answers, restarts = attack.told.answers + starts.answers, attack.restarts
    tell(
        "each_place",
        seconds=time.monotonic() - begin,
        places=collections.Counter(name for name, _ in places),
        injected=done,
        not_reached=missed,
        ended_in_grpc=known,
        restarts=restarts,
        answers=answers,
        findings=findings,
    )
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
