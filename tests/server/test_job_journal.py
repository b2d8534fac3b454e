"""The journal of a job as its watchers see it: every rule of the contract's "One unit of long work"."""

import grpc
import pytest

from deviceops.inference.v1 import inference_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.server import asking
from tests.server.asking import ENDINGS, LONG_STEPS, kind, kinds, picture
from tests.server.harness import RunningServer


@pytest.fixture(scope="module")
def ended(server: RunningServer) -> list[asking.Update]:
    """The journal of a job with previews and two pictures, watched live from its start."""
    return asking.watch(server, asking.submit(server, picture(steps=4, count=2, previews=1)))


def test_sequences_rise_from_one(ended: list[asking.Update]) -> None:
    sequences = [update.event.sequence for update in ended]
    assert sequences[0] == 1
    assert sequences == sorted(set(sequences))


def test_the_first_event_is_queued_and_carries_the_jobs_id(server: RunningServer, ended: list[asking.Update]) -> None:
    first = ended[0].event
    assert kind(ended[0]) == "queued"
    assert asking.job_of(server, first.job_id).id == first.job_id


def test_there_is_one_ending_event_and_it_is_the_last(ended: list[asking.Update]) -> None:
    assert [name for name in kinds(ended) if name in ENDINGS] == ["succeeded"]
    assert kind(ended[-1]) == "succeeded"


def test_stages_come_in_the_order_of_the_work(ended: list[asking.Update]) -> None:
    stages = [update.event.stage_started.stage for update in ended if kind(update) == "stage_started"]
    order = ["loading", "conditioning", "denoising", "decoding", "encoding"]
    assert set(order[1:]) <= set(stages) <= set(order)
    first_times = [stages.index(stage) for stage in order if stage in stages]
    assert first_times == sorted(first_times)


def test_progress_never_falls(ended: list[asking.Update]) -> None:
    told = [update.event.progress for update in ended if kind(update) == "progress"]
    assert told
    ratios = [progress.completed_ratio for progress in told if progress.HasField("completed_ratio")]
    assert ratios == sorted(ratios)
    assert all(0 <= ratio <= 1 for ratio in ratios)
    steps = [progress.completed for progress in told if progress.stage == "denoising"]
    assert steps == sorted(steps)
    assert all(progress.completed <= progress.total for progress in told)


def test_event_times_never_go_back(ended: list[asking.Update]) -> None:
    times = [update.event.event_time.ToNanoseconds() for update in ended]
    assert times == sorted(times)


def test_each_picture_is_told_once_beside_its_event_and_again_in_the_result(ended: list[asking.Update]) -> None:
    ready = [update for update in ended if kind(update) == "output_ready"]
    assert [update.event.output_ready.index for update in ready] == [0, 1]
    assert {update.event.output_ready.total for update in ready} == {2}
    assert [update.image for update in ready] == list(ended[-1].generation_result.images)


def test_the_end_carries_a_receipt(ended: list[asking.Update]) -> None:
    receipt = ended[-1].event.succeeded.receipt
    assert {"conditioning", "denoising", "decoding", "encoding"} <= {timing.stage for timing in receipt.stages}
    assert receipt.steps_executed == 4
    assert receipt.attempts == 1
    assert receipt.device_id == "cpu"
    assert receipt.run_time.ToNanoseconds() > 0
    assert not receipt.HasField("peak_device_bytes"), "a CPU has no device memory of its own to measure"


def test_watching_an_ended_job_replays_its_durable_events(server: RunningServer, ended: list[asking.Update]) -> None:
    again = asking.watch(server, ended[0].event.job_id)
    assert asking.durable(again) == asking.durable(ended)
    assert set(kinds(again)).isdisjoint(asking.NEWEST_ONLY)


def test_watching_after_a_sequence_gives_exactly_the_rest(server: RunningServer, ended: list[asking.Update]) -> None:
    job_id = ended[0].event.job_id
    whole = asking.watch(server, job_id)
    for position in range(whole[-1].event.sequence + 1):
        rest = [update for update in whole if update.event.sequence > position]
        assert asking.watch(server, job_id, position) == rest


