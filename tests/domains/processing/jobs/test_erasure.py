"""Deleted text leaves the log of the database: deletions that wait together share one truncation."""

import asyncio
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from domains.processing.jobs.erasure import Erasure
from domains.storage import open_database


async def test_deletions_that_wait_together_share_one_truncation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_database(tmp_path)) as database:
        erasure, calls = Erasure(database, tmp_path), list[asyncio.Future[bool]]()
        begun = asyncio.Semaphore(0)

        async def truncated() -> bool:
            calls.append(asyncio.get_running_loop().create_future())
            begun.release()
            return await calls[-1]

        monkeypatch.setattr(erasure, "_truncated", truncated)
        first = asyncio.create_task(erasure.complete())
        await begun.acquire()
        others = [asyncio.create_task(erasure.complete()) for _ in range(3)]
        await asyncio.sleep(0)
        calls[0].set_result(True)
        await first
        await begun.acquire()
        assert not any(one.done() for one in others), "they were deleted after the first truncation had begun"
        calls[1].set_result(True)
        await asyncio.gather(*others)
        assert len(calls) == 2


async def test_a_truncation_that_fails_is_logged_and_the_next_deletion_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_database(tmp_path)) as database:
        erasure, answers = Erasure(database, tmp_path), [False, True]

        async def truncated() -> bool:
            return answers.pop(0)

        monkeypatch.setattr(erasure, "_truncated", truncated)
        with capture_logs() as lines:
            await erasure.complete()
            assert [line["log_level"] for line in lines] == ["warning"]
            await erasure.complete()
        assert (len(lines), answers) == (1, [])


@pytest.mark.parametrize("problem", [OSError("no disk"), RuntimeError("can't start new thread")])
async def test_a_log_that_cannot_be_synced_is_not_taken_for_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def refuse(folder: Path) -> None:
        raise problem

    with closing(open_database(tmp_path)) as database:
        monkeypatch.setattr("domains.processing.jobs.erasure.sync_log", refuse)
        erasure = Erasure(database, tmp_path)
        with capture_logs() as lines:
            await erasure.complete()
        assert [line["log_level"] for line in lines] == ["warning"]
        monkeypatch.setattr("domains.processing.jobs.erasure.sync_log", Mock())
        with capture_logs() as lines:
            await erasure.complete()
        assert lines == []


async def test_a_bug_in_a_truncation_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(folder: Path) -> None:
        raise KeyError("x")

    with closing(open_database(tmp_path)) as database:
        monkeypatch.setattr("domains.processing.jobs.erasure.sync_log", bug)
        with pytest.raises(KeyError):
            await Erasure(database, tmp_path).complete()
