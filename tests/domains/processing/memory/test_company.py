"""Which generations run beside each other: those whose activations fit on the device together."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.resolution.resolve import resolve
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.memory.company import Company
from tests.domains.inference.on_device.requests import embedded_model

DEVICE = "gpu-1"


class Forecasts:
    """As many bytes as a picture is wide, times a thousand; none for heights of 64."""

    def activation_bytes(self, resolved: ResolvedGeneration, device_id: str) -> int | None:
        assert device_id == DEVICE
        return None if resolved.height_px == 64 else 1000 * resolved.width_px


class Memory:
    """One pool that can give so many bytes."""

    def __init__(self, ceiling_bytes: int | None) -> None:
        self.ceiling_bytes = ceiling_bytes

    def ids(self) -> list[str]:
        return [DEVICE]

    def room(self, pool_id: str) -> "Memory":
        return self


def job(width: int, height: int = 128) -> Any:
    asked = Generation(prompt="", width_px=width, height_px=height)
    resolved = resolve(asked, embedded_model())
    return SimpleNamespace(work=GenerateWork(asked=asked, resolved=resolved))


def fits(ceiling: int | None, one: Any, *running: Any, weights: int = 0) -> bool:
    loaded = SimpleNamespace(list=lambda: [SimpleNamespace(resident_bytes=weights, device_id=DEVICE)])
    lane = SimpleNamespace(device_id=DEVICE, running={n: SimpleNamespace(job=job) for n, job in enumerate(running)})
    return Company(Forecasts(), cast(Any, loaded), cast(Any, Memory(ceiling)))(one, cast(Any, lane))


def test_jobs_that_fit_together_run_together_and_others_wait() -> None:
    small, large = job(64), job(256)
    assert fits(320_000, large, small)
    assert not fits(319_999, large, small)
    assert not fits(575_999, large, large, small)


def test_the_weights_that_are_there_count() -> None:
    assert fits(330_000, job(256), job(64), weights=10_000)
    assert not fits(329_999, job(256), job(64), weights=10_000)


@pytest.mark.parametrize(("one", "running"), [(job(256), ()), (job(256, 64), (job(256),))])
def test_alone_or_without_a_forecast_a_job_starts(one: Any, running: tuple[Any, ...]) -> None:
    assert fits(1, one, *running)


def test_memory_that_is_not_measured_holds_nothing_back() -> None:
    assert fits(None, job(256), job(256))
