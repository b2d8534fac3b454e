"""The list of reasons that no test in C# raises stays true."""

import re
from pathlib import Path

from protos.generate import ROOT

LISTED = [
    line.split()[0]
    for line in (Path(__file__).parent / "unraised.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
FAULT = "INVARIANT_BROKEN"
"""The server has it in many places, and reaches none of them."""


def test_the_server_raises_no_reason_that_c_sharp_does_not_see() -> None:
    named: set[str] = set()
    for folder in ("domains", "server"):
        for path in set((ROOT / folder).rglob("*.py")) - {ROOT / "domains" / "errors.py"}:
            named.update(re.findall(r"\bErrorReason\.([A-Z_]+)\b", path.read_text("utf-8")))
    assert named.intersection(LISTED) <= {FAULT}
    assert len(named) > 40
