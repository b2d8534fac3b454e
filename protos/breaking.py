"""Compares the contract with that of the last tag and refuses what would break a client built with it.

python protos/breaking.py     exit 1 if a package broke; without any tag there is no promise yet, and it says so
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def last_tag(root: Path = ROOT) -> str:
    """The newest tag that this commit descends from; empty before the first one."""
    command = ["git", "describe", "--tags", "--abbrev=0", "--match", "v*"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def broken(root: Path, tag: str) -> str:
    """What `buf breaking` says against a tag; empty: every client of that tag still works.

    Raises CalledProcessError where buf cannot compare at all.
    """
    buf = str(Path(sys.executable).with_name("buf"))
    command = [buf, "breaking", "--against", f".git#tag={tag}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    # 100: buf compared and found breaking changes; other codes are failures of the comparison.
    if done.returncode not in (0, 100):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


def main() -> int:
    """The exit code."""
    tag = last_tag()
    if not tag:
        print("no version is tagged yet: the contract may still change freely")
        return 0
    found = broken(ROOT, tag)
    print(found or f"nothing that {tag} promised is broken")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
