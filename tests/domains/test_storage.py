"""The state folder's database."""

import sqlite3
from pathlib import Path

from domains import storage


def test_a_checkpoint_moves_the_log_into_the_file(tmp_path: Path) -> None:
    database = storage.open_database(tmp_path)
    database.execute("CREATE TABLE told (text)")
    storage.checkpoint(tmp_path)
    with sqlite3.connect(f"file:{tmp_path / storage.DATABASE}?immutable=1", uri=True) as file:
        assert file.execute("SELECT count(*) FROM told").fetchone() == (0,)
    database.close()


def test_a_checkpoint_that_cannot_be_made_ends_nothing(tmp_path: Path) -> None:
    storage.checkpoint(tmp_path / "not there")
