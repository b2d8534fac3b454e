"""The figures behind an advice: what finished pictures cost on this device, and no other work."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from domains.device.advice import AdviceFigures
from domains.device.settings import DeviceGoal
from domains.inference.outcome import RunFinished
from domains.processing.devices import advice
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.state import JobState
from domains.progress import Receipt, Stage, StageTiming
from tests.domains.processing.dispatch_bench import DispatchBench

TIMINGS = (
    StageTiming(stage=Stage.LOADING, wall_s=100.0),
    StageTiming(stage=Stage.COMPILING, wall_s=100.0),
    StageTiming(stage=Stage.DENOISING, wall_s=9.0, device_s=6.0),
    StageTiming(stage=Stage.DECODING, wall_s=2.0),
)


async def test_only_finished_pictures_count_without_their_loading_and_each_picture_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, told = DispatchBench(tmp_path), list[AdviceFigures]()
    advisor = advice.DeviceAdvisor(bench.devices, bench.catalogue, (), bench.jobs, lambda _: None)
    finished, cancelled = bench.submit(pictures=2), bench.submit()
    bench.jobs.cancel(bench.jobs.submit(ScanWork(), JobOptions())[0].id)
    bench.dispatcher.pump()
    await bench.at_work(finished, cancelled)
    bench.jobs.cancel(cancelled)
    await bench.until(cancelled, JobState.CANCELLED)
    bench.worker.answers[finished].put_nowait(RunFinished(receipt=Receipt(timings=TIMINGS, peak_device_bytes=7)))
    await bench.until(finished, JobState.SUCCEEDED)

    def noted(device: object, figures: AdviceFigures, *_: Any) -> None:
        told.append(figures)

    monkeypatch.setattr(advice, "advise", noted)
    advisor.advise("cuda:0", DeviceGoal.LATENCY, "", bench.catalogue.default().id)
    advisor.advise("cuda:0", DeviceGoal.LATENCY, "", "")
    of_model, of_any = told
    assert [(run.seconds, run.peak_device_bytes, run.power_limit_watts) for run in of_model.runs] == [(4.0, 7, None)]
    assert of_any.runs == ()

    job = bench.jobs.get(finished)
    assert job.receipt is not None
    for seconds in range(40):
        timing = StageTiming(stage=Stage.DENOISING, wall_s=2.0 * seconds)
        receipt = replace(job.receipt, work=replace(job.receipt.work, timings=(timing,)))
        for listener in bench.jobs.listeners:
            listener(replace(job, receipt=receipt))
    advisor.advise("cuda:0", DeviceGoal.LATENCY, "", bench.catalogue.default().id)
    assert [run.seconds for run in told[-1].runs] == [*range(40 - 32, 40)], "the newest 32"
    view = bench.devices.get("cuda:0")
    settings = replace(view.settings, power_limit_watts=150.0)
    limited = replace(view, condition=replace(view.condition, settings=settings))
    for found, watts in ((limited, 150.0), (None, None)):
        monkeypatch.setattr(bench.devices, "find", lambda name, found=found: found)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        advisor._note(job)  # pyright: ignore[reportPrivateUsage]
        monkeypatch.undo()
        monkeypatch.setattr(advice, "advise", noted)
        advisor.advise("cuda:0", DeviceGoal.LATENCY, "", bench.catalogue.default().id)
        assert told[-1].runs[-1].power_limit_watts == watts
    bench.database.close()