@pytest.mark.parametrize("distance", [1, 1000])
def test_a_sequence_that_the_job_never_had_is_refused(
    server: RunningServer, ended: list[asking.Update], distance: int
) -> None:
    after = ended[-1].event.sequence + distance
    refusal = asking.refused(lambda: asking.follow(server, ended[0].event.job_id, after))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["after_sequence"])


def test_a_negative_sequence_is_refused(server: RunningServer, ended: list[asking.Update]) -> None:
    refusal = asking.refused(lambda: asking.follow(server, ended[0].event.job_id, -1))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["after_sequence"])


def test_two_watchers_and_the_door_see_the_same_bytes(server: RunningServer) -> None:
    call = asking.generate(server, picture(steps=5, previews=1))
    first = next(call)
    job_id = first.event.job_id
    door, one, two = asking.together(
        lambda: [first, *call], lambda: asking.watch(server, job_id), lambda: asking.watch(server, job_id)
    )
    assert asking.durable(one) == asking.durable(two) == asking.durable(asking.journal_of(door))
    by_sequence: dict[int, bytes] = {}
    for update in [*asking.journal_of(door), *one, *two]:
        seen = by_sequence.setdefault(update.event.sequence, update.SerializeToString(deterministic=True))
        assert update.SerializeToString(deterministic=True) == seen


def test_the_bytes_on_the_wire_are_the_same_through_both_doors(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(seed=5), request_id="same-bytes")
    asking.watch(server, job_id)
    joined = inference_service_pb2.GenerateRequest(generation=picture(seed=5), request_id="same-bytes")
    watched = processing_service_pb2.WatchJobRequest(job_id=job_id)
    through_door = raw(server, "deviceops.inference.v1.InferenceService/Generate", joined.SerializeToString())
    through_watch = raw(server, "deviceops.processing.v1.ProcessingService/WatchJob", watched.SerializeToString())
    assert through_door == through_watch
    assert through_door


def raw(server: RunningServer, method: str, request: bytes) -> list[bytes]:
    """A server stream without any decoding."""
    call = server.channel.unary_stream(f"/{method}")
    return list(call(request, timeout=asking.CALL_S))


def test_a_watcher_that_never_reads_stops_neither_the_job_nor_the_others(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=24, previews=1))
    # Nothing is ever taken from these streams; flow control holds their messages back.
    sleepers = [asking.follow(server, job_id) for _ in range(5)]
    try:
        seen = asking.watch(server, job_id)
        assert kind(seen[-1]) == "succeeded"
    finally:
        for sleeper in sleepers:
            sleeper.cancel()


def test_a_watcher_who_wakes_late_has_missed_only_progress(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=10))
    late = asking.follow(server, job_id)
    early = asking.watch(server, job_id)
    assert asking.durable(asking.journal_of(late)) == asking.durable(early)


def test_an_unknown_job_cannot_be_watched(server: RunningServer) -> None:
    refusal = asking.refused(lambda: asking.follow(server, "job-none"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    assert refusal.facts == {"job_id": "job-none"}


def test_leaving_a_watch_leaves_the_job_alone(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=8))
    asking.wait_for_step(server, job_id)
    assert kind(asking.watch(server, job_id)[-1]) == "succeeded"


def test_leaving_the_door_cancels_the_job(server: RunningServer) -> None:
    call = asking.generate(server, picture(steps=LONG_STEPS))
    job_id = asking.until(call, asking.denoising).event.job_id
    call.cancel()
    end = asking.watch(server, job_id)[-1]
    assert kind(end) == "cancelled"
    assert end.event.cancelled.cause == "the call that submitted it was left"


def test_leaving_a_detached_door_does_not(server: RunningServer) -> None:
    call = asking.generate(server, picture(steps=6), detached=True)
    job_id = asking.until(call, asking.denoising).event.job_id
    call.cancel()
    assert kind(asking.watch(server, job_id)[-1]) == "succeeded"
