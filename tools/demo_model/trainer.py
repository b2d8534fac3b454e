"""What all stages of training share: the optimiser with its two sets of weights, and the clock."""

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_BEGAN = time.time()


def log(*words: object) -> None:
    """A line with the seconds since the start."""
    print(f"[{time.time() - _BEGAN:6.1f}]", *words, flush=True)


class Trainer:
    """float32 master weights, AdamW and a moving average around a low-precision working copy."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        rate: float,
        dtype: torch.dtype,
        decay: float,
        chosen: Callable[[Any], Iterable[nn.Parameter]] = nn.Module.parameters,
    ) -> None:
        """`chosen`: the parameters of a module that are trained; the others stay."""
        self.working = [_working_copy(module, dtype) for module in modules]
        self.steps = 0
        self._rate, self._decay = rate, decay
        self._master = [parameter for module in modules for parameter in chosen(module)]
        self._work = [parameter for module in self.working for parameter in chosen(module)]
        for module in self.working:
            module.requires_grad_(False)
        for parameter in self._work:
            parameter.requires_grad_(True)
        self._average = [parameter.detach().clone() for parameter in self._master]
        self._optimizer = torch.optim.AdamW(
            self._master, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, eps=1e-8, fused=self._master[0].is_cuda
        )

    def step(self, loss: Tensor, scale: float) -> None:
        """One step of the optimiser at `scale` times the rate."""
        loss.backward()
        for master, work in zip(self._master, self._work, strict=True):
            # With the strides of the master: the fused optimiser refuses others.
            master.grad = torch.zeros_like(master) if work.grad is None else torch.empty_like(master).copy_(work.grad)
            work.grad = None
        torch.nn.utils.clip_grad_norm_(self._master, 1.0, foreach=True)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * scale
        self._optimizer.step()
        self.steps += 1
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        pull = 1 - min(self._decay, (1 + self.steps) / (10 + self.steps))
        for master, work, average in zip(self._master, self._work, self._average, strict=True):
            work.copy_(master)
            average.lerp_(master, pull)

    @torch.no_grad()
    def finish(self) -> None:
        """Give the modules the averaged weights."""
        for master, average in zip(self._master, self._average, strict=True):
            master.copy_(average)
            master.grad = None


def _working_copy(module: nn.Module, dtype: torch.dtype) -> Any:
    copied = copy.deepcopy(module).to(dtype)
    return copied.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]  # torch's stub lacks it


class Clock:
    """Progress through a stage of so many seconds. What the first step spends on compiling does not count."""

    def __init__(self, seconds: float, steps: int | None = None) -> None:
        """`steps`: end after so many instead, for a trial run."""
        self._seconds, self._steps = seconds, steps
        self._began = time.time()
        self._first = True

    def spent(self) -> float:
        """Seconds since the start, or since the first step."""
        return time.time() - self._began

    def go_on(self) -> None:
        """What was spent so far is off the stage's time; its steps begin now."""
        self._seconds -= self.spent()
        self._began = time.time()

    def progress(self, step: int) -> float:
        """0..1; at 1 the stage is over."""
        if step == 1 and self._first:
            self._first = False
            log("first step", f"{self.spent():.1f} s")
            self.go_on()
        if self._steps is not None:
            return step / self._steps
        return 1.0 if self._seconds <= 0 else self.spent() / self._seconds
