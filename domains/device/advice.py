"""Recommends settings and execution options for a goal on a device, from measurements and capabilities."""

from collections.abc import Collection, Iterator, Sequence

import msgspec

from domains.amounts import bytes_told, compared
from domains.device.benchmark import BenchmarkResult, Suite
from domains.device.device import Device
from domains.device.effects import MeasuredRun, effect_of, least_energy
from domains.device.settings import DeviceGoal, DeviceSettings
from domains.errors import InvalidRequest, Violation
from domains.measurement import Measurement

TIGHT_SHARE = 0.25
"""If a smaller share of the memory is free beside the model, options that save memory are worth their time."""


class AdviceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a device in addition to `Device`."""

    tasks: tuple[str, ...]
    """Tasks that the device may be asked for."""
    controls: tuple[str, ...]
    """Names of the settings that can be changed."""
    max_concurrent_jobs: int
    """Maximum number of jobs that run at once."""
    usable_memory_bytes: int | None = None
    """Memory that the server may use; None: all of the device's."""
    benchmark: tuple[BenchmarkResult, ...] = ()
    """Results of the newest benchmark of this device."""
    runs: tuple[MeasuredRun, ...] = ()
    """Runs of the requested task and model on this device."""


class OptionAdvice(msgspec.Struct, frozen=True, kw_only=True):
    """Advice about one execution option: use it or leave it out."""

    option: str
    """Name of the option in a request: `vae_tiling`, `vae_slicing`, `offload`, `compile`."""
    use: bool
    reason: str
    """Explanation for people, with the figures."""


class DeviceAdvice(msgspec.Struct, frozen=True, kw_only=True):
    """Settings recommended for a goal."""

    settings: DeviceSettings
    """All settings as recommended."""
    changed_fields: tuple[str, ...]
    """Names of the settings that differ from the present ones. Empty: none."""
    options: tuple[OptionAdvice, ...]
    expected_effects: tuple[Measurement, ...]
    """Measured on this device only. Empty: nothing was measured."""
    sample_count: int
    """Number of measurements behind the effects. 0: the advice follows from the capabilities alone."""
    rationale: str
    """Explanation for people."""


def advise(
    device: Device,
    figures: AdviceFigures,
    goal: DeviceGoal,
    task: str,
    model_bytes: int | None,
    settings: DeviceSettings,
) -> DeviceAdvice:
    """Recommend settings and options. `task` empty or `model_bytes` None: any.

    Raises INVALID_FIELD for a task that the device does not list.
    """
    if task and task not in figures.tasks:
        message = f"{device.id} has no task {task!r}; it has {', '.join(figures.tasks) or 'none'}"
        raise InvalidRequest([Violation(field="task", message=message, allowed=", ".join(figures.tasks))])
    wanted, reasons = _settings(figures, goal, settings)
    options = tuple(_options(device, figures, goal, model_bytes))
    fields = settings.__struct_fields__
    return DeviceAdvice(
        settings=wanted,
        changed_fields=tuple(name for name in fields if getattr(wanted, name) != getattr(settings, name)),
        options=options,
        expected_effects=_effects(figures, options, model_bytes),
        sample_count=_sample_count(figures, goal, options),
        rationale="; ".join((f"goal {goal}", *reasons)),
    )


def _settings(
    figures: AdviceFigures, goal: DeviceGoal, settings: DeviceSettings
) -> tuple[DeviceSettings, Sequence[str]]:
    """Recommended settings, and the reasons. Settings that the device cannot change stay as they are."""
    advised: dict[str, tuple[object, str]] = {"goal": (goal, "")}
    most = figures.max_concurrent_jobs
    if goal is DeviceGoal.THROUGHPUT:
        advised["max_concurrent_jobs"] = (most, f"{most} jobs at once is the most that it takes")
    elif goal in (DeviceGoal.LATENCY, DeviceGoal.MEMORY):
        advised["max_concurrent_jobs"] = (1, "one job at a time has the whole device and its memory")
    if goal is DeviceGoal.POWER:
        if (best := least_energy(figures.runs)) is not None:
            limit = "the driver's default limit" if best.watts is None else f"{best.watts:g} W"
            advised["power_limit_watts"] = (best.watts, f"at {limit} a picture took {best.joules:g} J, the least")
    elif goal in (DeviceGoal.LATENCY, DeviceGoal.THROUGHPUT) and settings.power_limit_watts is not None:
        advised["power_limit_watts"] = (None, "a power limit of ours slows it; the driver's default does not")
    possible = {name: advice for name, advice in advised.items() if name in figures.controls}
    # None means as many as the device takes.
    if possible.get("max_concurrent_jobs", (0, ""))[0] == (settings.max_concurrent_jobs or most):
        del possible["max_concurrent_jobs"]
    wanted = msgspec.structs.replace(settings, **{name: value for name, (value, _) in possible.items()})
    reasons = [reason for _, reason in possible.values() if reason]
    if goal is DeviceGoal.POWER and "power_limit_watts" not in possible:
        reasons.append("no runs at two power limits were measured on it, so none can be advised")
    return wanted, reasons


