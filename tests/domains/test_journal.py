"""Journal: order, newest-only slots, resuming, waking."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from domains.journal import Entry, Journal

Step = tuple[str, int]


def write(journal: Journal[int], value: int, slot: str = "") -> Entry[int]:
    entry = journal.next(value)
    journal.publish(entry, slot=slot)
    return entry


@given(
    st.lists(st.tuples(st.sampled_from(["", "progress", "preview"]), st.integers()), max_size=40), st.integers(0, 50)
)
def test_a_reader_sees_all_kept_entries_and_the_newest_of_each_slot(steps: list[Step], position: int) -> None:
    journal: Journal[int] = Journal()
    written = [(slot, write(journal, value, slot)) for slot, value in steps]
    newest = {slot: entry for slot, entry in written if slot}
    expected = [e for slot, e in written if e.sequence > position and (not slot or newest[slot] is e)]
    assert journal.after(position) == expected


@given(st.lists(st.sampled_from(["", "progress"]), max_size=40))
def test_sequences_rise_by_one_from_one(slots: list[str]) -> None:
    journal: Journal[int] = Journal()
    assert [write(journal, 0, slot).sequence for slot in slots] == list(range(1, len(slots) + 1))


@given(st.lists(st.tuples(st.sampled_from(["", "progress"]), st.integers()), max_size=30), st.integers(1, 5))
def test_readers_who_come_at_any_time_see_rising_sequences_and_no_kept_entry_twice(
    steps: list[Step], every: int
) -> None:
    journal: Journal[int] = Journal()
    kept: list[int] = []
    seen: list[Entry[int]] = []
    for number, (slot, value) in enumerate(steps):
        entry = write(journal, value, slot)
        kept += [entry.sequence] if not slot else []
        if number % every == 0:
            seen += journal.after(seen[-1].sequence if seen else 0)
    seen += journal.after(seen[-1].sequence if seen else 0)
    sequences = [entry.sequence for entry in seen]
    assert sequences == sorted(set(sequences))
    assert set(kept) <= set(sequences)


def test_an_unpublished_entry_is_seen_by_nobody() -> None:
    journal: Journal[int] = Journal()
    journal.next(1)
    assert journal.after(0) == []
    assert journal.last_sequence == 0


def test_closing_drops_newest_only_entries_and_keeps_the_others() -> None:
    journal: Journal[int] = Journal()
    write(journal, 1)
    write(journal, 2, "progress")
    write(journal, 3)
    journal.close()
    assert [entry.value for entry in journal.after(0)] == [1, 3]


def test_a_journal_taken_up_again_goes_on_above_what_may_have_been_seen() -> None:
    journal = Journal([Entry(1, 0.0, 7), Entry(4, 0.0, 8)], last_sequence=1000)
    assert journal.next(9).sequence == 1001
    assert [entry.value for entry in journal.after(1)] == [8]


async def test_a_waiting_reader_wakes_for_an_entry_and_for_the_end() -> None:
    journal: Journal[int] = Journal()
    waiting = [asyncio.create_task(journal.more(0, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    write(journal, 1, "progress")
    assert await asyncio.gather(*waiting) == [True, True, True]
    last = asyncio.create_task(journal.more(1, 60))
    await asyncio.sleep(0)
    journal.close()
    assert await last


async def test_silence_is_told_apart_from_news() -> None:
    journal: Journal[int] = Journal()
    assert not await journal.more(0, 0.001)
    write(journal, 1)
    assert await journal.more(0, 0.001)


async def test_a_journal_taken_up_again_is_silent_until_something_new_happens() -> None:
    journal = Journal([Entry(1, 0.0, 7)], last_sequence=1000)
    assert not await journal.more(1, 0.001)
    write(journal, 8)
    assert await journal.more(1, 0.001)
    assert [entry.sequence for entry in journal.after(1)] == [1001]


async def test_a_reader_who_leaves_as_the_news_comes_has_left() -> None:
    journal: Journal[int] = Journal()
    waiting = asyncio.create_task(journal.more(0, 60))
    await asyncio.sleep(0)
    waiting.cancel()
    write(journal, 1)
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    # The other order: the news is there, and the reader leaves before it has looked.
    waiting = asyncio.create_task(journal.more(1, 60))
    await asyncio.sleep(0)
    write(journal, 2)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()


async def test_a_reader_who_leaves_leaves_nothing_behind() -> None:
    journal: Journal[int] = Journal()
    waiting = asyncio.create_task(journal.more(0, 60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    write(journal, 1)
    assert [entry.value for entry in journal.after(0)] == [1]
