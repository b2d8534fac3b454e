"""Pieces that are waited for, without a busy loop."""

from dataclasses import dataclass

import pytest

from domains.model.on_device.reading import Read, followed


@dataclass
class Disk:
    """See `Ready`: passes after so many waits."""

    waits: int
    looks: int = 0

    def passed(self) -> bool:
        self.looks += 1
        return self.waits == 0

    def wait(self) -> None:
        self.waits -= 1


def test_a_piece_that_is_not_there_yet_is_waited_for_and_not_asked_for_in_a_loop() -> None:
    disk = Disk(waits=3)
    looked: list[int] = []
    followed([Read(1, disk), Read(1)], lambda: looked.append(disk.waits))
    assert (disk.waits, disk.looks) == (0, 4)
    assert looked == [3, 2, 1, 0, 0]


def test_what_is_no_longer_wanted_is_waited_for_no_more() -> None:
    disk = Disk(waits=3)

    def keep_on() -> None:
        if disk.waits == 2:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        followed([Read(1, disk), Read(1)], keep_on)
    assert disk.waits == 2
