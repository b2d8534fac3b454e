"""What a tag promised stays: the check against the last tag notices a broken client."""

import shutil
import subprocess
from pathlib import Path

import pytest

from protos.breaking import broken, last_tag
from protos.generate import ROOT

BEFORE = """syntax = "proto3";

package example.v1;

// A thing.
message Thing {
  // Its name.
  string name = 1;
}
"""


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """A repository with one message, tagged v1.0.0."""
    (tmp_path / "protos" / "example" / "v1").mkdir(parents=True)
    (tmp_path / "protos" / "example" / "v1" / "thing.proto").write_text(BEFORE)
    shutil.copyfile(ROOT / "buf.yaml", tmp_path / "buf.yaml")
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "one"], ["tag", "v1.0.0"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def rewrite(root: Path, before: str, after: str) -> None:
    file = root / "protos" / "example" / "v1" / "thing.proto"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))


def test_an_added_field_breaks_nothing(tagged: Path) -> None:
    rewrite(tagged, "string name = 1;", "string name = 1;\n  // Its size.\n  int64 size_bytes = 2;")
    assert broken(tagged, last_tag(tagged)) == ""


@pytest.mark.parametrize("change", ["string name = 2;", "int64 name = 1;", "string title = 1;"])
def test_a_changed_field_is_named(tagged: Path, change: str) -> None:
    rewrite(tagged, "string name = 1;", change)
    assert "thing.proto" in broken(tagged, last_tag(tagged))


def test_before_the_first_tag_nothing_is_promised(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert last_tag(tmp_path) == ""
