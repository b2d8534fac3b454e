"""How long a cancelled job goes on: from the call of CancelJob to the event that proves it, in steps of that very job."""

import itertools
import statistics
import time

from bench.measure import Spread, result
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.server.harness import RunningServer, running_server

ROUNDS = 40
TARGET_STEPS = 1.2
SEEN_STEPS = 6
"""Steps to watch before the cancellation: the job's own pace."""


def steps_until_stopped(server: RunningServer) -> float:
    """Cancel one job in mid-denoise."""
    generation = generation_pb2.Generation(prompt="a red apple", sampling=sampling_pb2.Sampling(steps=100))
    call = server.inference.Generate(inference_service_pb2.GenerateRequest(generation=generation))
    times: list[float] = []
    asked = 0.0
    for response in call:
        event = response.event
        if event.progress.stage == "denoising" and event.progress.completed:
            times.append(time.perf_counter())
        if len(times) == SEEN_STEPS and not asked:
            # Somewhere within a step, not always right at its beginning.
            asked = time.perf_counter()
            server.processing.CancelJob(processing_service_pb2.CancelJobRequest(job_id=event.job_id))
        if event.HasField("cancelled"):
            stopped = time.perf_counter()
            pace = statistics.median(later - earlier for earlier, later in itertools.pairwise(times[1:]))
            return (stopped - asked) / pace
    raise AssertionError("the job was not cancelled")


def main() -> int:
    """Print the 99th percentile against the target."""
    with running_server("--device", "cpu") as server:
        steps_until_stopped(server)
        samples = sorted(steps_until_stopped(server) for _ in range(ROUNDS))
    p99 = statistics.quantiles(samples, n=100, method="inclusive")[98]
    return result(
        "cancel",
        Spread(median=p99 / TARGET_STEPS, low=samples[0] / TARGET_STEPS, high=samples[-1] / TARGET_STEPS),
        target=1.0,
        better="lower",
        peer=f"a p99 of {TARGET_STEPS} steps",
        details={"rounds": ROUNDS, "median steps": statistics.median(samples), "p99 steps": p99},
    )


if __name__ == "__main__":
    raise SystemExit(main())
