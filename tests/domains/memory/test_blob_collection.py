"""A blob goes when it is deleted or expired, never while somebody reads or needs it; against a model, restarts included."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domains.clock import ClockStep, ExpiryClock
from domains.errors import ErrorReason, FailedPrecondition, NotFound
from domains.memory.blobs import collection, listing
from domains.memory.blobs import store as store_module
from domains.memory.blobs.blob import Blob, BlobSpec, BlobState, BlobTier
from domains.memory.blobs.listing import BlobFilter
from domains.memory.blobs.store import BlobStore
from domains.storage import DATABASE
from tests.domains.memory.blobs import content, files, opened, uploaded
from tests.domains.memory.scratch import scratch_folder


async def test_a_delete_waits_for_the_reader(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"bytes")
    async with blobs.reading(blob.id) as reader:
        assert blobs.get(blob.id).reader_count == 1
        assert blobs.delete(blob.id).deferred
        assert blobs.delete(blob.id).deferred
        assert blobs.get(blob.id).state is BlobState.DELETING
        with pytest.raises(FailedPrecondition) as told:
            await content(blobs, blob.id)
        assert told.value.reason is ErrorReason.ILLEGAL_STATE
        assert await reader.read(0, 5, bytes) == b"bytes"
    with pytest.raises(NotFound):
        blobs.get(blob.id)
    assert files(blobs) == []


async def test_only_if_unused_refuses_instead(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"bytes")
    blobs.hold(blob.id, "job-7")
    with pytest.raises(FailedPrecondition) as told:
        blobs.delete(blob.id, only_if_unused=True)
    assert told.value.reason is ErrorReason.BLOB_IN_USE
    assert told.value.facts["holder_ids"] == "job-7"
    assert blobs.get(blob.id).state is BlobState.READY
    blobs.let_go(blob.id, "job-7")
    assert not blobs.delete(blob.id, only_if_unused=True).deferred


async def test_what_a_job_made_is_needed_until_the_job_is_deleted(blobs: BlobStore) -> None:
    blob = await blobs.keep(b"picture", "image/png", "job-1")
    assert (blob.written_bytes, blob.missing_bytes) == (7, 0)
    deleted = blobs.delete(blob.id)
    assert (deleted.deferred, deleted.holder_ids) == (True, ("job-1",))
    assert files(blobs) == [blob.sha256]
    assert blobs.release("job-1") == 7
    assert files(blobs) == []


async def test_a_job_that_makes_it_again_saves_it(blobs: BlobStore) -> None:
    blob = await blobs.keep(b"picture", "image/png", "job-1")
    blobs.delete(blob.id)
    assert (await blobs.keep(b"picture", "image/png", "job-2")).state is BlobState.READY
    blobs.release("job-1")
    assert await content(blobs, blob.id) == b"picture"


async def test_a_reader_keeps_the_picture_of_a_deleted_job(blobs: BlobStore) -> None:
    blob = await blobs.keep(b"picture", "image/png", "job-1")
    async with blobs.reading(blob.id) as reader:
        assert blobs.release("job-1") == 0
        assert await reader.read(0, 7, bytes) == b"picture"
    assert blobs.all() == []
    assert files(blobs) == []


async def test_a_user_is_waited_for_and_an_upload_outlives_its_users(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"mask")
    blobs.hold(blob.id, "job-1")
    assert blobs.get(blob.id).reader_count == 1
    assert blobs.release("job-1") == 0
    assert await content(blobs, blob.id) == b"mask"


async def test_a_deleted_blob_goes_when_its_last_user_lets_go(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"mask")
    for owner in ("job-1", "job-2"):
        blobs.hold(blob.id, owner)
    assert blobs.delete(blob.id).holder_ids == ("job-1", "job-2")
    blobs.let_go(blob.id, "job-1")
    assert blobs.get(blob.id).state is BlobState.DELETING
    async with blobs.reading(blob.id, "job-2") as reader:
        assert await reader.read(0, 4, bytes) == b"mask"
    blobs.let_go(blob.id, "job-2")
    assert (blobs.all(), files(blobs)) == ([], [])


async def test_users_and_makers_outlive_the_server(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        mask, made = await uploaded(store, b"mask"), await store.keep(b"made", "image/png", "job-1")
        await store.keep(b"made", "image/png", "job-2")
        gone = await uploaded(store, b"gone")
        for owner in ("job-1", "job-2"):
            store.hold(mask.id, owner)
            store.hold(gone.id, owner)
        store.let_go(mask.id, "job-2")
        store.release("job-2")
        store.let_go(gone.id, "job-1")
        store.delete(gone.id)
    with opened(tmp_path) as store:
        assert store.holders() == {"job-1"}
        assert (store.is_held(mask.id, "job-1"), store.is_held(mask.id, "job-2")) == (True, False)
        assert store.delete(mask.id).holder_ids == ("job-1",)
        assert {blob.id for blob in store.left_by({"job-1"})} == {mask.id, made.id}
        store.release("job-1")
        assert store.all() == []
    with opened(tmp_path) as store:
        assert (store.all(), store.holders()) == ([], set())


async def test_a_picture_that_its_job_gives_up_goes_unless_another_job_made_it_too(blobs: BlobStore) -> None:
    alone = await blobs.keep(b"alone", "image/png", "job-1")
    both = await blobs.keep(b"both", "image/png", "job-1")
    await blobs.keep(b"both", "image/png", "job-2")
    for blob in (alone, both):
        blobs.let_go_made(blob.id, "job-3")
    assert {blob.id for blob in blobs.all()} == {alone.id, both.id}
    for blob in (alone, both):
        blobs.let_go_made(blob.id, "job-1")
    assert [blob.id for blob in blobs.all()] == [both.id]
    blobs.release("job-1")
    assert [blob.id for blob in blobs.all()] == [both.id]


async def test_what_several_jobs_would_leave_is_what_only_they_need(blobs: BlobStore) -> None:
    one = await blobs.keep(b"one", "image/png", "job-1")
    shared = await blobs.keep(b"shared", "image/png", "job-1")
    await blobs.keep(b"shared", "image/png", "job-2")
    upload = await uploaded(blobs, b"upload")
    blobs.hold(upload.id, "job-1")
    assert blobs.left_by({"job-1"}) == [one]
    assert {blob.id for blob in blobs.left_by({"job-1", "job-2"})} == {one.id, shared.id}
    assert blobs.holders() == {"job-1"}
    async with blobs.reading(one.id):
        assert blobs.left_by({"job-1"}) == []


async def test_expiry_times_move_with_the_wall_clock_and_stay_moved(tmp_path: Path) -> None:
    clock = ExpiryClock()
    with opened(tmp_path, expiry=clock) as store:
        kept = await store.requests.create(BlobSpec(size_bytes=1, keep_for_s=60.0))
        forever = await store.keep(b"picture", "image/png", "job-1")
        for listener in clock.on_step:
            listener(ClockStep(delta_s=1000.0, from_s=0.0))
        assert kept.expire_time_s is not None
        assert store.get(forever.id).expire_time_s is None
    with opened(tmp_path) as store:
        assert store.get(kept.id).expire_time_s == kept.expire_time_s + 1000.0


async def test_expired_blobs_are_collected_unfinished_ones_too(blobs: BlobStore) -> None:
    ready = await uploaded(blobs, b"ready")
    half = await blobs.requests.create(BlobSpec(size_bytes=9, keep_for_s=60))
    forever_used = await uploaded(blobs, b"used")
    blobs.hold(forever_used.id, "job")
    assert blobs.collect() == 0
    assert blobs.collect(half.create_time_s + 61) == 1
    assert {blob.id for blob in blobs.all()} == {ready.id, forever_used.id}
    assert blobs.collect(ready.create_time_s + 2 * 86400) == 1
    assert files(blobs) == [forever_used.id]


async def test_others_run_and_may_delete_while_many_expired_blobs_are_collected(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "LOOKED", 2)
    made = [await uploaded(blobs, bytes([number])) for number in range(7)]
    blobs.hold(made[1].id, "job")
    collecting, turns = asyncio.ensure_future(blobs.collect_in_portions(made[-1].create_time_s + 2 * 86400)), 0
    while not collecting.done():
        await asyncio.sleep(0)
        turns += 1
        if turns == 1:
            assert {blob.id for blob in blobs.all()} == {blob.id for blob in made[1:]}
            blobs.delete(made[3].id)
    assert turns >= 4
    assert files(blobs) == [made[1].id]


async def test_a_chunk_puts_the_end_off(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=2, keep_for_s=60))
    later = await blobs.write_chunk(blob.id, 0, b"a")
    assert (later.expire_time_s or 0) > (blob.expire_time_s or 0)


async def test_a_blob_that_is_deleted_while_it_is_written_goes_with_its_writer(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=4))
    with blobs.writing(blob.id) as writer:
        await writer.write(0, b"ab")
        assert blobs.delete(blob.id).deferred
        with pytest.raises(FailedPrecondition):
            await writer.write(2, b"cd")
    assert blobs.all() == []
    assert files(blobs) == []


async def test_a_file_without_a_row_and_a_row_without_a_file_are_put_right_at_the_start(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        half = await store.requests.create(BlobSpec(size_bytes=4))
        store.files.remove(half.id)
        store.files.reserve("b-stray", 10)
    with opened(tmp_path) as store:
        assert store.sweep(lambda owner: True) == 1
        assert store.all() == []
        assert files(store) == []


async def test_a_file_that_cannot_be_removed_is_told_held_and_removed_later(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await uploaded(blobs, b"x" * size) for size in (1, 2, 3)]
    owners = blobs.owners_in(BlobTier.DISK)
    remove = blobs.files.remove

    def failing(name: str) -> None:
        if name == made[0].id:
            raise OSError("the disk says no")
        remove(name)

    monkeypatch.setattr(blobs.files, "remove", failing)
    assert blobs.collect(where=lambda blob: True, now_s=made[2].create_time_s + 2 * 86400) == 3
    assert files(blobs) == [made[0].id]
    assert {name: each.why for name, each in blobs.unfreed.items()} == {made[0].id: "the disk says no"}
    assert [(owner.id, owner.live_bytes) for owner in owners()] == [(made[0].id, 1)]
    monkeypatch.undo()
    blobs.collect()
    assert (files(blobs), blobs.unfreed, owners()) == ([], {}, [])


async def test_a_content_that_was_made_again_is_not_freed_any_more(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await blobs.keep(b"picture", "image/png", "job-1")

    def failing(name: str) -> None:
        raise OSError("the disk says no")

    with monkeypatch.context() as broken:
        broken.setattr(blobs.files, "remove", failing)
        blobs.release("job-1")
    assert list(blobs.unfreed) == [blob.id]
    await blobs.keep(b"picture", "image/png", "job-2")
    blobs.collect()
    assert blobs.unfreed == {}
    assert await content(blobs, blob.id) == b"picture"


async def test_lists_are_newest_first_in_pages_with_the_sum_of_all(blobs: BlobStore) -> None:
    made = [await uploaded(blobs, b"x" * size) for size in range(1, 6)]
    first = blobs.page(BlobFilter(), None, 2)
    assert [blob.id for blob in first.blobs] == [made[4].id, made[3].id]
    blobs.delete(made[4].id)
    await uploaded(blobs, b"newer")
    second = blobs.page(BlobFilter(), first.next_place, 2)
    assert [blob.id for blob in second.blobs] == [made[2].id, made[1].id]
    last = blobs.page(BlobFilter(), second.next_place, 2)
    assert ([blob.id for blob in last.blobs], last.next_place) == ([made[0].id], None)
    assert await blobs.total_bytes(BlobFilter()) == 1 + 2 + 3 + 4 + 5


async def test_blobs_of_one_moment_are_listed_in_the_order_in_which_they_were_made(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    made = [(await blobs.requests.create(BlobSpec(size_bytes=1))).id for _ in range(3)]
    assert [blobs.get(name).place for name in made] == [10**15 + number for number in range(3)]
    blobs.delete(made[1])
    assert [blob.id for blob in blobs.page(BlobFilter(), None, 9).blobs] == [made[2], made[0]]
    assert [blob.id for blob in blobs.page(BlobFilter(), 10**15 + 1, 9).blobs] == [made[0]]


async def test_rows_of_a_version_without_places_get_theirs_and_the_others_keep_them(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = [await uploaded(store, bytes([number])) for number in range(4)]
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        for old in made[:2]:
            body = msgspec.msgpack.encode(msgspec.structs.replace(old, place=0))
            database.execute("UPDATE blobs SET body = ? WHERE id = ?", (body, old.id))
        database.commit()
    with opened(tmp_path) as store:
        assert [blob.id for blob in store.page(BlobFilter(), None, 10).blobs] == [blob.id for blob in reversed(made)]
        assert [store.get(blob.id).place for blob in made[2:]] == [blob.place for blob in made[2:]]
        assert all(blob.place for blob in store.all())


async def test_a_page_looks_at_so_many_blobs_at_most_and_may_be_empty(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await uploaded(blobs, bytes([number])) for number in range(7)]
    looked: list[str] = []
    fits = BlobFilter.fits

    def counted(wanted: BlobFilter, blob: Blob) -> bool:
        looked.append(blob.id)
        return fits(wanted, blob)

    monkeypatch.setattr(listing, "LOOKED", 3)
    monkeypatch.setattr(BlobFilter, "fits", counted)
    rare, place, found = BlobFilter(sha256=made[0].sha256), None, list[str]()
    for expected in (3, 3, 1):
        looked.clear()
        page = blobs.page(rare, place, 1)
        assert len(looked) == expected
        found += [blob.id for blob in page.blobs]
        place = page.next_place
        assert (place is None) == (expected == 1)
    assert found == [made[0].id]


async def test_whoever_reads_each_blob_gets_all_that_fit_and_lets_others_run_between(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED", 2)
    monkeypatch.setattr(store_module, "LOOKED", 2)
    made = [await uploaded(blobs, bytes([number])) for number in range(5)]
    steps: list[str] = []
    note = steps.append

    async def read() -> None:
        async for blob in blobs.each(BlobFilter()):
            note(blob.id)

    async def others() -> None:
        for _ in range(2):
            note("")
            await asyncio.sleep(0)

    await asyncio.gather(read(), others())
    newest = [blob.id for blob in reversed(made)]
    assert steps == [*newest[:2], "", *newest[2:4], "", newest[4]]
    assert [blob.id async for blob in blobs.each(BlobFilter(sha256=made[0].sha256))] == [made[0].id]


async def test_the_sum_of_a_list_lets_other_calls_run_between(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED", 2)
    for number in range(7):
        await uploaded(blobs, bytes(number))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    neighbour = asyncio.create_task(others())
    assert await blobs.total_bytes(BlobFilter()) == sum(range(7))
    neighbour.cancel()
    assert turns >= 3
    # The sum follows the rows.
    await uploaded(blobs, b"newer")
    assert await blobs.total_bytes(BlobFilter()) == sum(range(7)) + 5


async def test_a_sum_is_made_once_until_a_row_changes(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await uploaded(blobs, b"one")
    looks = 0
    fits = BlobFilter.fits

    def counted(wanted: BlobFilter, blob: Blob) -> bool:
        nonlocal looks
        looks += 1
        return fits(wanted, blob)

    monkeypatch.setattr(listing, "_SUMS", 2)
    monkeypatch.setattr(BlobFilter, "fits", counted)

    async def looked(media_type: str = "") -> tuple[int, int]:
        before = looks
        return await blobs.total_bytes(BlobFilter(media_type=media_type)), looks - before

    assert [await looked(), await looked()] == [(3, 1), (3, 0)]
    # Two filters are kept, and no third.
    assert [await looked(name) for name in ("a", "b", "a", "b")] == [(0, 1), (0, 1), (0, 0), (0, 1)]
    await uploaded(blobs, b"two")
    assert [await looked(), await looked()] == [(6, 2), (6, 0)]


async def test_a_sum_during_which_a_row_changed_is_not_kept(blobs: BlobStore) -> None:
    gone, _ = await uploaded(blobs, b"one"), await uploaded(blobs, b"other")
    summing = asyncio.create_task(blobs.total_bytes(BlobFilter()))
    await asyncio.sleep(0)
    blobs.delete(gone.id)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (summing.done(), await summing) == (True, 8)
    assert await blobs.total_bytes(BlobFilter()) == 5


async def test_a_filter_takes_what_fits_all_of_it(blobs: BlobStore) -> None:
    picture = await blobs.requests.create(
        BlobSpec(size_bytes=0, media_type="image/png", labels=(("a", "1"), ("b", "2")))
    )
    host = await blobs.requests.create(BlobSpec(size_bytes=1, tier=BlobTier.HOST, media_type="imagery"))

    def ids(wanted: BlobFilter) -> list[str]:
        return [blob.id for blob in blobs.page(wanted, None, 9).blobs]

    assert ids(BlobFilter(media_type="image/*")) == [picture.id]
    assert ids(BlobFilter(labels=(("b", "2"),))) == [picture.id]
    assert ids(BlobFilter(labels=(("b", "3"),))) == []
    assert ids(BlobFilter(tiers=(BlobTier.HOST,), states=(BlobState.WRITING,))) == [host.id]
    assert ids(BlobFilter(sha256=picture.sha256)) == [picture.id]


class Model:
    """What a blob should be."""

    def __init__(self, blob: Blob, data: bytes) -> None:
        self.blob = blob
        self.data = data
        self.written = 0
        self.holders: set[str] = set()
        self.deleting = False


class Blobs(RuleBasedStateMachine):
    """Uploads, users, deletes, expiry and restarts in any order: what is needed is there, what is not wanted is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = scratch_folder()
        self.folder = self.scratch.__enter__()
        self.runner = asyncio.Runner()
        self.models: dict[str, Model] = {}
        self.readers: dict[str, object] = {}
        self.clock_s = 0.0
        self.open()

    def open(self) -> None:
        self.opening = opened(self.folder)
        self.store = self.opening.__enter__()

    @rule(data=st.binary(max_size=20), tier=st.sampled_from([BlobTier.DISK, BlobTier.HOST]))
    def create(self, data: bytes, tier: BlobTier) -> None:
        blob = self.runner.run(self.store.requests.create(BlobSpec(size_bytes=len(data), tier=tier, keep_for_s=1e6)))
        self.models[blob.id] = Model(blob, data)

    @precondition(lambda self: self.models)
    @rule(choice=st.data(), size=st.integers(1, 8), back=st.integers(0, 3))
    def write(self, choice: st.DataObject, size: int, back: int) -> None:
        name = choice.draw(st.sampled_from(list(self.models)))
        model = self.models[name]
        if model.deleting or model.written == len(model.data):
            return
        begin = max(0, model.written - back)
        end = min(len(model.data), model.written + size)
        blob = self.runner.run(self.store.write_chunk(name, begin, model.data[begin:end]))
        model.written = end
        assert blob.written_bytes == end

    @precondition(lambda self: self.models)
    @rule(choice=st.data(), owner=st.sampled_from("xy"))
    def hold(self, choice: st.DataObject, owner: str) -> None:
        name = choice.draw(st.sampled_from(list(self.models)))
        model = self.models[name]
        if not model.deleting and model.written == len(model.data):
            self.store.hold(name, owner)
            model.holders.add(owner)

    @rule(owner=st.sampled_from("xy"))
    def release(self, owner: str) -> None:
        self.store.release(owner)
        for name, model in list(self.models.items()):
            model.holders.discard(owner)
            if model.deleting and not model.holders:
                del self.models[name]

    @precondition(lambda self: self.models)
    @rule(choice=st.data())
    def delete(self, choice: st.DataObject) -> None:
        name = choice.draw(st.sampled_from(list(self.models)))
        deleted = self.store.delete(name)
        assert deleted.deferred == bool(self.models[name].holders)
        self.models[name].deleting = True
        if not deleted.deferred:
            del self.models[name]

    @rule()
    def expire_all(self) -> None:
        self.store.collect(1e12)
        self.models = {name: model for name, model in self.models.items() if model.holders}

    @rule(keep=st.sets(st.sampled_from("xy")))
    def restart(self, keep: set[str]) -> None:
        self.opening.__exit__(None, None, None)
        self.open()
        assert self.store.sweep(lambda owner: owner in keep) == 0
        for name, model in list(self.models.items()):
            model.holders &= keep
            if model.blob.tier is BlobTier.HOST or (model.deleting and not model.holders):
                del self.models[name]

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        assert {blob.id for blob in self.store.all()} == set(self.models)
        on_disk = [name for name, model in self.models.items() if model.blob.tier is BlobTier.DISK]
        assert files(self.store) == sorted(on_disk)
        for name, model in self.models.items():
            blob = self.store.get(name)
            whole = model.written == len(model.data)
            expected = BlobState.DELETING if model.deleting else BlobState.READY if whole else BlobState.WRITING
            assert (blob.state, blob.written_bytes, blob.reader_count) == (expected, model.written, len(model.holders))
            if expected is BlobState.READY:
                assert self.runner.run(content(self.store, name)) == model.data

    def teardown(self) -> None:
        self.opening.__exit__(None, None, None)
        self.runner.close()
        self.scratch.__exit__(None, None, None)


TestBlobs = Blobs.TestCase
TestBlobs.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
