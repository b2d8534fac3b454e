"""How this project measures: side by side in one run, as a ratio, on a machine that other programs use too.

    samples = interleave({"ours": ours, "peer": peer}, rounds=9)
    gain = ratio(samples["peer"], samples["ours"])                  # times faster than the peer
    raise SystemExit(result("encode", gain, target=20, peer="Pillow 12", conditions={"pixels equal": same}))

`interleave` runs A B, then B A, so that neither always follows the other, and slow minutes of the machine fall on both.
A ratio is taken round by round and its median reported; the spread is that of the rounds' ratios.
"""

import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import psutil

RESULTS = Path(__file__).parent / "results"


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A median and the quartiles around it, in the unit of the samples."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""


def interleave(
    contestants: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each run by name, round by round: A B, B A, A B, … after `warm_up` rounds that do not count."""
    for _ in range(warm_up):
        for run in contestants.values():
            run()
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for _ in range(rounds):
        for name in order:
            samples[name].append(_seconds(contestants[name]))
        order.reverse()
    return samples


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def spread(samples: Sequence[float]) -> Spread:
    """Median and quartiles."""
    if len(samples) < 2:
        return Spread(median=samples[0], low=samples[0], high=samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(median=median, low=low, high=high)


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """`numerator / denominator`, round by round. (peer, ours) says how many times faster we are."""
    return spread([over / under for over, under in zip(numerator, denominator, strict=True)])


def result(
    name: str,
    measured: Spread,
    *,
    target: float,
    peer: str,
    better: Literal["higher", "lower"] = "higher",
    conditions: Mapping[str, bool] | None = None,
    details: Mapping[str, object] | None = None,
) -> int:
    """Print the one JSON object, with `--save` also into `bench/results/<name>.json`; the exit status, 0 for passed.

    It passes if the median reaches the target and every condition (equal output, say) holds. `peer` names the other
    side with its version. `details` may hold structs.
    """
    checks = dict(conditions or {})
    reached = measured.median >= target if better == "higher" else measured.median <= target
    passed = reached and all(checks.values())
    busy = _OTHERS.doubt()
    outcome = {
        "name": name,
        "ratio": measured,
        "better": better,
        "target": target,
        "passed": passed,
        "peer": peer,
        "conditions": checks,
        "details": details or {},
        "environment": environment(),
        "doubt": busy,
    }
    text = json.dumps(_rounded(msgspec.to_builtins(outcome)), indent=2, ensure_ascii=False)
    print(text)
    if busy:
        print(f"bench: {name}: {busy}: do not believe this figure", file=sys.stderr)
    if "--save" in sys.argv[1:]:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return 0 if passed else 1


_BUSY_SHARE = 0.15
"""Share of the machine that other programs may take before a figure is in doubt."""


class Others:
    """The processor time of other programs, from its construction on: neither our ancestors nor our descendants."""

    def __init__(self) -> None:
        self._begin_s, self._before = time.monotonic(), _cpu_seconds()

    def doubt(self) -> str:
        """Why a figure of this time cannot be believed; empty if the machine was quiet."""
        known, kin = self._before, _kin()
        used_s = sum(
            max(0.0, seconds - known.get(key, 0.0)) for key, seconds in _cpu_seconds().items() if key[0] not in kin
        )
        share = used_s / ((time.monotonic() - self._begin_s) * (os.cpu_count() or 1))
        return f"other programs take {share:.0%} of the machine" if share > _BUSY_SHARE else ""


def _cpu_seconds() -> dict[tuple[int, float], float]:
    """By process (its id and start): the processor time of itself and of the children that it has outlived."""
    seconds: dict[tuple[int, float], float] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error), process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE or (process.ppid() == 1 and not process.cmdline()):
                # An ended worker or nursery of a server that a bench has ended, or one that is ending and has given its
                # memory back, where its command line was. Other programs reap their own.
                continue
            seconds[process.pid, process.create_time()] = sum(process.cpu_times()[:4])
    return seconds


def _kin() -> set[int]:
    own = psutil.Process()
    return {one.pid for one in (own, *own.parents(), *own.children(recursive=True))}


_OTHERS = Others()
"""Since this process began."""


def environment() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _rounded(value: object) -> object:
    """Four significant digits are more than a measurement has."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: _rounded(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_rounded(inner) for inner in value]
        case _:
            return value
