"""A load of what the RAM tier holds reads no file: its reads are counted."""

import os
import sys
from pathlib import Path

import pytest

from domains.model.host_models import HostModels
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.model.on_device import load
from domains.model.weight_file import WeightFile
from tests.domains.model.folders import age
from tests.domains.model.test_host_models import bring, not_cached

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is cached")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all reads of weights."""
    sizes: list[int] = []
    plain = WeightFile.read_at

    begin = WeightFile.__init__

    def without_read_ahead(self: WeightFile, model: Model, path: str) -> None:
        """The system reads a small file whole when its header is read; what is neither mapped nor locked goes again."""
        begin(self, model, path)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def counted(self: WeightFile, at: int, memory: memoryview) -> None:
        sizes.append(len(memory))
        plain(self, at, memory)

    monkeypatch.setattr(WeightFile, "read_at", counted)
    monkeypatch.setattr(WeightFile, "__init__", without_read_ahead)
    return sizes


async def test_a_load_from_the_ram_tier_reads_no_file(tiny: Model, reads: list[int]) -> None:
    age(Path(tiny.folder))
    if not not_cached(tiny):
        pytest.skip("this file system keeps its files in memory")
    load(tiny, "cpu")
    cold = sum(reads)
    assert cold > 0
    assert not_cached(tiny)
    tier = HostModels(LoadedModels())
    await bring(tier, tiny)
    reads.clear()
    load(tiny, "cpu")
    assert reads == []
