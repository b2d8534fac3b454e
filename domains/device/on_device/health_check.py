"""Checks whether a device computes correctly.

for check in run_checks(torch.device("cuda:0"), HealthDepth.QUICK, stop):  …  # allocate, copy, compute, verify
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from domains.amounts import bytes_told, compared
from domains.device.health import HealthCheck, HealthDepth, Verdict
from domains.device.on_device import canary
from domains.device.on_device.free_memory import wait_for
from domains.device.on_device.memory_patterns import memory_patterns
from domains.device.on_device.steady_load import sustained_compute
from domains.device.on_device.torch_errors import translate
from domains.device.on_device.trial import CheckResult, CheckStopped, Trial, rate, seconds, size, unchanged
from domains.errors import ErrorReason, ResourceExhausted

Check = Callable[[Trial], CheckResult]

_ALLOCATED_BYTES = 64 * 2**20
_COPIED_BYTES = 32 * 2**20
_SHARE = 16
"""A quick check takes at most a sixteenth of the free memory."""
_FULL_ONES = (ErrorReason.DEVICE_OUT_OF_MEMORY, ErrorReason.HOST_OUT_OF_MEMORY)


def run_checks(
    device: torch.device,
    depth: HealthDepth,
    stop: Callable[[], bool],
    corrupt: Callable[[Tensor], Tensor] = unchanged,
    room: Callable[[], int | None] = lambda: None,
) -> Iterator[HealthCheck]:
    """Yield each check when it is done. After a failed check, or once `stop` returns true, the others are SKIPPED.

    Errors of the device are in the checks, not raised. `corrupt`, `room`: see Trial.
    """
    trial = Trial(device=device, stop=stop, corrupt=corrupt, room=room)
    why_not = ""
    for name, check in _checks(depth).items():
        if why_not:
            yield HealthCheck(name=name, verdict=Verdict.SKIPPED, message=why_not)
            continue
        found = run_check(name, check, trial)
        yield found
        if found.verdict is Verdict.UNHEALTHY:
            why_not = f"the check {name!r} failed before"
        elif found.verdict is Verdict.SKIPPED:
            why_not = "stopped before it began"


def _checks(depth: HealthDepth) -> dict[str, Check]:
    quick: dict[str, Check] = {
        "allocate": allocate,
        "copy": copy,
        "compute": canary.compute,
        "verify": canary.verify,
    }
    if depth is HealthDepth.QUICK:
        return quick
    return quick | {"memory_patterns": memory_patterns, "sustained_compute": sustained_compute}


def run_check(name: str, check: Check, trial: Trial) -> HealthCheck:
    """Run one check and time it. An error of the device makes it UNHEALTHY, a stop SKIPPED."""
    begin = time.perf_counter()
    reason: ErrorReason | None = None
    try:
        trial.raise_if_stopped()
        with torch.inference_mode():
            found = check(trial)
    except CheckStopped:
        found = CheckResult(verdict=Verdict.SKIPPED, message="stopped before it was done")
    except Exception as error:
        translated = translate(error, trial.device, f"checking {name}")
        found, reason = CheckResult(verdict=Verdict.UNHEALTHY, message=translated.message), translated.reason
    return HealthCheck(
        name=name,
        verdict=found.verdict,
        message=found.message,
        duration_s=time.perf_counter() - begin,
        measurements=found.measurements,
        failure_reason=reason,
    )


def allocate(trial: Trial, need_bytes: int | None = None) -> CheckResult:
    """Check that memory can be allocated, written and freed. `need_bytes` None: 64 MiB, or a sixteenth of what is free."""
    available = trial.free_bytes()
    need = min(_ALLOCATED_BYTES, available // _SHARE) if need_bytes is None else need_bytes
    begin = time.perf_counter()
    try:
        piece = torch.empty(need, dtype=torch.uint8, device=trial.device)
        wait_for(trial.device)
        took = time.perf_counter() - begin
        piece.fill_(1)
        wait_for(trial.device)
    except (RuntimeError, MemoryError) as error:
        translated = translate(error, trial.device, "allocating")
        if translated.reason not in _FULL_ONES:
            raise
        message = "needed {}; {} are available".format(*compared(need, available))
        raise ResourceExhausted(message, translated.reason, needed_bytes=need, available_bytes=available) from error
    del piece
    message = f"took and wrote {bytes_told(need)}; {bytes_told(available)} were available"
    return CheckResult(
        verdict=Verdict.HEALTHY,
        message=message,
        measurements=(seconds("allocate", took), size("allocated_bytes", need)),
    )


def copy(trial: Trial) -> CheckResult:
    """Check that bytes return from the device unchanged."""
    length = max(min(_COPIED_BYTES, trial.free_bytes() // _SHARE) // 8, 1)
    generator = torch.Generator().manual_seed(length)
    # Random words are generated faster than random bytes.
    sent = torch.randint(-(2**63), 2**63 - 1, (length,), generator=generator).view(torch.uint8)
    there = torch.empty_like(sent, device=trial.device)
    # Filled, so that the system maps its pages before the timing starts.
    back = torch.empty_like(sent).fill_(0)
    to_device = _timed(trial, there, sent)
    trial.raise_if_stopped()
    to_host = _timed(trial, back, there)
    received = trial.corrupt(back)
    measurements = (
        rate("copy_host_to_device", sent.numel(), to_device),
        rate("copy_device_to_host", sent.numel(), to_host),
    )
    differs = received != sent
    if not bool(differs.any()):
        message = f"{bytes_told(sent.numel())} came back as they were sent"
        return CheckResult(verdict=Verdict.HEALTHY, message=message, measurements=measurements)
    place = int(differs.to(torch.uint8).argmax())
    message = (
        f"{int(differs.sum())} of {sent.numel()} bytes changed on the way, the first at {place}: "
        f"found {int(received[place])}, expected {int(sent[place])}"
    )
    return CheckResult(verdict=Verdict.UNHEALTHY, message=message, measurements=measurements)


def _timed(trial: Trial, target: Tensor, source: Tensor) -> float:
    begin = time.perf_counter()
    target.copy_(source)
    wait_for(trial.device)
    return time.perf_counter() - begin
