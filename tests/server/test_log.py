"""Logs: the job id is on every line of a job, in the front and in its workers."""

import json
import os
import subprocess
import sys

from tests.server import asking
from tests.server.harness import RunningServer

A_LINE_OF_A_JOB = """
from structlog.contextvars import bound_contextvars
from domains.device.on_device.torch_errors import translate
from server import log
import torch
log.configure_inherited()
with bound_contextvars(job_id="job-1"):
    translate(ZeroDivisionError("x"), torch.device("cpu"), "denoising")
"""


def test_the_front_names_the_job(server: RunningServer) -> None:
    job_id = asking.submit(server)
    asking.watch(server, job_id)
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    told = [line["event"] for line in lines if line.get("job_id") == job_id]
    assert told[:1] == ["job started"]
    assert all("job_id" in line for line in lines if "job" in line["event"])


def test_a_worker_writes_as_the_front_does_and_names_the_job() -> None:
    environment = {**os.environ, "DEVICEOPS_LOG_FORMAT": "json", "DEVICEOPS_LOG_LEVEL": "info"}
    done = subprocess.run(
        [sys.executable, "-c", A_LINE_OF_A_JOB], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["job_id"], line["level"], line["doing"]) == ("job-1", "error", "denoising")
    assert line["exception"][0]["exc_type"] == "ZeroDivisionError"
