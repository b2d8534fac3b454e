"""How many rows a forward gets: by what was measured."""

from collections.abc import Callable

import pytest

from domains.inference.on_device.pace import MOST_ROWS, Pace

MODEL = type("Model", (), {})()


def launched(rows: int) -> float:
    """A GPU that waits for its launches: 30 ms up to 8 rows, then 4 ms a row."""
    return max(0.030, 0.004 * rows)


def computed(rows: int) -> float:
    """A CPU with a large picture: a second a row, whatever is together."""
    return 1.0 * rows


def cramped(rows: int) -> float:
    """A CPU whose caches hold 4 rows: more are slower."""
    return (0.010 + 0.001 * rows) * (1 if rows <= 4 else 3)


def learned(seconds: Callable[[int], float], jobs: int = 64, rows_of_a_job: int = 2) -> tuple[Pace, list[int]]:
    """The rows of a hundred forwards, with so many jobs to take."""
    pace, taken = Pace(), list[int]()
    for _ in range(100):
        most = pace.of(MODEL, "size").most_rows
        rows = rows_of_a_job * max(1, min(jobs, most // rows_of_a_job))
        pace.of(MODEL, "size").took(rows, seconds(rows))
        taken.append(rows)
    return pace, taken


@pytest.mark.parametrize(("seconds", "most", "usual"), [(launched, 16, 8), (computed, 4, 2), (cramped, 8, 4)])
def test_rows_grow_while_they_become_faster_and_no_further(
    seconds: Callable[[int], float], most: int, usual: int
) -> None:
    _, taken = learned(seconds)
    assert taken[0] == 2
    assert max(taken) == most
    assert taken.count(usual) > 85


def test_one_slow_forward_does_not_decide() -> None:
    pace, _ = learned(launched)
    before = pace.of(MODEL, "size").most_rows
    pace.of(MODEL, "size").took(8, 100.0)
    assert pace.of(MODEL, "size").most_rows == before


def test_a_size_that_was_slow_while_another_program_ran_is_tried_again() -> None:
    pace = Pace()
    for rows, slowed in ((2, 1), (2, 1), (4, 9), (4, 9)):
        pace.of(MODEL, "size").took(rows, launched(rows) * slowed)
    assert pace.of(MODEL, "size").most_rows == 2
    for _ in range(100):
        rows = pace.of(MODEL, "size").most_rows
        pace.of(MODEL, "size").took(rows, launched(rows))
    assert pace.of(MODEL, "size").most_rows >= 8


def test_sizes_and_models_are_learned_by_themselves() -> None:
    pace, _ = learned(launched)
    assert pace.of(MODEL, "other size").most_rows == 1
    assert pace.of(type("Other", (), {})(), "size").most_rows == 1


def test_a_forward_that_did_not_fit_is_not_tried_again() -> None:
    pace, _ = learned(launched)
    pace.of(MODEL, "size").did_not_fit(8)
    for _ in range(100):
        assert pace.of(MODEL, "size").most_rows <= 4
        pace.of(MODEL, "size").took(4, launched(4))


def test_a_forward_never_has_more_rows_than_the_limit() -> None:
    _, taken = learned(lambda rows: 1.0, jobs=1000)
    assert max(taken) == MOST_ROWS
