"""A job comes while a full batch is under way: time until its first step is done, against waiting for the batch's end."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import statistics
import time
from pathlib import Path

import msgspec

from bench.crowd import AT_ONCE, Engine, crowd, folder, tiny_model
from bench.measure import ratio, result, spread
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.outcome import Report
from domains.progress import Progressed, Stage

ROUNDS = 15
TARGET = 10.0
MOST_STEPS = 2
STEPS = 60


class Race:
    """When the late job has done its first step, and when the jobs before it end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._first_s = self._end_s = 0.0
        self._waited = 0

    def _note(self, name: str, report: Report) -> None:
        if not isinstance(report, Progressed) or report.stage is not Stage.DENOISING or not report.completed:
            return
        if name == "late":
            self._first_s = self._first_s or time.perf_counter()
        elif name == "0":
            self._end_s = time.perf_counter()
            self._waited += not self._first_s

    def run(self) -> tuple[float, float, int]:
        """Seconds to the late job's first step, seconds to the others' last one, and steps of another until the first."""
        engine = self._engine
        self._first_s = self._end_s = 0.0
        others = crowd(engine.model, AT_ONCE)
        for place, one in enumerate(others):
            engine.loop.submit(str(place), Given(engine.model, _long(one)))
        for _ in range(3 * AT_ONCE):
            engine.loop.tick()
        engine.on_report, self._waited = self._note, 0
        came_s = time.perf_counter()
        engine.loop.submit("late", Given(engine.model, _long(crowd(engine.model, AT_ONCE + 1)[-1])))
        while engine.loop.tick():
            pass
        return self._first_s - came_s, self._end_s - came_s, self._waited


def _long(one: ResolvedGeneration) -> ResolvedGeneration:
    return msgspec.structs.replace(one, steps=STEPS)


def main() -> int:
    """Print how many times sooner the late job moves than if it waited."""
    with folder() as place:
        engine = Engine(tiny_model(Path(place)))
        race = Race(engine)
        race.run()
        found = [race.run() for _ in range(ROUNDS)]
        engine.loop.close()
    firsts, ends, waited = ([one[n] for one in found] for n in range(3))
    return result(
        "join_full_batch",
        ratio(ends, firsts),
        target=TARGET,
        peer="a static batch: the late job begins when the others have ended",
        conditions={f"first step within {MOST_STEPS} of the batch": max(waited) <= MOST_STEPS},
        details={
            "seconds to the first step": spread(firsts),
            "steps of the batch before it": statistics.median(waited),
            "most": max(waited),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
