"""Limits, intervals and counts of memory pools and blobs: each was chosen, and another one is another choice.

`test_told_limits.py` holds those that the contract tells callers. Limits that refuse something have tests of their own, at
and beyond the limit.
"""

from types import ModuleType

import pytest

from domains.memory import measure
from domains.memory.blobs import device_memory, listing, power_loss, tiers, transfer
from domains.memory.pools import (
    advice,
    gauge,
    history,
    leaks,
    pool,
    pools,
    pressure,
    reclaiming,
    reservation_table,
    state,
)

KIB = 1024
CHOSEN: list[tuple[ModuleType, dict[str, object]]] = [
    (measure, {"NAMED_BLOBS": 1024}),
    (device_memory, {"HASH_PIECE_BYTES": 8 * KIB * KIB}),
    (listing, {"LOOKED": 1000, "_SUMS": 64}),
    (power_loss, {"_LAST_S": 600.0}),
    (tiers, {"PIECE_BYTES": KIB * KIB}),
    (transfer, {"_SHORTEST_S": 1e-6}),
    (advice, {"MUCH": 0.1, "IN_PIECES": 0.5, "SOON_S": 600.0}),
    (gauge, {"TIMEOUT_S": 5.0}),
    (history, {"_TIMED": 10_000, "_RINGS": ((1, 3660), (10, 2200), (60, 1450))}),
    (leaks, {"WINDOW_S": 60.0, "LEAST_GROWTH_BYTES": KIB * KIB, "MAX_OWNERS": 4096}),
    (pool, {"RETRY_AFTER_S": 5.0}),
    (pools, {"SAMPLE_S": 1.0}),
    (pressure, {"MIN_TREND_SAMPLES": 3}),
    (reclaiming, {"AGAIN_AFTER_S": 30.0}),
    (reservation_table, {"MAX_ENDED": 10_000}),
    (state, {"TREND_S": 300.0, "_TREND_STEP_S": 1.0}),
]


@pytest.mark.parametrize(("module", "figures"), CHOSEN, ids=[module.__name__ for module, _ in CHOSEN])
def test_a_figure_is_the_one_that_was_chosen(module: ModuleType, figures: dict[str, object]) -> None:
    assert {name: getattr(module, name) for name in figures} == figures
