"""Wishes for previews: the finest counts, as long as somebody has it."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from domains.inference.generation import Previews
from domains.processing.jobs.preview_wishes import PreviewWishes, finest
from domains.processing.workers.worker import GenerateOrder
from tests.domains.processing.dispatch_bench import DispatchBench

NONE = Previews()
COARSE, FINE = Previews(every_steps=10, max_edge_px=64), Previews(every_steps=2, max_edge_px=32)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[DispatchBench]:
    bench = DispatchBench(tmp_path)
    yield bench
    await bench.close()


def test_the_smallest_interval_and_the_longest_edge_of_those_that_want_any() -> None:
    assert finest() == finest(NONE, Previews(max_edge_px=512)) == NONE
    assert finest(NONE, COARSE) == COARSE
    assert finest(COARSE, FINE, Previews(max_edge_px=512)) == Previews(every_steps=2, max_edge_px=64)


def test_a_wish_counts_until_it_is_taken_back() -> None:
    wishes = PreviewWishes()
    heard: list[str] = []
    wishes.listeners.append(heard.append)
    leave_first, leave_second = wishes.join("a", FINE), wishes.join("a", FINE)
    assert (wishes.of("a", NONE), wishes.of("b", NONE)) == (FINE, NONE)
    leave_first()
    assert wishes.of("a", COARSE) == Previews(every_steps=2, max_edge_px=64)
    leave_second()
    assert wishes.of("a", COARSE) == COARSE
    wishes.join("a", NONE)()
    assert heard == ["a"] * 4


async def test_the_order_of_a_job_says_what_is_wanted_and_the_worker_hears_of_changes(bench: DispatchBench) -> None:
    wishes = bench.wishes
    job_id = bench.submit()
    leave = wishes.join(job_id, COARSE)
    await bench.at_work(job_id)
    (order,) = bench.worker.orders
    assert isinstance(order, GenerateOrder)
    assert (order.previews, order.given.resolved.previews) == (COARSE, NONE)
    assert bench.worker.shown == []
    leave()
    wishes.join(job_id, FINE)
    assert bench.worker.shown == [(job_id, NONE), (job_id, FINE)]
    await bench.finish(job_id)
    await bench.dispatcher.idle()
    wishes.join(job_id, COARSE)
    assert len(bench.worker.shown) == 2
