"""A model of random weights on disk."""

from pathlib import Path

import pytest

from domains.model.model import Model
from tests.domains.inference.on_device.tiny_model import write_tiny_model


@pytest.fixture
def tiny(tmp_path: Path) -> Model:
    """Written anew for each test, which may damage it."""
    return write_tiny_model(tmp_path / "tiny")
