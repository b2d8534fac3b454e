"""Limits, intervals and counts of jobs, devices, memory and sessions: each was chosen, and another one is another choice.

Callers and operators notice them, and few are worth a test that waits for them. Limits that refuse something have tests of
their own, at and beyond the limit.
"""

from types import ModuleType

import pytest

from domains.processing import conditioning_preview, dispatcher, reproduction, shown_pictures, submit
from domains.processing.attempts import progress_rate
from domains.processing.devices import advice, care, check, hot_plug, pixel_costs, statuses, step_times
from domains.processing.front import convert, execute, reset
from domains.processing.jobs import crash, expiry, in_memory, jobs, label_deletion, recorder, summary, unread
from domains.processing.jobs import filter as jobs_filter
from domains.processing.lanes import overview, queue
from domains.processing.memory import device_pool, drained_unload, estimates, hold_back, keep_alive, run_times, usage
from domains.processing.sessions import live_session, log, news, sessions, settings, store
from domains.processing.workers import silence

CHOSEN: list[tuple[ModuleType, dict[str, object]]] = [
    (progress_rate, {"_AFTER_STEPS": 1}),
    (conditioning_preview, {"READINGS": 24}),
    (care, {"_LONGEST_PAUSE_S": 300.0}),
    (check, {"_LONGEST_SILENCE_S": 20.0}),
    (hot_plug, {"LOOK_S": 5.0}),
    (pixel_costs, {"REACH": 4}),
    (statuses, {"_COOLER_CELSIUS": 5.0}),
    (dispatcher, {"_ANSWER_FIRST_S": 0.002}),
    (convert, {"_LOOKED": 100}),
    (execute, {"_LOOK_S": 60.0}),
    (reset, {"_READY_S": 120.0, "_CHECK_S": 60.0, "_EMPTY_S": 60.0}),
    (crash, {"MAX_CRASHES": 3}),
    (expiry, {"_AT_ONCE": 20}),
    (in_memory, {"_ENDED_KEPT": 256}),
    (jobs, {"_PAUSE_WAIT_S": 60.0}),
    (label_deletion, {"MAX_IDS": 1000, "_READ_AT_ONCE": 100, "_DELETED_AT_ONCE": 20}),
    (recorder, {"_CEILING_STEP": 1000}),
    (summary, {"MAX_CHARACTERS": 120}),
    (unread, {"LONGEST_WAIT_S": 600.0}),
    (overview, {"WINDOW_S": 600.0}),
    (device_pool, {"ANSWER_S": 2.0}),
    (drained_unload, {"LONGEST_DRAIN_S": 3600.0, "_NAMED": 8}),
    (estimates, {"MAX_BATCH": 64, "_REMEMBERED": 16, "_ABOVE": 1.25}),
    (hold_back, {"HOLD_S": 60.0}),
    (keep_alive, {"_AGAIN_S": 1.0}),
    (run_times, {"_REMEMBERED": 20, "_FEWEST": 3}),
    (usage, {"_REMEMBERED": 100}),
    (reproduction, {"DEFAULT_TOLERANCE": 2, "TOLERANCE": (0, 255)}),
    (live_session, {"KEPT": 256}),
    (log, {"CEILING_STEP": 1000}),
    (news, {"_AT_ONCE": 200, "_WAIT_S": 60.0}),
    (sessions, {"MAX_OPEN": 1000}),
    (settings, {"MAX_NAME": 255, "MIN_WEIGHT": 0.01, "MAX_WEIGHT": 100.0}),
    (shown_pictures, {"_KEEP_S": 3600.0}),
    (submit, {"_ASSUMED_JOB_S": 5.0}),
    (silence, {"_TIMES_USUAL": 3.0, "_KEPT_GAPS": 16}),
    (advice, {"_REMEMBERED": 32}),
    (step_times, {"_REMEMBERED": 32}),
    (queue, {"_SPARE": 16, "_MEAN_PART": 0.2}),
    (jobs_filter, {"LOOKED": 1000}),
    (store, {"LOOKED": 1000}),
]


@pytest.mark.parametrize(("module", "figures"), CHOSEN, ids=[module.__name__ for module, _ in CHOSEN])
def test_a_figure_is_the_one_that_was_chosen(module: ModuleType, figures: dict[str, object]) -> None:
    assert {name: getattr(module, name) for name in figures} == figures
