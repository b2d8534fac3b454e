"""A size that would block a device is refused by what the server measured; the caller's time limit is consent."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from deviceops.common.v1 import job_event_pb2
from deviceops.inference.v1 import generation_pb2
from server.cli.app import run
from tests.server import asking
from tests.server.asking import kind, picture
from tests.server.harness import RunningServer, running_server

WIDER = 2


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server that refuses each step that it has measured or can estimate, after it has measured one."""
    with running_server("--device", "sim", "--max-step-s", "0.000001") as server:
        assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
        yield server


def wider() -> generation_pb2.Generation:
    asked = picture()
    asked.width_px *= WIDER
    return asked


def test_a_size_is_refused_by_the_step_of_another_size(server: RunningServer) -> None:
    refused = asking.refused(lambda: asking.submit(server, wider()))
    assert refused.reason == "INVALID_FIELD"
    assert refused.fields == ["spec.generation.width_px"]
    assert float(refused.facts["estimated_run_s"]) >= float(refused.facts["estimated_step_s"])
    assert "options.run_timeout" in refused.bad_request.field_violations[0].description
    # Generate gives the same answer.
    assert asking.refused(lambda: asking.generate(server, wider())).fields == ["generation.width_px"]


def test_a_time_limit_for_the_whole_job_is_consent(server: RunningServer) -> None:
    options = job_event_pb2.JobOptions(run_timeout=Duration(seconds=int(asking.CALL_S)))
    assert kind(asking.watch(server, asking.submit(server, wider(), options))[-1]) == "succeeded"


def test_the_command_line_refuses_and_consents_too(server: RunningServer, tmp_path: Path) -> None:
    size = ("generate", "an owl", "--width", "128", "--height", "64", "--steps", "2", "--address", server.address)
    out = ("--out", f"{tmp_path}/owl.png")
    assert run([*size, *out]) == 1
    assert run([*size, *out, "--run-timeout", str(asking.CALL_S)]) == 0
