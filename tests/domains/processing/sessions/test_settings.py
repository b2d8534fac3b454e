"""What a session's settings and limits may be, and which of them a call changes."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domains.errors import Aborted, ErrorReason, FailedPrecondition, InvalidRequest, NotFound, ResourceExhausted
from domains.processing.sessions.session import SessionFilter, SessionLimits, SessionSettings, SessionState
from domains.processing.sessions.settings import MAX_NAME, MAX_WEIGHT, MIN_WEIGHT
from domains.processing.sessions.terms import SessionTerms
from tests.domains.processing.sessions.test_sessions import Bench

TEN_YEARS_S = 10 * 365 * 86400
WRONG = {
    "settings.display_name": SessionSettings(display_name="x" * (MAX_NAME + 1)),
    "settings.weight": SessionSettings(weight=MIN_WEIGHT / 2),
    "settings.limits.max_running_jobs": SessionSettings(limits=SessionLimits(max_running_jobs=-1)),
    "settings.labels": SessionSettings(labels=(("", "x"),)),
    "settings.idle_timeout": SessionSettings(idle_timeout_s=float(TEN_YEARS_S)),
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with closing(bench.database):
        yield bench


def _fields(error: InvalidRequest) -> list[str]:
    return [each.field for each in error.violations]


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_setting_opens_nothing_and_is_named(bench: Bench, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bench.sessions.open(WRONG[field])
    assert _fields(refused.value) == [field]
    assert bench.sessions.page(SessionFilter(), None, 10)[0] == []


def test_everything_wrong_is_told_at_once(bench: Bench) -> None:
    wrong = SessionSettings(display_name="x" * (MAX_NAME + 1), weight=MAX_WEIGHT * 2, idle_timeout_s=0.0)
    with pytest.raises(InvalidRequest) as refused:
        bench.sessions.open(wrong)
    assert _fields(refused.value) == ["settings.display_name", "settings.weight", "settings.idle_timeout"]


@pytest.mark.parametrize("weight", [None, MIN_WEIGHT, MAX_WEIGHT])
def test_the_bounds_themselves_are_taken(bench: Bench, weight: float | None) -> None:
    longest = TEN_YEARS_S - 1.0
    settings = SessionSettings(
        display_name="x" * MAX_NAME, weight=weight, limits=SessionLimits(), idle_timeout_s=longest
    )
    assert bench.sessions.open(settings).session.settings == settings


def test_a_change_with_a_wrong_setting_changes_nothing(bench: Bench) -> None:
    one = bench.opened()
    for field, settings in WRONG.items():
        with pytest.raises(InvalidRequest) as refused:
            bench.sessions.update(one, settings, [field.split(".")[1]])
        assert _fields(refused.value) == [field]
    assert bench.sessions.get(one).session.settings == SessionSettings()


def test_what_the_mask_does_not_name_is_neither_checked_nor_changed(bench: Bench) -> None:
    one = bench.opened()
    given = SessionSettings(display_name="mine", weight=-1.0)
    now = bench.sessions.update(one, given, ["display_name"]).session.settings
    assert now == SessionSettings(display_name="mine")


@pytest.mark.parametrize(
    ("mask", "said"), [([], "names nothing to change"), (["labels", "state"], "'state' cannot be changed")]
)
def test_a_mask_with_something_else_is_refused(bench: Bench, mask: list[str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        bench.sessions.update(bench.opened(), SessionSettings(), mask)
    assert _fields(refused.value) == ["update_mask"]


def test_a_change_that_knows_an_older_state_is_refused(bench: Bench) -> None:
    one = bench.opened()
    etag = bench.sessions.get(one).session.etag
    bench.sessions.update(one, SessionSettings(weight=2.0), ["weight"], etag)
    with pytest.raises(Aborted):
        bench.sessions.update(one, SessionSettings(weight=3.0), ["weight"], etag)
    assert bench.sessions.get(one).session.weight == 2.0


def test_an_ended_session_is_not_changed(bench: Bench) -> None:
    one = bench.opened()
    bench.sessions.close(one)
    with pytest.raises(FailedPrecondition) as refused:
        bench.sessions.update(one, SessionSettings(weight=3.0), ["weight"])
    assert refused.value.reason is ErrorReason.ILLEGAL_STATE
    assert bench.sessions.get(one).session.weight == 1.0


def test_a_session_takes_as_many_waiting_jobs_as_its_limit_and_says_when_to_come_back(bench: Bench) -> None:
    one = bench.opened(max_queued_jobs=2)
    for _ in range(2):
        bench.submit(one)
    with pytest.raises(ResourceExhausted) as full:
        bench.sessions.admit(one, retry_after_s=7.0)
    assert (full.value.reason, full.value.retry_after_s) == (ErrorReason.QUOTA_EXCEEDED, 7.0)
    assert full.value.facts["limit_name"] == "max_queued_jobs"


def test_a_session_makes_results_until_they_reach_its_limit(bench: Bench) -> None:
    live = bench.sessions.live(bench.opened(max_result_bytes=100))
    made = SimpleNamespace(result_bytes=lambda session_id: made.bytes, bytes=99)  # pyright: ignore[reportUnknownLambdaType]
    store: Any = made
    terms = SessionTerms({live.session.id: live}, store, lambda session_id: None)
    terms.check_room(live, 1.0)
    made.bytes = 100
    with pytest.raises(ResourceExhausted) as full:
        terms.check_room(live, 1.0)
    assert full.value.facts["limit_name"] == "max_result_bytes"


def test_a_reader_begins_at_the_end_at_the_latest(bench: Bench) -> None:
    one = bench.opened()
    last = bench.sessions.get(one).last_sequence
    assert bench.sessions.news(one, last).at_end
    for place in (-1, last + 1):
        with pytest.raises(InvalidRequest) as refused:
            bench.sessions.news(one, place)
        assert _fields(refused.value) == ["after_sequence"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (SessionFilter(), ["open", "closed"]),
        (SessionFilter(states=(SessionState.OPEN,)), ["open"]),
        (SessionFilter(labels=(("team", "a"),)), ["open", "closed"]),
        (SessionFilter(labels=(("team", ""),)), ["open", "closed"]),
        (SessionFilter(labels=(("team", "b"),)), []),
        (SessionFilter(states=(SessionState.CLOSED,), labels=(("team", "b"),)), []),
        (SessionFilter(states=(SessionState.CLOSED,), labels=(("team", "a"),)), ["closed"]),
    ],
)
def test_every_condition_of_a_filter_must_hold_in_a_list_and_of_a_session(
    bench: Bench, wanted: SessionFilter, found: list[str]
) -> None:
    names = {
        name: bench.sessions.open(SessionSettings(labels=(("team", "a"),))).session.id for name in ("open", "closed")
    }
    bench.sessions.close(names["closed"])
    views = {name: bench.sessions.get(session_id) for name, session_id in names.items()}
    assert [name for name, view in views.items() if wanted.accepts(view.session)] == found
    listed, _ = bench.sessions.page(wanted, None, 10)
    assert sorted(view.session.id for view in listed) == sorted(names[name] for name in found)


def test_a_session_that_is_not_there_is_named_in_part(bench: Bench) -> None:
    with pytest.raises(NotFound) as missing:
        bench.sessions.get("\u00b5" * 257)
    told = "\u00b5" * 255 + "…"
    assert (told in missing.value.message, missing.value.facts["session_id"]) == (True, told)
    assert missing.value.facts["field"] == "session_id"
