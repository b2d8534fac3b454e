"""Logs: the job id is on every line of a job, in the front and in its workers."""

import json
import os
import subprocess
import sys
import threading

import pytest

from deviceops.device.v1 import device_service_pb2, device_work_pb2
from deviceops.model.v1 import model_service_pb2
from server.log_capture import captured
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


EVIL = "a\\nb\\r\\x1b[2Jc\\u2028d\\x85e\\ud800f"
"""Ends lines, clears a screen, and is no UTF-8."""
OTHERS = """
import logging, os, sys, threading, warnings, math
from server import log
import structlog
_log = structlog.get_logger()
class Odd:
    def __repr__(self): raise ValueError("odd")
    __str__ = __repr__
def fails():
    secret = "a prompt"
    raise ValueError("EVIL")
with log.writing(FORM, "info"):
    _log.info("EVIL", text="EVIL", number=math.nan, **{"EVIL": 1})
    try:
        fails()
    except ValueError:
        _log.exception("it failed")
    _log.info("odd value", value=Odd())
    _log.error("odd names", method="/a/B", level="l", name="n", logger="x")
    _log.info("an object", value=object(), more=[object()])
    logging.getLogger("asyncio").warning("from logging %s", "EVIL")
    warnings.warn("from warnings")
    print("from print EVIL".encode("ascii", "replace").decode(), file=sys.stderr)
    os.write(2, b"from C, \\xff\\n")
    os.system("echo from a child >&2")
    thread = threading.Thread(target=fails); thread.start(); thread.join()
    os.write(2, b"no end of line")
print("for people", file=sys.stderr)
""".replace("EVIL", EVIL)


def logged(code: str, environment: dict[str, str] | None = None) -> list[str]:
    """The lines that a process writes to stderr."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    return done.stderr.decode("utf-8", "surrogateescape").split("\n")[:-1]


def test_every_line_of_the_json_log_is_json_whoever_writes_it() -> None:
    *lines, last = logged(OTHERS.replace("FORM", "'json'"))
    assert last == "for people"
    events = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines]
    told = [str(event["event"]) for event in events]
    for text in (
        "it failed",
        "odd value",
        "odd names",
        "from logging",
        "from print",
        "from C",
        "from a child",
        "no end of line",
    ):
        assert any(text in one for one in told), text
    assert not any("log_fault" in event for event in events if event["event"] == "odd names")
    assert any("from warnings" in one for one in told)
    assert all(line.isascii() for line in lines)
    assert "a prompt" not in "".join(lines)
    assert " at 0x" not in "".join(line for line in lines if "an object" in line)


def test_an_event_is_one_line_of_the_text_log_and_moves_no_cursor() -> None:
    lines = logged(OTHERS.replace("FORM", "'text'"))
    ours = [line for line in lines if "[info" in line or "[error" in line or "[warning" in line]
    assert [any(text in line for line in ours) for text in ("it failed", "odd value", "an object")] == [True] * 3
    (failed,) = (line for line in ours if "it failed" in line)
    assert "ValueError: a" in failed
    assert "fails" in failed
    assert "a prompt" not in failed
    assert all(character.isprintable() for line in ours for character in line)


def test_the_front_names_the_job(server: RunningServer) -> None:
    job_id = asking.submit(server)
    asking.watch(server, job_id)
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    told = [line["event"] for line in lines if line.get("job_id") == job_id]
    assert told[:1] == ["job started"]
    assert all("job_id" in line for line in lines if "job" in line["event"])


def test_every_line_of_a_reset_names_its_device_and_a_scan_names_none(server: RunningServer) -> None:
    work = device_work_pb2.DeviceReset(device_id="cpu", level=device_work_pb2.DEVICE_RESET_LEVEL_CONTENT)
    *_, reset = server.device.ResetDevice(device_service_pb2.ResetDeviceRequest(device_reset=work))
    *_, scan = server.model.ScanModels(model_service_pb2.ScanModelsRequest())
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    of_reset = [line for line in lines if line.get("job_id") == reset.event.job_id]
    of_scan = [line for line in lines if line.get("job_id") == scan.event.job_id]
    assert of_reset[-1]["event"] == of_scan[-1]["event"] == "attempt ended"
    assert {line["device_id"] for line in of_reset} == {"cpu"}
    assert not any("device_id" in line for line in of_scan)


def test_a_worker_writes_as_the_front_does_and_names_the_job() -> None:
    environment = {**os.environ, "DEVICEOPS_LOG_FORMAT": "json", "DEVICEOPS_LOG_LEVEL": "info"}
    (line,) = map(json.loads, logged(A_LINE_OF_A_JOB, environment))
    assert (line["job_id"], line["level"], line["doing"]) == ("job-1", "error", "denoising")
    assert line["exception"][0]["exc_type"] == "ZeroDivisionError"


@pytest.mark.skipif(sys.platform == "win32", reason="stderr is not captured there")
def test_without_a_thread_to_read_it_stderr_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    place, stderr = os.fstat(2), os.dup(2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError), captured(stderr, lambda line: None):
        pass
    os.close(stderr)
    assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == (place.st_dev, place.st_ino)
