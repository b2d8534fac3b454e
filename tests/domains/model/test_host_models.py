"""The RAM tier: what it reads, keeps and lets go, measured on the page cache itself."""

import asyncio
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from domains.errors import DataLoss, DeviceOpsError, FailedPrecondition
from domains.model import host_models, page_cache
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints
from domains.model.host_models import HostModels, weight_paths
from domains.model.loaded import LoadedComponent, LoadedModel, Stay
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.model.page_cache import LockedMap
from tests.domains.model.folders import UNET_TENSORS, age, write_model
from tests.open_files import open_within

MIB = 1024 * 1024
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return a_model(tmp_path / "m")


def a_model(folder: Path, value: float = 1.0) -> Model:
    age(write_model(folder, value))
    return read_folder(folder, folder.name, Path.resolve, Fingerprints({}))


async def always() -> bool:
    return True


async def bring(tier: HostModels, model: Model, stay: Stay | None = None, *, ahead: bool = False) -> LoadedModel:
    brought = await tier.read(model, lambda done, total: None, always)
    assert brought is not None
    return tier.put(brought, stay, ahead=ahead)


def size_of(model: Model) -> int:
    return sum((Path(model.folder) / path).stat().st_size for path in weight_paths(model))


def not_cached(model: Model) -> bool:
    """Put the files of a model out of the page cache. False: this file system keeps them."""
    if sys.platform != "linux":
        return False
    for path in weight_paths(model):
        descriptor = os.open(Path(model.folder) / path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            one, size = LockedMap(descriptor, os.fstat(descriptor).st_size), os.fstat(descriptor).st_size
            there = one.resident_bytes(0, size)
            one.close()
        finally:
            os.close(descriptor)
        if there != 0:
            return False
    return True


async def test_what_is_brought_is_in_memory_and_counts_what_the_disk_gave(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    # Larger than what the system reads ahead when the header is read.
    save_file({name: np.zeros(4 * MIB, "float16") for name in UNET_TENSORS}, tmp_path / "m" / UNET)
    age(tmp_path / "m")
    model = read_folder(tmp_path / "m", "m", Path.resolve, Fingerprints({}))
    gone = not_cached(model)
    tier, told = HostModels(LoadedModels()), list[tuple[int, int]]()
    brought = await tier.read(model, lambda done, total: told.append((done, total)), always)
    assert brought is not None
    assert told[-1] == (size_of(model), size_of(model))
    assert all(file.resident_bytes in (None, file.size_bytes) for file in brought.files.values())
    if gone:
        # The scan of the header brought the first megabytes.
        assert size_of(model) // 2 < brought.read_bytes <= size_of(model)
        again = await tier.read(model, lambda done, total: None, always)
        assert again is not None
        assert again.read_bytes == 0
        again.close()
    brought.close()


async def test_the_list_of_loaded_models_tells_the_tier(model: Model) -> None:
    loaded = LoadedModels()
    tier = HostModels(loaded)
    one = await bring(tier, model)
    assert (one.id, one.device_id, one.size_bytes) == ("m@host", "", size_of(model))
    assert one.locked == (tier.locked_bytes == size_of(model))
    assert tier.find(model) == one
    # Bytes that the system may drop again belong to no owner.
    assert sum(owner.live_bytes for owner in tier.owners()) == tier.locked_bytes
    assert tier.drop(one.id) == (size_of(model) if one.locked else 0)
    assert (loaded.list(), tier.held_bytes, tier.locked_bytes) == ([], 0, 0)


async def test_a_load_whose_caller_leaves_ends_and_leaves_nothing(model: Model) -> None:
    tier = HostModels(LoadedModels())

    async def leave() -> bool:
        task.cancel()
        return True

    task = asyncio.ensure_future(tier.read(model, lambda done, total: None, leave))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tier.held_bytes, tier.locked_bytes) == (0, 0)
    if sys.platform == "linux":
        assert not open_within(model.folder)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the pages")
def test_a_file_that_was_read_lies_in_memory_and_is_seen_there(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(3 * mmap.PAGESIZE + 1))
    with path.open("rb") as file:
        file.read()
        held = LockedMap(file.fileno(), path.stat().st_size)
        assert held.resident_bytes(0, 3 * mmap.PAGESIZE + 1) == 3 * mmap.PAGESIZE + 1
        assert held.resident_bytes(mmap.PAGESIZE, 2 * mmap.PAGESIZE) == mmap.PAGESIZE
        held.close()
        assert held.resident_bytes(0, mmap.PAGESIZE) is None


async def test_what_the_system_does_not_lock_is_not_called_held(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache.LockedMap, "lock", lambda self, begin, end: False)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    tier = HostModels(LoadedModels())
    one = await bring(tier, model)
    assert not one.locked
    assert (tier.locked_bytes, list(tier.owners()), tier.drop(one.id)) == (0, [], 0)


async def test_locked_pages_may_be_reclaimed_unless_their_model_stays(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(held: LockedMap, begin: int, end: int) -> bool:
        held.locked_bytes += end - begin
        return True

    monkeypatch.setattr(page_cache.LockedMap, "lock", lock)
    loaded = LoadedModels()
    tier = HostModels(loaded)
    one = await bring(tier, model)

    def reclaimable() -> list[tuple[str, bool]]:
        return [(owner.id, owner.reclaimable) for owner in tier.owners()]

    assert reclaimable() == [(one.id, True)]
    loaded.update(one.id, Stay(pinned=True))
    assert reclaimable() == [(one.id, False)]
    loaded.remove(one.id)
    assert reclaimable() == [(one.id, False)]


async def test_a_stopped_load_leaves_nothing(model: Model) -> None:
    tier, pieces = HostModels(LoadedModels()), 0

    async def one_piece() -> bool:
        nonlocal pieces
        pieces += 1
        return pieces < 2

    assert await tier.read(model, lambda done, total: None, one_piece) is None
    assert (tier.held_bytes, tier.locked_bytes) == (0, 0)
    if sys.platform == "linux":
        assert not open_within(model.folder)


def overwritten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


@pytest.mark.parametrize(
    ("damage", "error"), [(Path.unlink, FailedPrecondition), (overwritten, FailedPrecondition), (cut_off, DataLoss)]
)
async def test_files_other_than_the_scan_saw_are_refused(
    model: Model, damage: Callable[[Path], None], error: type[DeviceOpsError]
) -> None:
    damage(Path(model.folder) / UNET)
    tier = HostModels(LoadedModels())
    with pytest.raises(error):
        await bring(tier, model)
    assert tier.held_bytes == 0


async def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_signal(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def shrinks() -> bool:
        for path in weight_paths(model):
            os.truncate(Path(model.folder) / path, 10)
        return True

    with pytest.raises((DataLoss, FailedPrecondition)):
        await HostModels(LoadedModels()).read(model, lambda done, total: None, shrinks)


async def test_the_cheapest_to_bring_back_goes_first_and_what_stays_stays(tmp_path: Path) -> None:
    one, two, three = (a_model(tmp_path / name) for name in ("one", "two", "three"))
    loaded = LoadedModels()
    tier = HostModels(loaded, lambda: size_of(one) + size_of(two))
    pinned = await bring(tier, one, Stay(pinned=True))
    other = await bring(tier, two)
    assert tier.victims(0, only_ahead=False) == []
    assert tier.victims(1, only_ahead=False) == [other.id]
    assert tier.victims(size_of(three), only_ahead=False) == [other.id]
    assert tier.victims(size_of(three), only_ahead=True) is None
    loaded.update(other.id, Stay(keep_alive_s=600))
    assert tier.victims(size_of(three), only_ahead=False) is None
    loaded.update(pinned.id, Stay(pinned=False))
    assert tier.victims(size_of(three), only_ahead=False) == [pinned.id]
    assert tier.victims(3 * size_of(three), only_ahead=False) is None


async def test_what_was_read_ahead_gives_way_to_hints_until_a_caller_loads_it(tmp_path: Path) -> None:
    one, two = a_model(tmp_path / "one"), a_model(tmp_path / "two")
    tier = HostModels(LoadedModels(), lambda: size_of(one))
    ahead = await bring(tier, one, ahead=True)
    assert tier.victims(size_of(two), only_ahead=True) == [ahead.id]
    assert tier.victims(size_of(two), only_ahead=True, keep=["one"]) is None
    tier.take_over(ahead, Stay())
    assert tier.victims(size_of(two), only_ahead=True) is None


async def test_a_load_by_a_device_is_a_use_of_the_copy_in_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = LoadedModels()
    tier = HostModels(loaded)
    before = await bring(tier, model)
    part = LoadedComponent(id="unet", bytes=1, precision="float32")
    on_device = LoadedModel(
        id="m@cpu", model_id="m", device_id="cpu", components=(part,), load_time_s=1.0, last_use_time_s=1.0
    )
    monkeypatch.setattr("domains.model.loaded_models.time.time", lambda: before.last_use_time_s + 5)
    loaded.put(on_device)
    assert loaded.get(before.id).last_use_time_s == before.last_use_time_s + 5


async def test_files_with_other_weights_than_a_later_scan_saw_count_as_absent(model: Model) -> None:
    tier = HostModels(LoadedModels())
    await bring(tier, model)
    (older,) = tier._held.values()  # pyright: ignore[reportPrivateUsage]
    newer = a_model(Path(model.folder), 2.0)
    assert newer.sha256 != model.sha256
    assert tier.find(newer) is None
    assert (await bring(tier, newer)).model_sha256 == newer.sha256
    assert tier.held_bytes == size_of(newer)
    assert [file.resident_bytes for file in older.files.values()] == [None] * len(older.files), "it is closed"


def test_the_default_budget_is_a_quarter_of_what_the_process_may_use() -> None:
    assert host_models.quarter_of_host() == host_models.host_memory().total_bytes // 4


@pytest.mark.parametrize(
    ("need", "only_ahead", "keep", "victims"),
    [
        (0, False, (), []),
        (1, False, (), ["one@host"]),
        (1, True, (), ["two@host"]),
        (1, False, ("one",), ["two@host"]),
        (1, False, ("one", "two"), None),
    ],
)
async def test_as_few_models_leave_as_make_room(
    tmp_path: Path, need: int, only_ahead: bool, keep: tuple[str, ...], victims: list[str] | None
) -> None:
    models = [a_model(tmp_path / name, value) for name, value in (("one", 1.0), ("two", 2.0))]
    loaded, size = LoadedModels(), size_of(models[0])
    tier = HostModels(loaded, lambda: 2 * size)
    for place, model in enumerate(models):
        await bring(tier, model, ahead=place == 1)
        there = loaded.get(f"{model.id}@host")
        loaded.put(msgspec.structs.replace(there, last_use_time_s=100.0 * (place + 1), load_s=1.0))
    assert tier.held_bytes == 2 * size
    assert tier.victims(need, only_ahead=only_ahead, keep=keep) == victims
    if not only_ahead and not keep:
        assert tier.victims(size + 1, only_ahead=False) == ["one@host", "two@host"]
        assert tier.victims(2 * size + 1, only_ahead=False) is None
    tier.take_over(loaded.get("two@host"), Stay())
    assert tier.victims(1, only_ahead=True) is None, "a caller has loaded it since"
    tier.close()
    assert (tier.held_bytes, loaded.list()) == (0, [])
    assert tier.drop("one@host") == 0