def _options(
    device: Device, figures: AdviceFigures, goal: DeviceGoal, model_bytes: int | None
) -> Iterator[OptionAdvice]:
    memory = figures.usable_memory_bytes or device.total_memory_bytes
    if memory is not None and model_bytes is not None:
        yield _offload(goal, memory, model_bytes)
        yield from _vae(goal, memory, model_bytes, figures.runs)
    elif goal is DeviceGoal.MEMORY:
        for option in ("offload", "vae_tiling", "vae_slicing"):
            yield OptionAdvice(option=option, use=True, reason="the goal is least memory, and the model is not named")
    yield _compile(goal, device.features, figures.runs)


def _offload(goal: DeviceGoal, memory: int, model_bytes: int) -> OptionAdvice:
    held = "the model holds {} of {}".format(*compared(model_bytes, memory))
    if model_bytes > memory:
        return OptionAdvice(option="offload", use=True, reason=f"{held}, so it does not fit at once")
    if goal is DeviceGoal.MEMORY:
        return OptionAdvice(option="offload", use=True, reason=f"{held}, and the goal is least memory")
    return OptionAdvice(option="offload", use=False, reason=f"{held}, so it fits, and moving it would cost time")


def _vae(goal: DeviceGoal, memory: int, model_bytes: int, runs: Sequence[MeasuredRun]) -> Iterator[OptionAdvice]:
    # A model that does not fit is offloaded: its decoder then has almost all memory, but this was not measured.
    room = max(memory - model_bytes, 0)
    peaks = [run.peak_device_bytes for run in runs if run.peak_device_bytes and "vae_tiling" not in run.options]
    for option in ("vae_tiling", "vae_slicing"):
        if peaks:
            peak = max(peaks)
            tight, fact = (
                peak > memory,
                f"the most that {len(peaks)} runs without tiling held was {bytes_told(peak)} of {bytes_told(memory)}",
            )
        else:
            tight = room < TIGHT_SHARE * memory
            fact = f"beside the model {bytes_told(room)} of {bytes_told(memory)} are left"
        use = tight or goal is DeviceGoal.MEMORY
        why = "and the goal is least memory" if not tight and use else "which is little" if tight else "which is enough"
        yield OptionAdvice(option=option, use=use, reason=f"{fact}, {why}")


def _compile(goal: DeviceGoal, features: Collection[str], runs: Sequence[MeasuredRun]) -> OptionAdvice:
    if "compile" not in features:
        reason = "trying it has not worked on this device: `compile` is not among its features"
        return OptionAdvice(option="compile", use=False, reason=reason)
    effect = effect_of("compile", runs)
    if effect is not None and goal is not DeviceGoal.MEMORY:
        use = effect.ratio < 1
        reason = f"{effect.sample_count} runs: with it a picture took {effect.ratio:.2f} times as long as without"
        return OptionAdvice(option="compile", use=use, reason=reason)
    if goal is DeviceGoal.THROUGHPUT:
        reason = "the device has it, and many pictures of one shape pay for the slow first one"
        return OptionAdvice(option="compile", use=True, reason=reason)
    reason = (
        f"the first picture would be slow, which the goal {goal} does not pay back for sure, as no runs were measured"
    )
    return OptionAdvice(option="compile", use=False, reason=reason)


def _effects(
    figures: AdviceFigures, options: Sequence[OptionAdvice], model_bytes: int | None
) -> tuple[Measurement, ...]:
    """Measured effects of the recommended options."""
    effects = [
        Measurement(name=f"time_ratio_with_{option.option}", value=effect.ratio, unit="1")
        for option in options
        if option.use and (effect := effect_of(option.option, figures.runs)) is not None
    ]
    copy = _fastest_copy(figures) if _offloads(options) else None
    if copy is not None and model_bytes:
        seconds = model_bytes / copy.median.value
        effects.append(Measurement(name="offload_copy_of_the_model", value=seconds, unit="s"))
    return tuple(effects)


def _sample_count(figures: AdviceFigures, goal: DeviceGoal, options: Sequence[OptionAdvice]) -> int:
    """Number of measurements that the advice or its effects use."""
    compared = any(effect_of(option.option, figures.runs) for option in options)
    by_energy = goal is DeviceGoal.POWER and least_energy(figures.runs) is not None
    copy = _fastest_copy(figures) if _offloads(options) else None
    used = sum(1 for run in figures.runs if compared or by_energy or run.peak_device_bytes)
    return used + (copy.sample_count if copy else 0)


def _offloads(options: Sequence[OptionAdvice]) -> bool:
    return any(option.option == "offload" and option.use for option in options)


def _fastest_copy(figures: AdviceFigures) -> BenchmarkResult | None:
    copies = [one for one in figures.benchmark if one.suite is Suite.TRANSFER and one.median.name.startswith("host_to")]
    return max(copies, key=lambda one: one.median.value, default=None)
