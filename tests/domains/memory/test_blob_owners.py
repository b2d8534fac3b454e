"""Blobs as owners of memory: always as the rows are, and no dearer with many."""

import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.memory.blobs.blob import Blob, BlobOrigin, BlobState, BlobTier
from domains.memory.blobs.owners import BlobOwners
from domains.memory.blobs.rows import BlobRows
from domains.memory.measure import NAMED_BLOBS, OwnerKind
from domains.memory.pools.claims import Claims
from domains.memory.pools.disk_pool import DiskPool
from domains.memory.pools.leaks import LeakWatch
from domains.storage import open_database

CHANGES = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.integers(0, 3),
        st.sampled_from([BlobTier.HOST, BlobTier.PINNED_HOST, BlobTier.DEVICE]),
        st.sampled_from([BlobState.READY, BlobState.LOST, None]),
    ),
    max_size=40,
)
"""Which blob, its size, its tier, and its state; None: it is removed."""


@contextmanager
def opened_rows() -> Generator[BlobRows]:
    with tempfile.TemporaryDirectory() as name, closing(open_database(Path(name))) as database:
        yield BlobRows(database, Path(name))


@pytest.fixture(scope="module")
def rows() -> Generator[BlobRows]:
    """Rows that every example empties."""
    with opened_rows() as found:
        yield found


def blob(place: int, size: int, tier: BlobTier = BlobTier.HOST, state: BlobState = BlobState.READY) -> Blob:
    return Blob(
        id=f"b-{place}",
        sha256="",
        expected_sha256="",
        size_bytes=size,
        missing_bytes=0,
        media_type="",
        create_time_s=1.0,
        tier=tier,
        state=state,
        origin=BlobOrigin.UPLOAD,
        keep_for_s=1.0,
        expire_time_s=2.0,
        device_id="cpu" if tier is BlobTier.DEVICE else "",
    )


@given(CHANGES, st.integers(1, 8))
def test_owners_are_as_the_rows_after_every_change(
    rows: BlobRows, changes: list[tuple[int, int, BlobTier, BlobState | None]], named: int
) -> None:
    rows.remove([one.id for one in rows.all()])
    owners = BlobOwners(rows, frozenset({BlobTier.HOST, BlobTier.PINNED_HOST}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("domains.memory.blobs.owners.NAMED_BLOBS", named)
        for place, size, tier, state in changes:
            if state:
                rows.put(blob(place, size, tier, state))
            elif rows.get(f"b-{place}"):
                rows.remove([f"b-{place}"])
            held = [
                one
                for one in rows.all()
                if one.tier is not BlobTier.DEVICE and one.size_bytes and one.state is not BlobState.LOST
            ]
            told = [(owner.id, owner.live_bytes) for owner in owners()]
            sizes = sorted((one.size_bytes for one in held), reverse=True)
            assert set(told[:named]) <= {(one.id, one.size_bytes) for one in held}
            assert [live for _, live in told[:named]] == sizes[:named]
            assert told[named:] == ([("", sum(sizes[named:]))] if sizes[named:] else [])


async def test_a_measurement_looks_at_no_more_than_the_largest_blobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_rows() as rows:
        owners = BlobOwners(rows, frozenset({BlobTier.HOST}))
        for place in range(3 * NAMED_BLOBS):
            rows.put(blob(place, 10 + place))
        monkeypatch.setattr(rows, "all", lambda: pytest.fail("every row was looked at"))
        rows.put(blob(-1, 1))
        measure = await DiskPool(tmp_path, owners).measure()
    of_blobs = [owner for owner in measure.owners if owner.kind is OwnerKind.BLOB]
    assert len(of_blobs) == NAMED_BLOBS + 1
    assert sum(owner.live_bytes for owner in measure.owners) == measure.live_bytes
    assert sum(owner.live_bytes for owner in of_blobs) == sum(range(10, 10 + 3 * NAMED_BLOBS)) + 1


def test_several_blobs_together_are_no_leak_and_no_consumer() -> None:
    with opened_rows() as rows, pytest.MonkeyPatch.context() as patch:
        patch.setattr("domains.memory.blobs.owners.NAMED_BLOBS", 1)
        owners, leaks, claims = BlobOwners(rows, frozenset({BlobTier.HOST})), LeakWatch(window_s=1.0), Claims()
        for place in range(20):
            rows.put(blob(place, 4 << 20))
            leaks.add(float(place), owners())
            claims.measured("host", owners(), [])
        assert owners()[-1].several
        assert leaks.suspects() == []
        with claims.take_new("host", 5, ""):
            assert claims.outstanding_bytes("host") == 5
