"""A conversion whose result cannot become known leaves no files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domains.errors import AlreadyExists
from domains.model.conversion import Conversion
from domains.model.model import ModelLayout
from domains.processing.front.convert import ConvertRunner


@pytest.mark.parametrize("layout", [ModelLayout.FILE, ModelLayout.DIFFUSERS])
async def test_a_result_that_cannot_be_registered_goes_and_says_why(tmp_path: Path, layout: ModelLayout) -> None:
    class Taken:
        async def register(self, asked: object) -> object:
            raise AlreadyExists("the id is taken")

    nothing: Any = None
    taken: Any = Taken()
    jobs: Any = SimpleNamespace(listeners=[])
    runner = ConvertRunner(nothing, jobs)
    runner._registrations = taken  # pyright: ignore[reportPrivateUsage]
    target = tmp_path / "new"
    target.mkdir() if layout is ModelLayout.DIFFUSERS else target.write_bytes(b"x")
    asked = Conversion(model_id="m", destination=str(target))
    with pytest.raises(AlreadyExists):
        await runner._known(asked, target, layout)  # pyright: ignore[reportPrivateUsage]
    assert not target.exists()
