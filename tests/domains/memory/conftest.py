"""What the tests of blobs share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.memory.blobs.store import BlobStore
from tests.domains.memory.blobs import opened


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[BlobStore]:
    """A fresh store."""
    with opened(tmp_path) as store:
        yield store
