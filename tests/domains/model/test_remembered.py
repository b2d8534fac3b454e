"""Findings about models: found once for each model object, and the ones asked for longest ago are forgotten."""

import pytest
from msgspec.structs import replace

from domains.model.remembered import MOST, Remembered
from tests.domains.inference.on_device.requests import embedded_model

ONE = embedded_model()


class Finder:
    """Counts what it is asked."""

    def __init__(self, finds: bool = True) -> None:
        self.asked: list[tuple[str, str]] = []
        self.finds = finds
        self.known = Remembered(self.find)

    def find(self, model: object, component: str) -> str:
        self.asked.append((getattr(model, "id", ""), component))
        return f"{self.asked[-1]}" if self.finds else ""


async def test_each_component_is_found_once_until_a_scan_makes_the_model_anew() -> None:
    finder = Finder()
    for component in ("", "vae", "", "vae"):
        assert finder.known.of(ONE, component) == f"{(ONE.id, component)}"
    await finder.known.read(ONE, "vae")
    assert finder.asked == [(ONE.id, ""), (ONE.id, "vae")]
    await finder.known.read(ONE, "unet")
    assert finder.known.of(ONE, "unet") == f"{(ONE.id, 'unet')}"
    assert len(finder.asked) == 3
    changed = replace(ONE, size_bytes=1)
    await finder.known.read(changed, "vae")
    assert finder.known.of(changed, "vae")
    assert len(finder.asked) == 4


async def test_what_is_not_found_is_asked_for_again() -> None:
    finder = Finder(finds=False)
    for _ in range(2):
        assert finder.known.of(ONE) == ""
        await finder.known.read(ONE)
    assert len(finder.asked) == 4


@pytest.mark.parametrize("by_reading", [False, True])
async def test_the_findings_asked_for_last_are_kept(by_reading: bool) -> None:
    finder = Finder()
    for number in range(MOST):
        finder.known.of(ONE, f"{number}")
    finder.known.of(ONE, "0")
    if by_reading:
        await finder.known.read(ONE, "new")
    else:
        finder.known.of(ONE, "new")
    finder.asked.clear()
    for component in ("0", "new", "2"):
        finder.known.of(ONE, component)
    assert finder.asked == []
    finder.known.of(ONE, "1")
    assert finder.asked == [(ONE.id, "1")]


async def test_a_finding_that_was_replaced_counts_as_the_newest() -> None:
    finder = Finder()
    for number in range(MOST):
        finder.known.of(ONE, f"{number}")
    finder.known.of(replace(ONE, size_bytes=1), "0")
    finder.known.of(ONE, "new")
    finder.asked.clear()
    finder.known.of(ONE, "1")
    assert finder.asked == [(ONE.id, "1")], "it was the oldest"
