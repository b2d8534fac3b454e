"""The things that events tell of, through the database."""

import msgspec
import pytest
from structlog.testing import capture_logs

from domains.device.record import Condition, DeviceReach, first_view
from domains.memory.blobs.blob import Blob, BlobState
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pool import PoolKind, PoolView
from domains.memory.pools.pressure import Pressure
from domains.model.loaded import LoadedModel
from domains.processing.event_snapshots import restored, stored
from domains.system_event import StoredSnapshot
from tests.domains.device.test_devices import a_device

POOL = PoolView(
    id="host",
    kind=PoolKind.HOST,
    device_id="",
    measure=MemoryMeasure(time_s=1.5, total_bytes=100, used_bytes=90),
    reserved_bytes=1,
    available_bytes=9,
    peak_live_bytes=None,
    pressure=Pressure.CRITICAL,
    time_to_critical_s=None,
    budget=MemoryBudget(),
    etag="1",
)
BLOB = Blob(id="b-1", sha256="ab", size_bytes=3, media_type="", create_time_s=1.0, state=BlobState.CORRUPT)


def through(value: object) -> object:
    snapshot = stored(value)
    assert snapshot is not None
    return restored(snapshot)


LOADED = LoadedModel(id="m@cpu", model_id="m", device_id="cpu", components=(), load_time_s=1.0, last_use_time_s=2.0)
DEVICE = first_view("cuda:0", a_device(), Condition(), DeviceReach(), "1")


@pytest.mark.parametrize("value", [POOL, BLOB, LOADED, DEVICE])
def test_a_thing_comes_back_as_it_was(value: object) -> None:
    assert through(value) == value


def test_labels_of_a_blob_and_owners_of_a_pool_are_not_stored() -> None:
    assert through(msgspec.structs.replace(BLOB, labels=(("person", "ada"),))) == BLOB
    owned = msgspec.structs.replace(POOL.measure, owners=(MemoryOwner(kind=OwnerKind.JOB, id="job", live_bytes=1),))
    assert through(msgspec.structs.replace(POOL, measure=owned)) == POOL


@pytest.mark.parametrize("snapshot", [StoredSnapshot("star", b"\x80"), StoredSnapshot("blob", b"\xc1")])
def test_a_thing_that_cannot_be_read_is_left_out_with_a_warning(snapshot: StoredSnapshot) -> None:
    with capture_logs() as told:
        assert restored(snapshot) is None
    assert [line["log_level"] for line in told] == ["warning"]
