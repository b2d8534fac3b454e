"""What the server stores is readable by its own user alone, whatever the umask says."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from domains.memory.blobs.files import BlobFiles
from domains.storage import DATABASE, open_database, owned
from server.cli.service.start_checks import made

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no modes; the profile's folder is private there"
)


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def others_may(folder: Path) -> int:
    return folder.stat().st_mode & 0o077


def test_the_state_folder_is_private(tmp_path: Path) -> None:
    with owned(tmp_path / "state"):
        assert others_may(tmp_path / "state") == 0
    assert list(made(tmp_path / "checked")) == []
    assert others_may(tmp_path / "checked") == 0


def test_the_database_and_its_log_are_private_in_a_folder_that_others_may_look_into(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(0o755)
    with owned(folder), closing(open_database(folder)) as connection:
        connection.execute("CREATE TABLE t (x)")
        files = sorted(path for path in folder.iterdir() if path.name.startswith(DATABASE))
        assert [path.name.removeprefix(DATABASE) for path in files] == ["", "-shm", "-wal"]
        assert [others_may(path) for path in files] == [0, 0, 0]


def test_the_folders_of_pictures_are_private(tmp_path: Path) -> None:
    files = BlobFiles(tmp_path / "blobs")
    picture = files.path(files.write(b"a picture"))
    assert others_may(tmp_path / "blobs") == 0
    assert others_may(picture.parent) == 0
