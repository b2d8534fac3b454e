"""The watch over the model roots: what it scans, when, and what it leaves until it has settled."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from domains.errors import ErrorReason
from domains.model.catalogue import Catalogue
from domains.model.model import ModelState
from domains.model.roots import Roots
from domains.model.roots_look import look_at
from domains.model.roots_watch import RootsWatch
from domains.storage import open_database
from tests.domains.model.folders import write_model
from tests.domains.model.headers import write_published

VAE = "vae/diffusion_pytorch_model.safetensors"
SETTLE_S = 3600.0
"""Longer than a test: what was written in it is young."""


class Watched:
    """A root, a catalogue and the watch over both."""

    def __init__(self, root: Path, database: sqlite3.Connection) -> None:
        self.root = root
        roots = Roots([root])
        self.catalogue = Catalogue(database, roots, "emoji-sd")
        self.watch = RootsWatch(self.catalogue, roots)

    def states(self) -> dict[str, ModelState]:
        return {model.id: model.state for model in self.catalogue.list() if not model.embedded}

    async def look(self, settle_s: float = 0.0) -> bool:
        """Whether the look led to a scan."""
        return await self.watch.look(settle_s) is not None


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    for name in ("state", "root"):
        (tmp_path / name).mkdir()
    with closing(open_database(tmp_path / "state")) as database:
        yield Watched(tmp_path / "root", database)


async def test_the_first_look_scans_and_no_further_one_until_something_changes(watched: Watched) -> None:
    write_model(watched.root / "owl")
    assert await watched.look()
    assert watched.states() == {"owl": ModelState.AVAILABLE}
    assert not await watched.look()


async def test_a_single_file_is_found_when_it_is_complete(watched: Watched) -> None:
    assert await watched.look()
    path = write_published(watched.root / "vae.safetensors", "sd_vae")
    assert not await watched.look(SETTLE_S)
    assert await watched.look()
    assert watched.states() == {"vae": ModelState.INCOMPATIBLE}
    path.unlink()
    assert await watched.look()
    assert watched.states() == {"vae": ModelState.MISSING}


async def test_a_folder_that_is_still_written_is_judged_when_two_looks_agree(watched: Watched) -> None:
    write_model(watched.root / "old")
    assert await watched.look()
    whole = write_model(watched.root.parent / "whole")
    weights = (whole / VAE).read_bytes()
    shutil.copytree(whole, watched.root / "new")
    for size in (0, len(weights) // 2):
        (watched.root / "new" / VAE).write_bytes(weights[:size])
        assert not await watched.look(), "its size has changed since the look before"
        assert watched.states() == {"old": ModelState.AVAILABLE}
    (watched.root / "new" / VAE).write_bytes(weights)
    assert not await watched.look()
    assert await watched.look()
    assert watched.states() == {"old": ModelState.AVAILABLE, "new": ModelState.AVAILABLE}


async def test_at_the_start_a_folder_that_was_just_written_waits_and_the_others_do_not(watched: Watched) -> None:
    write_model(watched.root / "new")
    assert await watched.look(SETTLE_S)
    assert watched.states() == {}
    assert await watched.look(SETTLE_S)
    assert watched.states() == {"new": ModelState.AVAILABLE}


async def test_a_known_model_that_is_written_anew_stays_as_it_was_until_it_has_settled(watched: Watched) -> None:
    write_model(watched.root / "owl")
    await watched.look()
    (watched.root / "owl" / VAE).write_bytes(b"half")
    write_model(watched.root / "late")
    assert not await watched.look()
    (watched.root / "owl" / VAE).write_bytes(b"half and")
    assert await watched.look(), "the other one has settled"
    assert watched.states() == {"late": ModelState.AVAILABLE, "owl": ModelState.AVAILABLE}
    assert await watched.look()
    assert watched.states() == {"late": ModelState.AVAILABLE, "owl": ModelState.CORRUPT}


async def test_a_model_whose_folder_is_gone_is_missing_at_the_next_look(watched: Watched) -> None:
    write_model(watched.root / "owl")
    await watched.look()
    shutil.rmtree(watched.root / "owl")
    assert await watched.look()
    assert watched.states() == {"owl": ModelState.MISSING}


async def test_what_cannot_be_taken_is_kept_with_its_reason_until_it_is_gone(watched: Watched, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (watched.root / "leads-out").symlink_to(outside)
    await watched.look()
    (problem,) = watched.catalogue.not_taken
    assert (problem.path, problem.reason) == (str(watched.root / "leads-out"), ErrorReason.PATH_OUTSIDE_ROOTS)
    (watched.root / "leads-out").unlink()
    assert await watched.look()
    assert watched.catalogue.not_taken == ()


async def test_a_scan_that_a_caller_asks_for_cancels_one_that_no_caller_waits_for(watched: Watched) -> None:
    write_model(watched.root / "owl")
    watched.catalogue._asked = 1  # pyright: ignore[reportPrivateUsage]  # a caller waits
    report = await watched.watch.look(0.0)
    assert report
    assert report.cancelled
    watched.catalogue._asked = 0  # pyright: ignore[reportPrivateUsage]  # and has been answered
    assert await watched.look(), "it was not finished, so it is done again"
    assert watched.states() == {"owl": ModelState.AVAILABLE}


def test_a_look_sees_a_copy_that_keeps_the_old_times(tmp_path: Path) -> None:
    folder, roots = write_model(tmp_path / "root" / "owl"), Roots([tmp_path / "root"])
    before = look_at(roots)
    assert look_at(roots) == before
    status = (folder / VAE).stat()
    data = bytearray((folder / VAE).read_bytes())
    data[-1] ^= 1
    (folder / VAE).write_bytes(data)
    os.utime(folder / VAE, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look_at(roots) != before


async def test_looks_come_one_after_the_other_and_a_trouble_is_logged_once(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, pauses_s = list[float](), list[float]()
    answers: list[Exception | None] = [OSError("full"), OSError("full"), OSError("gone"), None, OSError("gone"), None]

    async def look(settle_s: float) -> None:
        looks.append(settle_s)
        if (problem := answers[len(looks) - 1]) is not None:
            raise problem

    async def sleep(seconds: float) -> None:
        pauses_s.append(seconds)
        watched.watch._look_s = 3.0  # pyright: ignore[reportPrivateUsage]
        if len(pauses_s) == len(answers):
            raise asyncio.CancelledError

    monkeypatch.setattr(watched.watch, "look", look)
    monkeypatch.setattr("domains.model.roots_watch.asyncio.sleep", sleep)
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await watched.watch.keep_up(2.0)
    assert looks == [2.0] * 6
    assert [line["event"] for line in lines] == ["the model roots could not be scanned"] * 3
    assert pauses_s == [2.0, *[pytest.approx(60.0)] * 5], "a slow disk is looked at in a twentieth of the time"
