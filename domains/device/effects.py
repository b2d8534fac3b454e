"""Effects of options and power limits, from runs measured on the device."""

import statistics
from collections.abc import Sequence

import msgspec


class MeasuredRun(msgspec.Struct, frozen=True, kw_only=True):
    """One picture's run, from a receipt."""

    seconds: float
    """Device time for a picture."""
    options: tuple[str, ...] = ()
    """Execution options of the run."""
    peak_device_bytes: int | None = None
    energy_joules: float | None = None
    """For a picture. None: power is not measured here."""
    power_limit_watts: float | None = None
    """Power limit during the run. None: the driver's default."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """Runs with an option compared to runs without it."""

    ratio: float
    """Median time with the option divided by the median without it."""
    sample_count: int
    """Number of runs on both sides."""


def effect_of(option: str, runs: Sequence[MeasuredRun]) -> Effect | None:
    """The effect of an option. None: there are no runs with it, or none without it."""
    used = [run.seconds for run in runs if option in run.options]
    without = [run.seconds for run in runs if option not in run.options]
    if not used or not without:
        return None
    ratio = statistics.median(used) / statistics.median(without)
    return Effect(ratio=ratio, sample_count=len(used) + len(without))


class PowerChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The power limit at which a picture took the least energy."""

    watts: float | None
    """None: the driver's default."""
    joules: float
    """Median for a picture."""


def least_energy(runs: Sequence[MeasuredRun]) -> PowerChoice | None:
    """The limit with the least energy. None: fewer than two limits were measured."""
    energies: dict[float | None, list[float]] = {}
    for run in runs:
        if run.energy_joules is not None:
            energies.setdefault(run.power_limit_watts, []).append(run.energy_joules)
    if len(energies) < 2:
        return None
    watts = min(energies, key=lambda limit: statistics.median(energies[limit]))
    return PowerChoice(watts=watts, joules=statistics.median(energies[watts]))
