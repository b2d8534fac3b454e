"""The told progress of a job: never falls, is no whole before the picture is a file, and leaves loading out."""

import pytest

from domains.processing.attempts.progress_rate import ProgressRate
from domains.progress import Progressed, Stage, Unit


def at(stage: Stage, completed: int, total: int = 4) -> Progressed:
    return Progressed(stage=stage, completed=completed, total=total, unit=Unit.STEPS)


def test_loading_has_no_share_and_the_last_step_is_not_yet_the_whole() -> None:
    rate = ProgressRate(lambda: 0.0)
    told = [
        rate.at(one).completed_ratio for one in (at(Stage.LOADING, 4), at(Stage.DENOISING, 2), at(Stage.DENOISING, 4))
    ]
    assert told == [None, 2 / 5, 4 / 5]


def test_the_share_never_falls_when_a_new_stage_begins() -> None:
    rate = ProgressRate(lambda: 0.0)
    assert rate.at(at(Stage.DENOISING, 4)).completed_ratio == 4 / 5
    assert rate.at(at(Stage.DECODING, 0)).completed_ratio == 4 / 5


def test_the_remaining_time_follows_from_the_rate_of_this_stage() -> None:
    times = iter((10.0, 12.0, 16.0))
    rate = ProgressRate(lambda: next(times))
    first, second = rate.at(at(Stage.DENOISING, 1)), rate.at(at(Stage.DENOISING, 3))
    assert (first.rate_per_s, first.remaining_s, first.elapsed_s) == (None, None, 2.0)
    assert (second.rate_per_s, second.remaining_s, second.elapsed_s) == (0.5, 2.0, 6.0)


def test_of_several_passes_each_counts_its_steps_and_the_stages_between_them_none() -> None:
    rate = ProgressRate(lambda: 0.0, {Stage.DENOISING: 4, Stage.HIRES: 5})
    told = [
        rate.at(one).completed_ratio
        for one in (
            at(Stage.CONDITIONING, 4),
            at(Stage.DENOISING, 2),
            at(Stage.DENOISING, 4),
            at(Stage.ENLARGING, 1, 1),
            at(Stage.HIRES, 1, 5),
            at(Stage.HIRES, 5, 5),
        )
    ]
    assert told == [0.0, 2 / 10, 4 / 10, 4 / 10, 5 / 10, 9 / 10]


def test_the_share_of_a_job_with_finds_is_told_once_they_are_known() -> None:
    rate = ProgressRate(steps={Stage.DENOISING: 4}, finds=True)

    def share(stage: Stage, completed: int, total: int) -> float | None:
        return rate.at(Progressed(stage=stage, completed=completed, total=total, unit=Unit.STEPS)).completed_ratio

    assert share(Stage.DENOISING, 4, 4) is None
    assert share(Stage.DETECTING, 1, 1) is None
    assert share(Stage.DETAILING, 2, 6) == pytest.approx((4 + 2) / (4 + 6 + 1))
    assert share(Stage.DETAILING, 6, 6) == pytest.approx(10 / 11)
    assert share(Stage.ENCODING, 1, 1) == 1


def step(stage: Stage, completed: int, total: int, unit: Unit = Unit.STEPS) -> Progressed:
    return Progressed(stage=stage, completed=completed, total=total, unit=unit)


def test_the_time_since_the_beginning_and_the_rate_of_a_stage_are_told() -> None:
    now = iter((100.0, 101.0, 103.0, 103.0, 104.0, 106.0))
    rate = ProgressRate(lambda: next(now))
    first = rate.at(step(Stage.DENOISING, 1, 10))
    assert (first.elapsed_s, first.rate_per_s, first.remaining_s) == (1.0, None, None)
    second = rate.at(step(Stage.DENOISING, 5, 10))
    assert (second.elapsed_s, second.rate_per_s, second.remaining_s) == (3.0, 2.0, 2.5)
    again = rate.at(step(Stage.DENOISING, 5, 10))
    assert again.rate_per_s == 2.0
    decoding = rate.at(step(Stage.DECODING, 3, 0))
    assert (decoding.rate_per_s, decoding.remaining_s, decoding.completed_ratio) == (None, None, None)
    later = rate.at(step(Stage.DECODING, 7, 0))
    assert (later.rate_per_s, later.remaining_s) == (2.0, None)


def test_a_share_counts_one_step_more_while_steps_are_computed() -> None:
    rate = ProgressRate()
    assert rate.at(step(Stage.DENOISING, 0, 9)).completed_ratio == 0.0
    assert rate.at(step(Stage.DENOISING, 9, 9)).completed_ratio == 0.9
    assert rate.at(step(Stage.ENCODING, 1, 2)).completed_ratio == 0.9
    assert rate.at(step(Stage.ENCODING, 4, 2)).completed_ratio == 1.0
    assert ProgressRate().at(step(Stage.SCANNING, 1, 2)).completed_ratio == 0.5


def test_steps_of_finds_count_after_those_of_the_passes() -> None:
    rate = ProgressRate(steps={Stage.DENOISING: 10}, finds=True)
    assert rate.at(step(Stage.DENOISING, 5, 10)).completed_ratio is None
    assert rate.at(step(Stage.DETAILING, 4, 9)).completed_ratio == (10 + 4) / (10 + 9 + 1)
    assert rate.at(step(Stage.ENCODING, 1, 1)).completed_ratio == 1.0
