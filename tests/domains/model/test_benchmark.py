"""What a benchmark of a model says about its speed."""

import pytest

from domains.measurement import LatencySummary
from domains.model.benchmark import BenchmarkCase


@pytest.mark.parametrize(("samples_s", "rate"), [([0.4, 0.6], 4.0), ([], None), ([0.0], None)])
def test_pictures_a_second_are_those_of_the_mean_run(samples_s: list[float], rate: float | None) -> None:
    run = LatencySummary.of(samples_s)
    assert BenchmarkCase(width_px=64, height_px=64, images=2, steps=4, run=run).images_per_s == rate
