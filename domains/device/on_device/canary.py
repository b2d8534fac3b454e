"""Small computations with known results."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from domains.device.health import Verdict
from domains.device.on_device.free_memory import wait_for
from domains.device.on_device.operations import PRECISIONS, Operation, attention, can, conv2d, matmul
from domains.device.on_device.trial import CheckResult, Trial, seconds
from domains.measurement import Measurement

CANARIES = (matmul(256), conv2d(1, 32, 32), attention(1, 4, 128, 64))

_ALLOWED_EPSILONS = {"float32": 16, "bfloat16": 4, "float16": 4}
"""Limit of the root mean square error, relative to that of the result, in units of the precision's last place. float32
accumulates in float32, so its error grows with the length of the sum; the 16-bit precisions accumulate in float32 too and
round once or twice."""
_WORST_TO_MEAN = 8
"""Limit for a single number, relative to the mean limit: of 65 536 normally distributed numbers the largest is at 4.5."""
_TF32_EPSILON = 2.0**-10


@dataclass(frozen=True, kw_only=True)
class _Run:
    operation: Operation
    precision: str
    result: Tensor
    """In host memory."""
    took_s: float

    @property
    def name(self) -> str:
        return f"{self.operation.name}_{self.precision}"


def compute(trial: Trial) -> CheckResult:
    """Check that each operation in each precision gives finite numbers."""
    runs = list(_runs(trial))
    times = tuple(seconds(f"compute_{run.name}", run.took_s) for run in runs)
    for run in runs:
        bad = int((~run.result.isfinite()).sum())
        if bad:
            message = f"{run.name}: {bad} of {run.result.numel()} numbers are not finite; expected none"
            return CheckResult(verdict=Verdict.UNHEALTHY, message=message, measurements=times)
    names = ", ".join(run.name for run in runs)
    return CheckResult(
        verdict=Verdict.HEALTHY, message=f"finite results, as expected, from {names}", measurements=times
    )


def verify(trial: Trial) -> CheckResult:
    """Check that results equal those of float64 on the host, and are bitwise reproducible."""
    errors: list[Measurement] = []
    for first, second in zip(_runs(trial), _runs(trial), strict=True):
        wrong, error = _compare(trial.device, first)
        errors.append(Measurement(name=f"error_{first.name}", value=error, unit="1"))
        differing = int((first.result != second.result).sum())
        if not wrong and differing:
            wrong = f"{differing} of {first.result.numel()} numbers differ in a second run; expected the same bits"
        if wrong:
            return CheckResult(verdict=Verdict.UNHEALTHY, message=f"{first.name}: {wrong}", measurements=tuple(errors))
    message = f"{len(errors)} results equal those of float64 within rounding, and those of a second run to the last bit"
    return CheckResult(verdict=Verdict.HEALTHY, message=message, measurements=tuple(errors))


def _runs(trial: Trial) -> Iterator[_Run]:
    """Run each operation in each precision that the device supports."""
    for operation in CANARIES:
        for precision, dtype in PRECISIONS.items():
            trial.raise_if_stopped()
            # The trial in `can` initializes libraries, so that the timed call does not.
            if can(trial.device, operation, precision):
                inputs = [one.to(trial.device) for one in operation.inputs(dtype)]
                wait_for(trial.device)
                begin = time.perf_counter()
                result = operation.compute(*inputs)
                wait_for(trial.device)
                took = time.perf_counter() - begin
                yield _Run(operation=operation, precision=precision, result=trial.corrupt(result.cpu()), took_s=took)


def _compare(device: torch.device, run: _Run) -> tuple[str, float]:
    """What is wrong (empty: nothing), and the relative error. The rounding of the inputs does not count."""
    inputs = run.operation.inputs(PRECISIONS[run.precision])
    expected = run.operation.compute(*(one.double() for one in inputs))
    off = (run.result.double() - expected).abs()
    typical = math.sqrt(float(expected.square().mean()))
    error, worst = math.sqrt(float(off.square().mean())) / typical, float(off.max()) / typical
    limit = _ALLOWED_EPSILONS[run.precision] * _epsilon(device, run.precision)
    # Written this way so that NaN is wrong.
    if error <= limit and worst <= limit * _WORST_TO_MEAN:
        return "", error
    place = int(off.nan_to_num(nan=math.inf).argmax())
    found, wanted = float(run.result.flatten()[place]), float(expected.flatten()[place])
    return (
        f"found {found:.6g} at {place}, expected {wanted:.6g}; relative error {error:.3g} (limit {limit:.3g}), "
        f"largest {worst:.3g} (limit {limit * _WORST_TO_MEAN:.3g})"
    ), error


def _epsilon(device: torch.device, precision: str) -> float:
    """Rounding unit. By default torch lets CUDA compute float32 convolutions in TF32, which keeps 10 bits of a product."""
    if device.type == "cuda" and precision == "float32":
        return _TF32_EPSILON / 4
    return torch.finfo(PRECISIONS[precision]).eps
