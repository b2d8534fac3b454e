"""What a simulated device says of its memory: also what came and went between two looks."""

import pytest

from domains.device.simulated.script import SimDevice
from domains.errors import ResourceExhausted
from domains.inference.on_device.simulated.memory_book import MemoryBook
from domains.memory.measure import MemoryMeasure


def test_the_peak_is_seen_between_two_measurements() -> None:
    book = MemoryBook(SimDevice(id="sim-0", memory_bytes=1000, runtime_bytes=100))
    book.hold("job", 600)
    book.free("job")
    measured = book.measured(MemoryMeasure(time_s=0.0))
    assert (measured.live_bytes, measured.peak_live_bytes) == (100, 700)
    with pytest.raises(ResourceExhausted):
        book.hold("job", 901)
    assert book.measured(MemoryMeasure(time_s=0.0)).peak_live_bytes == 700
