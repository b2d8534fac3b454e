"""Reading and writing at a place, as on this system and as on Windows, which has no call for it."""

import os
import runpy
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from domains import descriptors


@pytest.fixture(params=["here", "windows"])
def words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The module's names, as it has them on that system."""
    if request.param == "windows":
        monkeypatch.setattr(sys, "platform", "win32")
        for name in ("O_BINARY", "O_NOINHERIT"):
            monkeypatch.setattr(os, name, 0, raising=False)
    return runpy.run_path(descriptors.__file__)


@pytest.fixture
def descriptor(words: dict[str, Any], tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | words["OPEN_FLAGS"], 0o600)
    yield opened
    os.close(opened)


def test_many_threads_read_and_write_each_at_its_place(words: dict[str, Any], descriptor: int) -> None:
    pieces = [bytes([number]) * 4096 for number in range(256)]
    words["take_room"](descriptor, 4096 * 256)

    def write_and_read(number: int) -> bytes:
        assert words["write_at"](descriptor, memoryview(pieces[number]), 4096 * number) == 4096
        return words["read_at"](descriptor, 4096, 4096 * number)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(write_and_read, range(256))) == pieces


def test_the_end_of_the_file_cuts_a_read_short(words: dict[str, Any], descriptor: int) -> None:
    words["take_room"](descriptor, 10)
    assert words["read_at"](descriptor, 100, 4) == bytes(6)
    assert words["read_at"](descriptor, 100, 10) == b""
    words["take_room"](descriptor, 0)
