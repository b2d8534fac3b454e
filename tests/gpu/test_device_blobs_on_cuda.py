"""Blobs in a GPU's memory and in page-locked host memory, on a real device."""

import pytest
import torch

from domains.errors import ErrorReason, ResourceExhausted
from domains.memory.blobs.blob import BlobTier
from domains.memory.on_device.device_blobs import DeviceBlobs
from tests.domains.memory.blobs import MIB, sha, some_bytes

pytestmark = pytest.mark.gpu


@pytest.fixture
def held() -> DeviceBlobs:
    return DeviceBlobs(torch.device("cuda:0"))


@pytest.mark.parametrize("tier", [BlobTier.DEVICE, BlobTier.PINNED_HOST])
def test_bytes_come_back_from_either_tier(held: DeviceBlobs, tier: BlobTier) -> None:
    data = some_bytes(3 * MIB + 5)
    held.allocate("b", tier, len(data), 4096)
    for offset in range(0, len(data), MIB):
        held.write("b", offset, data[offset : offset + MIB])
    assert held.view("b").data_ptr() % 4096 == 0
    assert held.view("b").is_cuda == (tier is BlobTier.DEVICE)
    assert held.view("b").is_pinned() == (tier is BlobTier.PINNED_HOST)
    assert held.read("b", MIB - 1, 10) == data[MIB - 1 : MIB + 9]
    assert held.sha256("b", 0, len(data)) == sha(data)


def test_memory_is_live_while_the_blob_is_there(held: DeviceBlobs) -> None:
    before = torch.cuda.memory_allocated(held.device)
    held.allocate("b", BlobTier.DEVICE, 64 * MIB)
    assert (
        torch.cuda.memory_allocated(held.device) - before
        >= sum(owner.live_bytes for owner in held.owners())
        == 64 * MIB
    )
    held.free("b")
    assert torch.cuda.memory_allocated(held.device) == before


def test_more_than_the_device_has_is_refused_with_need_and_room(held: DeviceBlobs) -> None:
    with pytest.raises(ResourceExhausted) as told:
        held.allocate("b", BlobTier.DEVICE, 1 << 50)
    assert told.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert 0 < int(told.value.facts["available_bytes"]) < 1 << 50
