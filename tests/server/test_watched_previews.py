"""Previews of jobs that another client submitted."""

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from deviceops.inference.v1 import generation_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, LONG_STEPS, kind, picture
from tests.server.harness import RunningServer, running_server

QUIET_STEPS = 20
"""So many progress events without a preview among them: none is made any more."""


def watched(server: RunningServer, job_id: str, **previews: int) -> Any:
    """WatchJob with a wish, as a call to iterate or leave."""
    wish = generation_pb2.PreviewOptions(**previews)
    request = processing_service_pb2.WatchJobRequest(job_id=job_id, previews=wish)
    return server.processing.WatchJob(request, timeout=CALL_S)


def is_preview(update: Any) -> bool:
    return kind(update) == "preview"


def quiet(call: Iterator[Any]) -> bool:
    """Whether previews end before the job does."""
    without = 0
    for update in call:
        without = 0 if is_preview(update) else without + asking.denoising(update)
        if without == QUIET_STEPS:
            return True
    return False


def test_a_watcher_starts_previews_and_the_last_one_to_leave_ends_them(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=LONG_STEPS))
    silent = asking.follow(server, job_id)
    try:
        assert not any(is_preview(update) for update in itertools.islice(silent, 30))
        first, second = (watched(server, job_id, every_steps=n, max_edge_px=32) for n in (1, 3))
        preview = asking.until(first, is_preview).event.preview
        assert (preview.media_type, preview.data[:2]) == ("image/jpeg", b"\xff\xd8")
        assert (preview.size.width_px, preview.size.height_px) == (32, 32)
        asking.until(second, is_preview)
        first.cancel()
        # One watcher is left, and everybody sees its previews.
        for _ in range(3):
            asking.until(second, is_preview)
        asking.until(silent, is_preview)
        second.cancel()
        assert quiet(silent)
    finally:
        silent.cancel()
        asking.cancel(server, job_id)
    assert kind(asking.watch(server, job_id)[-1]) == "cancelled"


def test_the_picture_is_the_same_watched_or_not(server: RunningServer) -> None:
    def made(job_id: str) -> list[str]:
        return [image.file.sha256 for image in asking.job_of(server, job_id).generation_result.images]

    asked = asking.exact_picture(steps=12, seed=77)
    alone = asking.submit(server, asked)
    asking.watch(server, alone)
    with asking.occupied(server) as (blocker, _):
        seen = asking.submit(server, asked)
        call = watched(server, seen, every_steps=1)
        next(call)
        asking.cancel(server, blocker)
        updates = list(call)
    assert any(map(is_preview, updates))
    assert kind(updates[-1]) == "succeeded"
    assert len(made(seen)) == 1
    assert made(seen) == made(alone)


@pytest.mark.parametrize(
    ("previews", "fields"),
    [
        ({"every_steps": -1}, ["previews.every_steps"]),
        ({"every_steps": 1001, "max_edge_px": 8}, ["previews.every_steps", "previews.max_edge_px"]),
    ],
)
def test_a_wish_out_of_range_is_refused(server: RunningServer, previews: dict[str, int], fields: list[str]) -> None:
    refusal = asking.refused(lambda: watched(server, "job-none", **previews))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, fields)


def test_the_servers_setting_gives_small_ones_to_those_who_say_nothing() -> None:
    settings = {"DEVICEOPS_DEFAULT_PREVIEWS_EVERY_STEPS": "2", "DEVICEOPS_DEFAULT_PREVIEW_EDGE_PX": "16"}
    with running_server("--device", "cpu", environment=settings) as server:
        job_id = asking.submit(server, picture(steps=LONG_STEPS))
        call = asking.follow(server, job_id)
        preview = asking.until(call, is_preview).event.preview
        assert (preview.size.width_px, preview.step % 2) == (16, 0)
        call.cancel()
        # One who wants none starts none, and sees the last one that was made at most.
        none = watched(server, job_id)
        assert quiet(none)
        none.cancel()
        # A door's caller says in the generation itself what it wants.
        updates = list(asking.generate(server, picture(steps=6)))
        assert not any(map(is_preview, updates))
