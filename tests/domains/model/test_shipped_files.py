"""What lies in the folder of shipped files, and may."""

from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path, PurePosixPath

import domains.model.shipped_files

SHIPPED = Path(domains.model.shipped_files.__file__).parent / "shipped"
LICENCES = SHIPPED / "LICENSES.md"


def listed() -> list[str]:
    """The patterns of the table's first column; a bare name is beside the one before it."""
    found: list[str] = []
    for row in LICENCES.read_text("utf-8").splitlines():
        cell = row.split("|")[1] if row.startswith("| `") else ""
        names = [part for part in cell.split("`") if part.strip(" ,")]
        found += names[:1]
        found += [str(PurePosixPath(first).parent / one) if "/" not in one else one for first, one in pairwise(names)]
    return found


def test_every_shipped_file_is_listed_with_its_licence() -> None:
    patterns = listed()
    files = [path.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob("*") if path.is_file() and path != LICENCES]
    assert len(files) > 30
    assert [
        one for one in files if "LICENSE" not in one and not any(fnmatch(one, pattern) for pattern in patterns)
    ] == []
    assert [pattern for pattern in patterns if not any(fnmatch(one, pattern) for one in files)] == []
