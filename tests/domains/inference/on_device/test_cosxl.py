"""What makes a model one of CosXL Edit is told by its model_index.json alone, which the worker reads at a load."""

import json
import os
from pathlib import Path

import pytest

from domains.inference.on_device.families.sdxl import is_cosxl

INDEX = "model_index.json"


@pytest.mark.parametrize("told", [True, False])
def test_the_index_is_read_also_through_the_link_of_a_download_cache(tmp_path: Path, told: bool) -> None:
    (tmp_path / "blob").write_text(json.dumps({"is_cosxl_edit": told}))
    (tmp_path / INDEX).symlink_to(tmp_path / "blob")
    assert is_cosxl(tmp_path) is told


def test_a_pipe_a_device_or_a_large_file_in_its_place_hangs_and_fills_nothing(tmp_path: Path) -> None:
    assert not is_cosxl(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    for other in ("pipe", "/dev/zero", "large"):
        (tmp_path / INDEX).unlink(missing_ok=True)
        (tmp_path / INDEX).symlink_to(tmp_path / other)
        assert not is_cosxl(tmp_path)
