"""The real buf, with the rules of buf.yaml, finds nothing."""

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
