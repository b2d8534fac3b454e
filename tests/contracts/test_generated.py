"""generated/ is what the protos make, and the check that says so can fail."""

import subprocess
import sys
from pathlib import Path

from protos.generate import ROOT, Difference, Skipped, apply, compare


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / "python" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "python" / name).write_text(text)


def test_generated_is_current() -> None:
    command = [sys.executable, "protos/generate.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_drifted_missing_and_orphaned_files_are_named(tmp_path: Path) -> None:
    fresh, kept = tmp_path / "fresh", tmp_path / "kept"
    write(fresh, same="1", drifted="1", missing="1")
    write(kept, same="1", drifted="2", orphan="1", skipped="1")
    found = compare(fresh, kept, [Skipped("python/skipped", "a tool")])
    assert found == [
        Difference("drifted", "python/drifted"),
        Difference("missing", "python/missing"),
        Difference("orphaned", "python/orphan"),
    ]


def test_generating_removes_orphans_and_their_folders(tmp_path: Path) -> None:
    fresh, kept = tmp_path / "fresh", tmp_path / "kept"
    write(fresh, same="1")
    write(kept, same="2", **{"gone/orphan": "1"})
    apply(compare(fresh, kept, []), fresh, kept)
    assert compare(fresh, kept, []) == []
    assert not (kept / "python" / "gone").exists()
