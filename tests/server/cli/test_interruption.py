"""Ctrl-C, cancelling from elsewhere, and a server that goes away, all with real processes."""

import signal
from pathlib import Path

import pytest
from google.protobuf import json_format

from deviceops.processing.v1 import processing_service_pb2
from server.cli.app import run
from tests.server.cli.peer import free_port
from tests.server.cli.running import SMALL, await_line, in_background
from tests.server.harness import RunningServer, running_server


@pytest.fixture(autouse=True)
def _address(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)


def _jobs(capsys: pytest.CaptureFixture[str], *flags: str) -> processing_service_pb2.ListJobsResponse:
    capsys.readouterr()
    assert run(["jobs", "--json", *flags]) == 0
    return json_format.Parse(capsys.readouterr().out, processing_service_pb2.ListJobsResponse())


def test_ctrl_c_cancels_the_job_and_shows_the_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    process = in_background("generate", "an owl", *SMALL, "--steps", "900", "--out", str(tmp_path / "owl.png"))
    await_line(process, "denoising")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Cancelled in stage denoising" in rest
    assert "Traceback" not in rest
    assert not list(tmp_path.iterdir())
    (newest,) = _jobs(capsys, "--limit", "1", "--state", "cancelled").jobs
    assert newest.spec.HasField("generation")


def test_cancel_waits_for_the_proof_and_a_watcher_hears_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    process = in_background("generate", "an owl", *SMALL, "--steps", "900", "--out", str(tmp_path / "owl.png"))
    await_line(process, "denoising")
    (running,) = _jobs(capsys, "--state", "running").jobs
    assert run(["cancel", running.id]) == 0
    assert capsys.readouterr().out.startswith("Cancelled in stage denoising")
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 1
    assert running.id in rest


def test_a_paused_job_waits_until_it_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    process = in_background("generate", "an owl", *SMALL, "--steps", "40", "--out", str(tmp_path / "owl.png"))
    await_line(process, "denoising")
    (running,) = _jobs(capsys, "--state", "running").jobs
    assert run(["job", "pause", running.id, "--cause", "lunch"]) == 0
    assert f"Job {running.id} is paus" in capsys.readouterr().err
    await_line(process, "paused")
    (paused,) = _jobs(capsys, "--state", "paused").jobs
    assert paused.id == running.id
    assert run(["job", "resume", running.id]) == 0
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "owl.png").exists()


def test_ctrl_c_on_a_watch_leaves_the_job_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    making = in_background("generate", "an owl", *SMALL, "--steps", "900", "--out", str(tmp_path / "owl.png"))
    await_line(making, "denoising")
    (running,) = _jobs(capsys, "--state", "running").jobs
    watching = in_background("watch", running.id)
    await_line(watching, "denoising")
    watching.send_signal(signal.SIGINT)
    _, rest = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert f"deviceops watch {running.id} --after" in rest
    assert [job.id for job in _jobs(capsys, "--state", "running").jobs] == [running.id]
    making.send_signal(signal.SIGINT)
    making.communicate(timeout=60)


def test_a_watch_goes_on_when_the_server_comes_back():
    with running_server("--device", "cpu", "--port", str(free_port())) as own:
        spec = {"generation": {"prompt": "an owl", "sampling": {"steps": 20}}}
        request = json_format.ParseDict({"spec": spec}, processing_service_pb2.SubmitJobRequest())
        job_id = own.processing.SubmitJob(request).job.id
        process = in_background("watch", job_id, "--address", own.address)
        await_line(process, "denoising")
        own.kill()
        await_line(process, "looking for the server")
        own.start()
        _, rest = process.communicate(timeout=120)
        assert process.returncode == 0
        assert rest.splitlines()[-1].endswith(": done")


def test_ctrl_c_on_a_benchmark_says_what_becomes_of_it(capsys: pytest.CaptureFixture[str]):
    process = in_background("device", "benchmark", "cpu", "--suite", "stability", "--seconds", "60")
    await_line(process, "started on cpu")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "benchmark cpu: job job-" in rest
    job_id = rest.split("deviceops watch ", 1)[1].split()[0]
    assert run(["watch", job_id]) == 1
    assert "Cancelled" in capsys.readouterr().err


def test_ctrl_c_on_a_reset_that_waits_says_what_becomes_of_it_and_of_the_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    making = in_background("generate", "an owl", *SMALL, "--steps", "900", "--out", str(tmp_path / "owl.png"))
    await_line(making, "denoising")
    (running,) = _jobs(capsys, "--state", "running").jobs
    process = in_background("device", "reset", "cpu", "--drain", "600")
    await_line(process, "draining")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "reset cpu: job job-" in rest
    assert run(["watch", rest.split("deviceops watch ", 1)[1].split()[0]]) == 1
    assert "Cancelled" in capsys.readouterr().err
    assert [job.id for job in _jobs(capsys, "--state", "running").jobs] == [running.id]
    making.send_signal(signal.SIGINT)
    making.communicate(timeout=60)
